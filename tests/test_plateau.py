"""Reduce on plateau: evaluations edit the hyperparameters, equally in a run, in lanes and after a resume."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_runs import Interrupting, outcome, tiny

from jaxtrain.errors import ConfigError
from jaxtrain.optimizers.schedules import plateau
from jaxtrain.parallel.population import Population
from jaxtrain.search.lanes import OneByOne
from jaxtrain.search.run import run_search
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.trackers.memory import MemoryTracker
from jaxtrain.training.experiment import build
from jaxtrain.training.train import train_and_evaluate
from jaxtrain.training.trained_run import load_run

pytestmark = pytest.mark.bits
RATE = "optimizer.learning_rate"
PREFIX = f"schedule.{RATE}."
GIVEN = {
    f"schedule.{RATE}": {"name": "reduce_on_plateau", "patience": 1.0, "factor": 0.5, "threshold": 0.02},
    "optimizer.learning_rate": 0.02,
    "train.duration": "240 steps",
}


def knobs(**given: float) -> dict[str, Any]:
    values = {"scale": 1.0, "factor": 0.5, "patience": 2.0, "threshold": 1e-4, "cooldown": 0.0, "minimum": 0.0}
    return {PREFIX + name: np.float32(value) for name, value in (values | dict(plateau.INITIAL_STATE) | given).items()}


EDIT = jax.jit(lambda hparams, loss: plateau.after_evaluation(hparams, PREFIX, loss))


def scales(losses: Any, **given: float) -> list[float]:
    """Returns the scale after each evaluation."""
    hparams, found = knobs(**given), []
    for loss in np.asarray(losses, np.float32):
        hparams = EDIT(hparams, loss)
        found.append(float(hparams[PREFIX + "scale"]))
    return found


@pytest.mark.parametrize("cooldown", [0.0, 3.0])
@pytest.mark.parametrize("patience", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_scale_is_that_of_optax_after_every_evaluation(seed, patience, cooldown):
    draw = np.random.default_rng(seed)
    losses = np.asarray(np.exp(-0.02 * np.arange(60)) + 0.05 * draw.normal(size=60))
    given = {"factor": 0.3, "patience": patience, "rtol": 0.01, "cooldown": cooldown, "min_scale": 0.02}
    reference = optax.contrib.reduce_on_plateau(
        **{**given, "patience": int(patience), "cooldown": int(cooldown)}, atol=0.0
    )

    def step(state: Any, loss: jax.Array) -> Any:
        _, state = reference.update(jnp.zeros(()), state, value=loss)
        return state, state.scale

    with jax.numpy_dtype_promotion("standard"):
        _, expected = jax.lax.scan(step, reference.init(jnp.zeros(())), jnp.asarray(losses))
    ours = scales(losses, factor=0.3, patience=patience, threshold=0.01, cooldown=cooldown, minimum=0.02)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    assert len(set(ours)) > 2


def test_every_float_may_differ_between_lanes_and_each_lane_is_its_own_plateau():
    losses = np.array([[1.0, 1.0], [1.1, 0.9], [1.2, 0.95], [0.2, 0.96], [0.3, 0.97]])
    lanes = {name: np.asarray([value, value], np.float32) for name, value in knobs().items()}
    lanes[PREFIX + "patience"], lanes[PREFIX + "factor"] = (
        np.asarray([1, 3], np.float32),
        np.asarray([0.5, 0.1], np.float32),
    )
    for row in losses:
        lanes = jax.vmap(EDIT)(lanes, row)
    alone = [
        scales(losses[:, 0], patience=1.0, factor=0.5)[-1],
        scales(losses[:, 1], patience=3.0, factor=0.1)[-1],
    ]
    np.testing.assert_array_equal(lanes[PREFIX + "scale"], np.asarray(alone, np.float32))
    assert alone == pytest.approx([0.125, 0.1])


def test_what_is_not_a_number_is_no_improvement_and_a_score_below_zero_improves_upwards():
    assert scales(np.asarray([1.0, np.nan, np.nan], np.float32), patience=2.0)[-1] == 0.5
    assert scales(-np.asarray([0.5, 0.6, 0.7, 0.8], np.float32), patience=1.0)[-1] == 1.0
    assert scales(-np.asarray([0.5, 0.5001, 0.5002], np.float32), patience=2.0, threshold=0.01)[-1] == 0.5


def test_a_reduction_never_raises_the_scale():
    assert scales([1.0, 1.0, 1.0, 1.0], patience=1.0, minimum=2.0) == [1.0, 1.0, 1.0, 1.0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("plateau") / "whole"
    train_and_evaluate(tiny(GIVEN), directory, quiet=True)
    return directory


def rates(rows) -> list[float]:
    return [row[RATE] for row in rows if row["split"] == "train"]


def test_a_run_reduces_its_rate_where_its_own_validation_losses_say_so(whole):
    rows = list(read_rows(whole / "metrics.jsonl"))
    losses = [row["loss"] for row in rows if row["split"] == "validation"]
    expected = [
        0.02,
        *(0.02 * scale for scale in scales(np.asarray(losses, np.float32), patience=1.0, threshold=0.02)),
    ][:-1]
    np.testing.assert_allclose(rates(rows), expected, rtol=1e-6)
    assert rates(rows)[-1] < 0.02


@pytest.mark.parametrize("steps", [(20,), (60, 160)])
def test_a_resumed_run_reduces_as_one_that_was_never_interrupted_to_the_bit(whole, tmp_path, steps):
    for step in steps:
        assert train_and_evaluate(tiny(GIVEN), tmp_path, trackers=[Interrupting(step)], quiet=True).step < 240
    train_and_evaluate(tiny(GIVEN), tmp_path, quiet=True)
    assert outcome(tmp_path) == outcome(whole)


@pytest.mark.slow
def test_each_seed_of_a_run_reduces_by_its_own_losses(whole, tmp_path):
    tracker = MemoryTracker()
    train_and_evaluate(tiny(GIVEN | {"train.seeds": 2}), tmp_path, trackers=[tracker], quiet=True)
    alone = [row["loss"] for row in read_rows(whole / "metrics.jsonl") if row["split"] == "validation"]
    found = [row["seed_0/loss"] for row in tracker.rows if row["split"] == "validation"]
    assert found == alone
    other = [row["seed_1/loss"] for row in tracker.rows if row["split"] == "validation"]
    train_and_evaluate(tiny(GIVEN | {"seed": 1}), tmp_path / "one", quiet=True)
    rows = read_rows(tmp_path / "one" / "metrics.jsonl")
    assert other == [row["loss"] for row in rows if row["split"] == "validation"]
    assert rates(rows) == [row[f"seed_1/{RATE}"] for row in tracker.rows if row["split"] == "train"]


@pytest.mark.slow
def test_scores_that_rise_are_improvements_in_padded_lanes_and_in_a_run_alone(tmp_path):
    """Three seeds on two devices, with accuracy as the metric; expected scales are computed from the logged values."""
    judged = GIVEN | {"eval.metric": "accuracy", "optimizer.learning_rate": 0.05}
    tracker = MemoryTracker()
    lanes = tiny(judged | {"train.seeds": 3, "parallel.mesh": 2})
    train_and_evaluate(lanes, tmp_path / "lanes", trackers=[tracker], quiet=True)
    found = []
    for seed in range(3):
        accuracies = [row[f"seed_{seed}/accuracy"] for row in tracker.rows if row["split"] == "validation"]
        expected = [1.0, *scales(-np.asarray(accuracies, np.float32), patience=1.0, threshold=0.02)][:-1]
        found.append([row[f"seed_{seed}/{RATE}"] for row in tracker.rows if row["split"] == "train"])
        np.testing.assert_allclose(found[-1], 0.05 * np.asarray(expected), rtol=1e-6)
    assert found[0] != found[1] or found[1] != found[2]
    train_and_evaluate(tiny(judged | {"seed": 2}), tmp_path / "alone", quiet=True)
    assert rates(read_rows(tmp_path / "alone" / "metrics.jsonl")) == found[2]
    run = load_run(tmp_path / "lanes", seed=2)
    assert float(run.state.hparams[f"{PREFIX}scale"]) < 1.0


def test_a_dead_lane_is_left_as_it_is_and_a_trial_one_by_one_is_edited():
    found = build(tiny(GIVEN))
    edit = functools.partial(found.schedule.after_evaluation, loss=np.asarray([np.nan, np.nan], np.float32))
    population = Population(found.rules, found.mesh, 2)
    states = population.init([0, 1], found.hparams, found.example)
    states = states.replace(live=population.spread(np.array([True, False])))
    edited = population.fetch(population.edit(states, edit).hparams)
    assert edited[f"{PREFIX}scale"].tolist() == [0.5, 1.0]
    one = OneByOne(found)
    alone = one.edit(
        one.init([0], found.hparams, found.example),
        functools.partial(found.schedule.after_evaluation, loss=np.asarray([np.nan], np.float32)),
    )
    assert float(alone.hparams[f"{PREFIX}scale"]) == 0.5


@pytest.mark.slow
def test_a_trial_of_a_halved_search_reduces_as_its_run_alone(whole, tmp_path):
    """Rungs fall between evaluations, and do not change the scale."""
    space = {"optimizer": {"learning_rate": ("log_uniform", 0.005, 0.02)}}
    given = {"search.space": space, "search.trials": 4, "search.compare_seeds": 0, "search.value": "best"}
    given |= {"search.halving": "successive", "search.first_rung": "30 steps", "search.reduction": 2}
    found = run_search(tiny(GIVEN | given), tmp_path / "search", quiet=True)
    done = [outcome for outcome in found.findings.outcomes if outcome.status == "done"]
    assert len(done) < 4
    for one in done:
        alone = train_and_evaluate(tiny(GIVEN | one.point), tmp_path / f"alone-{one.trial}", quiet=True)
        assert alone.best is not None
        assert alone.best["value"] == one.value


def test_data_without_a_validation_split_have_nothing_that_could_reduce(tmp_path):
    given = GIVEN | {"data.validation_fraction": 0.0}
    with pytest.raises(ConfigError, match=r"reduce_on_plateau.*validation split, .*Set data\.validation_fraction"):
        train_and_evaluate(tiny(given), tmp_path, quiet=True)
