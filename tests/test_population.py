"""Populations: a lane equals its solo run, lanes do not affect each other, and nothing compiles twice."""

import dataclasses
import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from tiny_runs import RATE_OF

from jaxtrain.config.resolve import resolve_config
from jaxtrain.core.state import TrainState
from jaxtrain.core.steps import train_step
from jaxtrain.core.trees import state_digest
from jaxtrain.errors import UsageError
from jaxtrain.optimizers import OPTIMIZERS
from jaxtrain.optimizers.schedules import SCHEDULES
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.parallel.mesh import compile_init, compile_train_call, device_mesh
from jaxtrain.parallel.population import Population
from jaxtrain.parallel.solo_comparison import compare_with_solo
from jaxtrain.parallel.width import fit_width
from jaxtrain.training.experiment import Experiment, build

pytestmark = pytest.mark.unfused
STEPS = 20
PAIRS = list(zip(OPTIMIZERS.members, itertools.cycle(SCHEDULES.members), strict=False))
"""Every optimizer and every schedule, paired."""


@cache
def experiment(optimizer: str = "adamw", schedule: str = "warmup_cosine", devices: int = 1) -> Experiment:
    """A tiny network with dropout on the digits."""
    given = {
        "data": {"name": "digits", "batch_size": 32},
        "model": {"name": "mlp", "hidden": (16,), "dropout": 0.1},
        "optimizer": {"name": optimizer, "learning_rate": RATE_OF[optimizer]},
        "schedule": {} if optimizer == "rprop" else {"optimizer": {"learning_rate": {"name": schedule}}},
        "train": {"duration": f"{STEPS} steps"},
        "parallel": {"mesh": devices},
        "track": {"histograms": None, "pictures": None},
    }
    return build(resolve_config(given).config)


def example(found: Experiment) -> dict[str, np.ndarray]:
    return {name: array[:1] for name, array in found.dataset.split("train").items()}


def with_rates(found: Experiment, rates: Sequence[float]) -> dict[str, Any]:
    return {**found.hparams, "optimizer.learning_rate": np.asarray(rates, np.float32)}


def trained(
    population: Population, found: Experiment, states: TrainState, steps: int = STEPS, begin: int = 0
) -> tuple[TrainState, Any]:
    """Takes steps in one call; returns the states and the fetched output."""
    states, output = population.call(states, found.batches(begin, steps, STEPS), steps)
    return states, population.fetch(output)


def solo(found: Experiment, seed: int, rate: float, steps: int = STEPS) -> TrainState:
    """Returns the final state of the solo run of a seed and a rate, on the host."""
    hparams = {**found.hparams, "optimizer.learning_rate": np.float32(rate)}
    state = compile_init(found.rules, found.mesh)(jax.random.key(seed), example(found), hparams)
    call = compile_train_call(found.rules, found.mesh, "mesh")
    return jax.device_get(call(state, found.batches(0, steps, STEPS), steps)[0])


def bits_of(optimizer: str) -> pytest.MarkDecorator:
    """Returns the mark of the cheapest programs that keep the bits: averages of schedule-free ones need more."""
    return pytest.mark.bits if optimizer.startswith("schedule_free") else pytest.mark.unfused


@pytest.mark.one_fast_of(12)
@pytest.mark.filterwarnings("ignore::jaxtrain.errors.JaxtrainWarning")  # rprop, whose batches here are small
@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        *(pytest.param(*pair, marks=bits_of(pair[0])) for pair in PAIRS),
        *(pytest.param(*pair, marks=pytest.mark.optimized, id=f"{pair[0]}, optimized") for pair in PAIRS[:1]),
    ],
)
def test_a_mapped_lane_is_its_solo_run_to_the_bit(optimizer: str, schedule: str) -> None:
    """Over every optimizer and schedule, and of the first as a user compiles; digests differ between the lanes."""
    found, rate = experiment(optimizer, schedule), RATE_OF[optimizer]
    lanes = [(0, rate), (1, rate), (0, 3 * rate)]
    population = Population(found.rules, found.mesh, lanes=len(lanes))
    states = population.init([s for s, _ in lanes], with_rates(found, [r for _, r in lanes]), example(found))
    states, _ = trained(population, found, states)
    digests = [state_digest(population.fetch_lane(states, lane)) for lane in range(len(lanes))]
    assert digests == [state_digest(solo(found, seed, rate)) for seed, rate in lanes]
    assert len(set(digests)) == len(lanes)


@pytest.mark.bits  # without, they are equal
@pytest.mark.one_fast_of(2)
@pytest.mark.parametrize(("optimizer", "schedule"), PAIRS[::10])
def test_a_vmapped_lane_stays_near_its_solo_run(optimizer: str, schedule: str) -> None:
    """Every tenth pair, in chunks of two: parameters within a relative L2 distance of 1e-4 after 20 steps."""
    found, rate = experiment(optimizer, schedule), RATE_OF[optimizer]
    population = Population(found.rules, found.mesh, lanes=4, width=2)
    compared = compare_with_solo(
        population, [0, 1, 2, 3], with_rates(found, [rate, rate, 2 * rate, rate]), found.batches(0, STEPS, STEPS), STEPS
    )  # fmt: skip
    assert compared.shape == (4,)
    assert compared.max() <= 1e-4
    assert compared.max() > 0.0, "rounding differs"


@pytest.mark.slow
def test_the_comparison_sees_another_lane() -> None:
    """Lanes compared with solo runs at another rate are far from them."""
    found = experiment()
    population = Population(found.rules, found.mesh, lanes=2)
    batches = found.batches(0, STEPS, STEPS)
    states = population.init([0, 0], with_rates(found, [1e-3, 1e-2]), example(found))
    states, _ = population.call(states, batches, STEPS)
    swapped = population.copy(states, [1, 0], [0, 1])
    told = compare_with_solo(
        population, [0, 0], with_rates(found, [1e-3, 1e-2]), batches, STEPS, states=swapped
    )  # fmt: skip
    assert told.min() > 1e-2


@pytest.mark.one_fast_of(3)
@pytest.mark.parametrize("width", [1, 2, 4])
def test_neighbours_of_a_diverged_lane_are_untouched(width: int) -> None:
    """The lane keeps its state and is reported dead; its neighbours are the same bits as beside a stable lane."""
    found = experiment("sgd")
    population = Population(found.rules, found.mesh, lanes=4, width=width)
    ends = {}
    for third in (0.05, 1e30):
        states = population.init([0, 1, 2, 3], with_rates(found, [0.05, 0.05, third, 0.05]), example(found))
        before = state_digest(population.fetch_lane(states, 2).params)
        for begin in (0, 10):
            states, output = trained(population, found, states, 10, begin)
        ends[third] = states
    dead = population.fetch_lane(ends[1e30], 2)
    assert np.asarray(ends[1e30].live).tolist() == [True, True, False, True]
    assert output.live.tolist() == [True, True, False, True]
    assert (state_digest(dead.params), int(dead.step)) == (before, 0)
    for lane in (0, 1, 3):
        assert state_digest(population.fetch_lane(ends[1e30], lane)) == state_digest(
            population.fetch_lane(ends[0.05], lane)
        )


def test_values_of_floats_and_seeds_never_compile_again() -> None:
    """A second population of other seeds, rates and steps compiles nothing."""
    found = experiment()
    population = Population(found.rules, found.mesh, lanes=3)

    def once(seeds: list[int], rates: list[float], steps: int) -> None:
        states = population.init(seeds, with_rates(found, rates), example(found))
        trained(population, found, states, steps)

    once([0, 1, 2], [1e-3, 1e-3, 1e-3], 20)
    with count_compilations() as compiled:
        once([7, 7, 9], [1e-4, 1e-2, 3e-1], 13)
    assert compiled.count == 0


@pytest.mark.slow
@pytest.mark.bits
def test_lanes_spread_over_devices_are_the_same_lanes() -> None:
    """Five lanes on one and, with three of padding, on four devices: equal states, and no padding is fetched."""
    ends = {}
    for devices in (1, 4):
        found = dataclasses.replace(experiment(), mesh=device_mesh(devices))
        population = Population(found.rules, found.mesh, lanes=5)
        states = population.init(range(5), found.hparams, example(found))
        states, output = trained(population, found, states)
        assert output.metrics["loss"].sum.shape == (5, STEPS)
        ends[devices] = [state_digest(population.fetch_lane(states, lane)) for lane in range(5)]
    assert ends[1] == ends[4]


@pytest.mark.bits
@pytest.mark.parametrize("lanes", [1, 2, 3, 5, 8])
def test_fewer_lanes_of_a_wide_program_are_spread_over_the_devices(lanes: int) -> None:
    """Two devices and a program of eight lanes: each device has half of the live ones, and each equals its solo run."""
    found = experiment(devices=2)
    population = Population(found.rules, found.mesh, lanes=8).with_lanes(lanes)
    rates = [1e-3 * (lane + 1) for lane in range(lanes)]
    states = population.init(range(lanes), with_rates(found, rates), example(found))
    live = [np.asarray(shard.data).sum() for shard in states.live.addressable_shards]
    assert sum(live) == lanes
    assert max(live) - min(live) <= 1
    states, output = trained(population, found, states)
    assert len(output.live) == lanes
    assert output.live.all()
    solos = [state_digest(solo(experiment(), seed, rate)) for seed, rate in enumerate(rates)]
    assert [state_digest(population.fetch_lane(states, lane)) for lane in range(lanes)] == solos
    saved = population.fetch(states)
    holds_padding = [leaf for leaf in jax.tree.leaves(saved) if not leaf.flags.owndata]
    assert not holds_padding or lanes == population.padded  # the states of a search lie on the host, lanes by lanes
    assert_lanes_equal(population.fetch(population.place(saved)), saved)
    narrower, kept = population.gather(states, [lanes - 1])
    assert state_digest(narrower.fetch_lane(kept, 0)) == solos[-1]


def assert_lanes_equal(found: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_dead_lane_is_not_evaluated() -> None:
    found = experiment()
    population = Population(found.rules, found.mesh, lanes=3)
    states = population.init([0, 1, 2], with_rates(found, [1e-3] * 3), example(found))
    whole = population.fetch(population.evaluate(states, found.eval_batches("validation")))
    dead = states.replace(live=population.spread(np.array([True, False, True])))
    metrics = population.fetch(population.evaluate(dead, found.eval_batches("validation")))
    assert (whole["loss"].count > 0).all()
    assert metrics["loss"].count[1] == 0.0
    for lane in (0, 2):
        assert metrics["loss"].sum[lane] == whole["loss"].sum[lane]


def test_survivors_go_on_to_the_bit_in_a_narrower_program() -> None:
    """Two of five lanes, gathered in another order, equal the same lanes in the wide program."""
    found = experiment()
    population = Population(found.rules, found.mesh, lanes=5)
    states = population.init(range(5), found.hparams, example(found))
    states, _ = trained(population, found, states, 10)
    narrow, gathered = population.gather(states, [3, 1])
    states, _ = trained(population, found, states, 10, begin=10)
    gathered, _ = trained(narrow, found, gathered, 10, begin=10)
    assert state_digest(narrow.fetch_lane(gathered, 0)) == state_digest(population.fetch_lane(states, 3))
    assert state_digest(narrow.fetch_lane(gathered, 1)) == state_digest(population.fetch_lane(states, 1))


def test_lanes_are_copied_whole() -> None:
    """A copied lane includes its hyperparameters and key; other lanes are unchanged."""
    found = experiment()
    population = Population(found.rules, found.mesh, lanes=3)
    states = population.init([0, 1, 2], with_rates(found, [1e-3, 2e-3, 3e-3]), example(found))
    digests = [state_digest(population.fetch_lane(states, lane)) for lane in range(3)]
    copied = population.copy(states, [0], [2])
    assert [state_digest(population.fetch_lane(copied, lane)) for lane in range(3)] == [
        digests[0],
        digests[1],
        digests[0],
    ]


def test_weights_are_equal_for_equal_seeds() -> None:
    """They differ for other seeds."""
    found = experiment()
    population = Population(found.rules, found.mesh, lanes=3)
    states = population.init([4, 4, 5], with_rates(found, [1e-3, 1e-2, 1e-3]), example(found))
    first, second, third = (state_digest(population.fetch_lane(states, lane).params) for lane in range(3))
    assert first == second != third


@pytest.mark.slow
def test_a_step_of_ones_own_is_taken_by_every_lane() -> None:
    """Any function with the signature of `train_step`."""

    def twice(state: TrainState, batch: Any, *, rules: Any, axis_name: Any = ()) -> Any:
        state, _ = train_step(state, batch, rules=rules, axis_name=axis_name)
        return train_step(state, batch, rules=rules, axis_name=axis_name)

    found = experiment()
    population = Population(found.rules, found.mesh, lanes=2, step=twice)
    states = population.init([0, 1], found.hparams, example(found))
    states, _ = trained(population, found, states, 5)
    assert np.asarray(states.step).tolist() == [10, 10]


@pytest.mark.slow
def test_the_width_is_planned_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One lane at a time on a CPU; a given width is used; an error states the size and the limit."""
    found = experiment()
    population = Population(found.rules, found.mesh, lanes=8)
    needs = found.hparams, found.batches(0, 0, 10)
    assert fit_width(population, None, *needs).width == 1
    assert fit_width(population, 4, *needs).width == 4
    wide = dataclasses.replace(population, width=8).plan_bytes(*needs)
    assert wide > population.plan_bytes(*needs)
    monkeypatch.setattr("jaxtrain.parallel.width.memory_limit", lambda mesh: 1000)
    with pytest.raises(UsageError, match=r"lanes: got 8.*MiB.*expected at most .*MiB"):
        fit_width(population, None, *needs)
