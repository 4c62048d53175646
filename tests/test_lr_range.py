"""Range tests: lanes equal solo runs, a ramp equals a loop by hand, and the caller's objects are unchanged."""

import dataclasses
import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny_runs import tiny

from jaxtrain.core.state import TrainState
from jaxtrain.core.steps import train_step
from jaxtrain.core.trees import state_digest
from jaxtrain.errors import ConfigError, UsageError
from jaxtrain.files import read_json, write_json
from jaxtrain.lr_range.result import LRRangeResult
from jaxtrain.lr_range.run import sweep_rates
from jaxtrain.lr_range.sweep import LaneSweep, Points, Ramp, Setup
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.parallel.mesh import compile_eval_call, compile_init, compile_train_call, device_mesh
from jaxtrain.parallel.population import Population
from jaxtrain.training.experiment import Experiment, build
from jaxtrain.training.feeds import Pieces

pytestmark = pytest.mark.unfused
RATES = np.geomspace(1e-5, 10.0, 7)
SEEDS = (0, 3)
STEPS = 20
TARGET = "optimizer.learning_rate"


@cache
def experiment() -> Experiment:
    return build(tiny())


def judge(found: Experiment) -> Pieces:
    return found.eval_batches("validation")


def measured(found: Experiment, **options: Any) -> LRRangeResult:
    """Runs a range test of lanes of one length, 14 by default, so that most tests here share one program."""
    setup, points = parts(found, options)
    return sweep_rates(setup, points, options.pop("lengths", (STEPS,)), STEPS, say=lambda line: None, **options)


def parts(found: Experiment, options: dict[str, Any]) -> tuple[Setup, Points]:
    """Takes the fields of a setup and of points out of the options."""
    setup = Setup(found.rules, found.hparams, found.batches, mesh=found.mesh)
    given = {field.name: options.pop(field.name) for field in dataclasses.fields(Setup) if field.name in options}
    points = Points(TARGET, RATES, SEEDS, allows=lambda rate: False)  # no rate beyond the range is tried
    chosen = {name: options.pop(name) for name in Points._fields if name in options}
    return dataclasses.replace(setup, **given), points._replace(**chosen)


def hparams_at(found: Experiment, rate: float, **more: float) -> dict[str, np.float32]:
    return {**found.hparams, TARGET: np.float32(rate)} | {name: np.float32(value) for name, value in more.items()}


def solo(found: Experiment, seed: int, rate: float) -> tuple[TrainState, np.ndarray]:
    """Returns the final state and the loss of every step of the solo run of a rate."""
    hparams = hparams_at(found, rate, **{"train.total_steps": STEPS})
    state = compile_init(found.rules, found.mesh)(jax.random.key(seed), found.example, hparams)
    call = compile_train_call(found.rules, found.mesh, "mesh")
    state, output = call(state, found.batches(0, STEPS, STEPS), STEPS)
    loss = jax.device_get(output.metrics["loss"])
    return state, loss.sum / loss.count


# By lanes


@pytest.mark.bits
def test_the_loss_at_a_rate_is_that_of_its_solo_run_to_the_bit():
    """On the validation split. All losses differ, so swapped rates or seeds fail the test."""
    found = experiment()
    result = measured(found, judge=judge(found))
    evaluate = compile_eval_call(found.rules, found.mesh)
    for row, rate in enumerate(RATES[:5]):
        for column, seed in enumerate(SEEDS):
            loss = evaluate(solo(found, seed, rate)[0], judge(found))["loss"].result()
            assert result.losses[row, column] == np.float32(loss)
    assert len(np.unique(result.losses)) == result.losses.size


def test_without_a_split_to_judge_on_the_last_fifth_of_the_training_counts():
    found = experiment()
    result = measured(found)
    for row in (0, 4):
        losses = solo(found, SEEDS[1], RATES[row])[1]
        assert result.losses[row, 1] == pytest.approx(losses[-STEPS // 5 :].mean(), rel=1e-6)


def test_lanes_that_diverge_are_left_out_and_the_result_still_says_what_there_is():
    found = experiment()
    rates = np.geomspace(1e-3, 1e37, 7)
    result = measured(found, rates=rates, judge=judge(found))
    lost = [bool(np.isnan(losses).all()) for losses in result.losses]
    assert lost == sorted(lost), "above some rate all lanes diverge"
    assert 0 < sum(lost) < len(rates)
    assert np.isinf(result.curves[-1].median).tolist() == lost
    everything = measured(found, rates=np.geomspace(1e30, 1e37, 7), judge=judge(found))
    assert (everything.status, everything.suggestion, everything.reliable) == ("diverged", None, False)
    assert everything.losses.shape == (7, 2)


def test_other_rates_and_seeds_compile_nothing():
    found = experiment()
    measured(found, judge=judge(found))
    with count_compilations() as compiled:
        measured(found, judge=judge(found), rates=np.geomspace(1e-4, 1.0, 7), seeds=(5, 6), lengths=(7,))
    assert compiled.count == 0


@pytest.mark.slow
def test_planning_the_memory_compiles_the_program_that_then_runs():
    found = experiment()
    population = Population(found.rules, found.mesh, lanes=3)
    batches = found.batches(0, 5, 10)
    with count_compilations() as compiled:
        planned = population.plan_bytes(found.hparams, batches)
        assert (planned > 0, compiled.count) == (True, 1)
        states = population.init(SEEDS[0], found.hparams, found.example)
        before = compiled.count
        population.call(states, batches, 5)
    assert compiled.count == before


def test_every_length_is_a_schedule_of_its_own_and_the_longer_train_rates_around_the_answer():
    """The curve of each length equals a test of that length alone, bit for bit."""
    found = experiment()
    rates = np.geomspace(1e-6, 10.0, 15)
    both = measured(found, judge=judge(found), rates=rates, lengths=(10, STEPS))
    assert [curve.steps for curve in both.curves] == [10, STEPS]
    short, long = both.curves
    assert short.rates.tolist() == rates.tolist()
    assert 3 <= len(long.rates) < len(rates)
    best = short.rates[np.argmin(short.median)]
    assert long.rates[0] <= best <= long.rates[-1]
    assert long.rates[-1] / best < 10 <= best / long.rates[0]
    for curve in both.curves:
        alone = measured(found, judge=judge(found), rates=curve.rates, lengths=(curve.steps,))
        np.testing.assert_array_equal(alone.losses, curve.losses)


def test_a_range_whose_edge_is_touched_is_widened_once_as_far_as_the_float_may_go():
    found = experiment()
    low = np.geomspace(1e-6, 1e-4, 7)
    heard: list[str] = []
    setup, points = parts(found, {"judge": judge(found), "rates": low})
    wider = sweep_rates(setup, points._replace(allows=lambda rate: rate < 2e-3), (10, STEPS), STEPS, say=heard.append)
    assert any("beyond the range" in line for line in heard)
    for curve in wider.curves:
        assert (np.diff(curve.rates) > 0).all()
        assert 9e-4 < curve.rates[-1] < 2e-3
    whole = measured(found, judge=judge(found), rates=wider.curves[0].rates, lengths=(10,))
    np.testing.assert_array_equal(whole.losses, wider.curves[0].losses)
    assert measured(found, judge=judge(found), rates=low).curves[0].rates.tolist() == low.tolist()


def test_a_narrow_range_is_widened_by_few_rates_and_another_float_is_not():
    found = experiment()
    setup, points = parts(found, {"judge": judge(found), "rates": np.geomspace(1e-5, 1.01e-5, 5)})
    wider = sweep_rates(setup, points._replace(allows=lambda rate: True), (STEPS,), STEPS, say=lambda line: None)
    assert 5 < len(wider.rates) <= 25
    assert wider.rates[-1] == pytest.approx(1.01e-3, rel=0.01)
    decay = points._replace(target="optimizer.weight_decay", allows=lambda rate: True)
    assert len(sweep_rates(setup, decay, (STEPS,), STEPS, say=lambda line: None).rates) == 5


def test_lanes_start_from_the_weights_that_are_given():
    found = experiment()
    setup, points = parts(found, {"judge": judge(found)})

    def zero(states: TrainState, population: Population) -> TrainState:
        return states.replace(**jax.tree.map(jax.numpy.zeros_like, {"params": states.params, "ema": states.ema}))

    untrained = LaneSweep(dataclasses.replace(setup, start=zero), points).untrained()
    np.testing.assert_allclose(untrained, np.log(10.0), rtol=1e-5)
    assert not np.allclose(LaneSweep(setup, points).untrained(), np.log(10.0), rtol=1e-2)


# By a ramp


def _as_they_are(step: jax.Array, hparams: Any) -> dict[str, Any]:
    return dict(hparams)


def test_step_i_of_a_ramp_is_taken_at_rate_i_and_its_loss_is_that_before_the_update():
    """Compared with a loop by hand that sets the rate before every step."""
    found = experiment()
    result = measured(found, method="ramp")
    step = jax.jit(partial(train_step, rules=found.rules._replace(schedule=_as_they_are)))
    data = found.dataset.split("train")
    rows = found.batches(0, len(RATES), len(RATES)).rows
    for column, seed in enumerate(SEEDS):
        state = compile_init(found.rules, found.mesh)(jax.random.key(seed), found.example, found.hparams)
        for i, rate in enumerate(RATES):
            state = state.replace(hparams=state.hparams | {TARGET: jax.numpy.float32(rate)})
            state, metrics = step(state, {name: array[rows[i]] for name, array in data.items()})
            assert result.losses[i, column] == pytest.approx(metrics["loss"].result(), rel=1e-4)


def test_a_ramp_longer_than_a_call_goes_on_where_the_call_ended():
    """120 rates: the rate applied at each step is right, and the curve is continuous where the second call begins."""
    rates = np.geomspace(1e-6, 1e-2, 120)
    hparams = {"lr_range.start": rates[0], "lr_range.stop": rates[-1], "lr_range.rates": 120.0, TARGET: 5.0, "a": 2.0}
    hparams = {name: jax.numpy.float32(value) for name, value in hparams.items()}
    applied = [Ramp(TARGET)(jax.numpy.int32(step), hparams) for step in range(120)]
    np.testing.assert_allclose([float(values[TARGET]) for values in applied], rates, rtol=1e-5)
    assert {float(values["a"]) for values in applied} == {2.0}
    found = experiment()
    whole = measured(found, method="ramp", rates=rates)
    begun = measured(found, method="ramp", rates=rates[:50])
    np.testing.assert_allclose(whole.losses[:50], begun.losses, rtol=1e-4)
    assert np.isfinite(whole.losses).all()
    assert np.abs(np.diff(whole.losses[95:105, 0])).max() < 0.5


def test_a_ramp_that_blows_up_keeps_the_losses_before():
    found = experiment()
    result = measured(found, method="ramp", rates=np.geomspace(1e-3, 1e37, 7))
    assert np.isfinite(result.losses[:2]).all()
    assert np.isnan(result.losses[-1]).all()


# Seeds, a second float, a user's own step


@pytest.mark.parametrize("method", ["lanes", "ramp"])
def test_a_second_float_gives_a_grid_whose_best_row_is_the_curve(method):
    """The best row equals, bit for bit, a test at that value alone."""
    found = experiment()
    values = np.asarray([300.0, 1e-4])
    result = measured(found, method=method, second=("optimizer.weight_decay", values), seeds=(0,))
    assert result.grid.shape == (2, len(RATES))
    best = int(np.argmin(result.grid.min(axis=1)))
    assert (best, result.row) == (1, 1)
    if method == "lanes":
        assert result.suggestions == {TARGET: result.suggestion, "optimizer.weight_decay": 1e-4}
    np.testing.assert_array_equal(np.nan_to_num(result.losses[:, 0], nan=np.inf), result.grid[best])
    assert not np.array_equal(*result.grid)
    alone = dataclasses.replace(found, suggested={"optimizer.weight_decay": values[best]})
    np.testing.assert_array_equal(measured(alone, method=method, seeds=(0, 0)).losses[:, :1], result.losses)


def still(state: TrainState, batch: Any, *, rules: Any, axis_name: Any = ()) -> Any:
    """A user's own step, which does not change the parameters."""
    _, metrics = train_step(state, batch, rules=rules, axis_name=axis_name)
    return state.replace(step=state.step + 1), metrics


@pytest.mark.one_fast_of(2)
@pytest.mark.parametrize("method", ["lanes", "ramp"])
def test_a_step_of_ones_own_is_the_one_that_is_taken(method):
    """No rate lowers the loss, so none is suggested."""
    found = experiment()
    options = {"judge": judge(found)} if method == "lanes" else {}
    result = measured(found, method=method, step=still, **options)
    assert (result.suggestion, result.reliable, result.status) == (None, False, "done")
    if method == "lanes":
        assert (result.losses == result.losses[0]).all()


# The caller's objects are unchanged


@pytest.mark.bits
@pytest.mark.one_fast_of(4)
@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("method", ["lanes", "ramp"])
def test_nothing_of_the_callers_changes_and_devices_do_not_matter(method, devices):
    """The caller's data, hyperparameters and state are unchanged; losses are equal on one and on four devices.

    Without a mesh, on all four devices, the data may be NumPy arrays.
    """
    found = experiment()
    state = compile_init(found.rules, found.mesh)(jax.random.key(0), found.example, found.hparams)
    data = found.batches(0, 0).data if devices == 1 else found.dataset.split("train")
    before = state_digest((state, data, found.hparams))
    batches = lambda *place: found.batches(*place).replace(data=data)  # noqa: E731
    result = measured(found, method=method, batches=batches, mesh=device_mesh(1) if devices == 1 else None)
    assert state_digest((state, data, found.hparams)) == before
    np.testing.assert_array_equal(result.losses, measured(found, method=method).losses)


# Invalid arguments


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rates": np.geomspace(1e-3, 1.0, 4)}, r"rates: got .*at least five positive numbers, ascending"),
        ({"rates": np.geomspace(1.0, 1e-3, 7)}, r"rates: got .*ascending"),
        ({"rates": np.zeros(7)}, r"rates: got .*positive"),
        ({"rates": np.asarray([])}, r"rates: got \[\]"),
        ({"target": "optimizer.lerning_rate"}, r"target: got 'optimizer.lerning_rate'.*Did you mean 'optimizer.lea"),
        ({"target": "model.hidden"}, r"target: got 'model.hidden'; expected a float among .*model.dropout"),
        ({"second": ("model.depth", np.ones(2))}, r"second: got 'model.depth'; expected a float among"),
        ({"second": (TARGET, np.ones(2))}, r"second: got 'optimizer.learning_rate'; expected another float"),
    ],
)
def test_what_is_no_range_or_no_float_is_refused(given, said):
    with count_compilations() as compiled, pytest.raises(ConfigError, match=said):
        measured(experiment(), **given)
    assert compiled.count == 0


def test_more_lanes_than_memory_are_refused_before_they_run(monkeypatch):
    monkeypatch.setattr("jaxtrain.parallel.width.memory_limit", lambda mesh: 1000)
    with pytest.raises(UsageError, match=r"lanes: got 14, at width 1 .*MiB.*expected at most .*MiB.*fewer lanes"):
        measured(experiment())


# The result as a file


@pytest.mark.parametrize("second", [None, ("optimizer.weight_decay", np.asarray([1e-4, 300.0]))])
def test_a_result_comes_back_from_its_file(tmp_path: Path, second):
    """With diverged lanes, and with a second float."""
    found = experiment()
    seeds = SEEDS if second is None else (0,)
    result = measured(found, rates=np.geomspace(1e-3, 1e37, 7), seeds=seeds, second=second)
    assert np.isnan(result.losses).any()
    write_json(tmp_path / "result.json", result.to_json())
    again = LRRangeResult.from_json(read_json(tmp_path / "result.json"))
    assert again.readings == result.readings
    assert again.reading == result.reading
    assert (again.status, again.method, again.target) == (result.status, result.method, result.target)
    for name in ("rates", "losses", "grid"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
    assert json.loads((tmp_path / "result.json").read_text())["suggestion"] == result.suggestion


def test_a_ramp_counts_nothing_after_a_lane_has_diverged_at_any_width():
    """Over two calls and with a live lane in the same chunk, all later losses are nan, as at width 1."""
    found, rates = experiment(), np.geomspace(1e-3, 1e3, 130)
    second = ("optimizer.weight_decay", np.array([1e-4, 1e38]))
    grids = [measured(found, rates=rates, seeds=(0,), method="ramp", second=second, width=w).grid for w in (1, 2)]
    for grid in grids:
        ended = np.flatnonzero(~np.isfinite(grid[1]))
        assert len(ended)
        assert not np.isfinite(grid[1, ended[0] :]).any()
