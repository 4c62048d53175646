"""Seeds as lanes of one program equal their solo runs to the bit, in the rows, the result and the checkpoints."""

import dataclasses
import math
import re
import signal
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from test_resume import wait_for
from tiny_runs import PATIENCE, Interrupting, config_file, on_devices, outcome, result_of, run, start, tiny

from jaxtrain.commands.evaluate import evaluate
from jaxtrain.commands.train import train_report
from jaxtrain.config.defaults import Config
from jaxtrain.core.metric_names import SEED
from jaxtrain.core.state import TrainState
from jaxtrain.core.steps import train_step
from jaxtrain.core.trees import state_digest
from jaxtrain.errors import ConfigError, UsageError
from jaxtrain.parallel.mesh import device_mesh
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.trackers.base import ROW_KEYS
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.trackers.memory import MemoryTracker
from jaxtrain.training.experiment import Experiment, build
from jaxtrain.training.intervals import over_lanes
from jaxtrain.training.runners import make_runner
from jaxtrain.training.train import start as started
from jaxtrain.training.train import train_and_evaluate
from jaxtrain.training.trained_run import load_run

pytestmark = pytest.mark.bits
FIRST, SEEDS = 2, (2, 3, 4)
THREE = {"seed": FIRST, "train.seeds": 3}
TARGET = "optimizer.learning_rate"


@cache
def experiment() -> Experiment:
    return build(tiny(THREE))


def trained(config: Config, workdir: Path, **options: Any) -> Any:
    return train_and_evaluate(config, workdir, quiet=True, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of three seeds."""
    workdir = tmp_path_factory.mktemp("seeds") / "whole"
    trained(tiny(THREE), workdir)
    return workdir


@pytest.fixture(scope="module")
def solos(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The directories of the solo runs of the same seeds."""
    folder = tmp_path_factory.mktemp("solos")
    for seed in SEEDS:
        trained(tiny({"seed": seed}), folder / str(seed))
    return {seed: folder / str(seed) for seed in SEEDS}


def lanes_of(workdir: Path, step: int) -> dict[int, TrainState]:
    """Returns seed -> saved state of that lane, at a step of the run."""
    runner = make_runner(experiment(), train_step)
    restored = Checkpoints(workdir / "checkpoints", keep=1, say=print).restore(runner.shapes(), step)
    assert restored is not None
    return {
        seed: jax.tree.map(lambda leaf, lane=lane: np.asarray(leaf[lane]), restored.state)
        for lane, seed in enumerate(SEEDS)
    }


# A lane is its solo run


def test_the_last_state_of_each_lane_is_that_of_its_solo_run_to_the_bit(whole, solos):
    digests = {seed: state_digest(state) for seed, state in lanes_of(whole, 60).items()}
    assert digests == {seed: result_of(solos[seed])["state_digest"] for seed in SEEDS}
    assert len(set(digests.values())) == len(SEEDS)


def test_the_rows_hold_the_numbers_of_each_seed_and_of_all_together(whole, solos):
    """The numbers of a seed equal those of its solo run to the bit."""
    rows = {(row["step"], row["split"]): row for row in read_rows(whole / "metrics.jsonl")}
    for seed in SEEDS:
        own = {(row["step"], row["split"]): row for row in read_rows(solos[seed] / "metrics.jsonl")}
        for place in ((step, split) for step in (20, 40, 60) for split in ("train", "validation")):
            for name in ("loss", "accuracy"):
                assert rows[place][f"seed_{seed}/{name}"] == own[place][name]
            assert rows[place].get(TARGET) == own[place].get(TARGET)
    for place, row in rows.items():
        assert row["loss"] == pytest.approx(np.mean([row[f"seed_{seed}/loss"] for seed in SEEDS]), rel=1e-6), place


def test_the_result_holds_mean_spread_and_interval_of_every_metric(whole):
    """Compared with Student's t of SciPy."""
    result, rows = result_of(whole), read_rows(whole / "metrics.jsonl")
    assert result["seeds"].keys() == {"train", "validation", "test", "diverged"}
    assert result["seeds"]["diverged"] == {}
    last = {row["split"]: row for row in rows}
    for split in ("train", "validation", "test"):
        assert result["seeds"][split].keys() == {"loss", "accuracy"}
        for name, found in result["seeds"][split].items():
            values = [last[split][f"seed_{seed}/{name}"] for seed in SEEDS]
            assert found["values"] == {str(seed): value for seed, value in zip(SEEDS, values, strict=True)}
            mean, error = np.mean(values), stats.sem(values)
            assert found["mean"] == pytest.approx(mean)
            assert found["std"] == pytest.approx(np.std(values, ddof=1))
            low, high = stats.t.interval(0.95, len(values) - 1, mean, error) if error else (mean, mean)
            assert (found["low"], found["high"]) == pytest.approx((low, high))


def test_the_report_shows_the_spread(whole):
    lines = "\n".join(train_report(trained(tiny(THREE), whole), whole))
    found = result_of(whole)["seeds"]["validation"]["loss"]
    assert "across seeds: mean, standard deviation, 95 % interval of the mean" in lines
    shown = re.search(r"  validation loss +(\S+)  \S+  (\S+) to (\S+)\n", lines)
    assert shown is not None
    assert [float(number) for number in shown.groups()] == pytest.approx(
        [found[part] for part in ("mean", "low", "high")], rel=1e-3
    )


def test_the_report_says_in_how_many_seeds_a_metric_is_undefined(whole):
    numbers = {"seed_1/loss": 1.0, "seed_2/loss": 2.0, "seed_1/roc_auc": 0.5, "seed_2/roc_auc": np.nan}
    seeds = {"validation": over_lanes(numbers, SEED), "diverged": {}}
    lines = train_report(dataclasses.replace(trained(tiny(THREE), whole), seeds=seeds), whole)
    assert "  validation roc_auc    0.5  nan  nan to nan  (undefined in 1 of 2 seeds)" in lines


# A seed that diverges


def poisoned(*seeds: int, at: int) -> Any:
    """Returns a user's own step that sets the weights of some seeds to NaN at step `at`."""

    def step(state: TrainState, batch: Any, *, rules: Any, axis_name: Any = ()) -> Any:
        hit = jnp.isin(state.key[-1], jnp.asarray(seeds, jnp.uint32)) & (state.step == at)
        state, metrics = train_step(state, batch, rules=rules, axis_name=axis_name)
        params = jax.tree.map(lambda leaf: jnp.where(hit, jnp.nan, leaf), state.params)
        return state.replace(params=params), metrics

    return step


@pytest.mark.slow
@pytest.mark.one_fast_of(2)
@pytest.mark.parametrize("pace", [7, 500])
def test_a_diverged_seed_is_reported_with_its_step_and_the_others_go_on(whole, tmp_path, monkeypatch, pace):
    """The first seed diverges: the other seeds' states and the logged rate are the same to the bit as without that.

    Its lane keeps its last finite state and counts its finite steps, however the run is divided into calls.
    """
    monkeypatch.setattr("jaxtrain.training.loop.next_call_steps", lambda steps, seconds, capacity: pace)
    result = trained(tiny(THREE), tmp_path, step=poisoned(2, at=30))
    assert (result.status, result.step) == ("done", 60)
    assert result.seeds is not None
    assert list(result.seeds["diverged"]) == [2]
    assert result.seeds["diverged"][2] == 30
    ends, undisturbed = lanes_of(tmp_path, 60), lanes_of(whole, 60)
    assert (bool(ends[2].live), int(ends[2].step)) == (False, result.seeds["diverged"][2])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ends[2].params))
    for seed in (3, 4):
        assert state_digest(ends[seed]) == state_digest(undisturbed[seed])
    assert result.seeds["validation"]["loss"]["values"].keys() == {"3", "4"}
    rows, expected = ({(r["step"], r["split"]): r for r in read_rows(w / "metrics.jsonl")} for w in (tmp_path, whole))
    for place, row in rows.items():
        assert row.get(TARGET) == expected[place].get(TARGET)
        assert math.isfinite(row["loss"])
        assert row["seed_3/loss"] == expected[place]["seed_3/loss"]
    assert rows[60, "validation"]["seed_2/loss"] is None
    assert rows[20, "train"]["seed_2/loss"] == expected[20, "train"]["seed_2/loss"]
    assert rows[40, "train"]["seed_2/loss"] != expected[40, "train"]["seed_2/loss"], "its first ten steps alone"
    assert rows[40, "train"]["seed_2/loss"] == pytest.approx(expected[40, "train"]["seed_2/loss"], rel=0.5)
    assert f"seed 2 diverged after step {result.seeds['diverged'][2]}" in "\n".join(train_report(result, tmp_path))


@pytest.mark.slow
def test_where_no_seed_is_left_the_run_has_diverged(tmp_path):
    result = trained(tiny(THREE), tmp_path, step=poisoned(*SEEDS, at=30))
    assert (result.status, result.exit_code) == ("diverged", 4)
    assert "all seeds diverged; seed 2 diverged at step 30 with optimizer.learning_rate" in result.reason
    assert result.step == 30
    ends = lanes_of(tmp_path, result.step)
    assert all(np.isfinite(leaf).all() for state in ends.values() for leaf in jax.tree.leaves(state.params))


# Interrupted, resumed on other devices, loaded


def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(whole, tmp_path, monkeypatch):
    """However the run is divided into calls."""
    monkeypatch.setattr("jaxtrain.training.loop.CALL_SECONDS", 1e-9)
    assert trained(tiny(THREE), tmp_path, trackers=[Interrupting(20)]).status == "interrupted"
    monkeypatch.undo()
    assert trained(tiny(THREE), tmp_path).status == "done"
    assert outcome(tmp_path) == outcome(whole)
    assert result_of(tmp_path)["seeds"] == result_of(whole)["seeds"]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_saved_lanes_go_on_to_the_bit_on_another_number_of_devices(whole, tmp_path, devices):
    """Three lanes do not divide over two or four devices, so that lanes are padded."""
    trained(tiny(THREE), tmp_path, trackers=[Interrupting(20)])
    moved = dataclasses.replace(experiment(), mesh=device_mesh(devices))
    runner = make_runner(moved, train_step)
    state, _, at = started(moved, runner, Checkpoints(tmp_path / "checkpoints", keep=2, say=print))
    assert at is not None
    assert at < 60
    state, _ = runner.call(state, moved.batches(at, 60 - at, 60), 60 - at)
    ends = runner.fetch(state)
    assert {len(leaf) for leaf in jax.tree.leaves(ends)} == {3}
    for lane, seed in enumerate(SEEDS):
        own = jax.tree.map(lambda leaf, lane=lane: leaf[lane], ends)
        assert state_digest(own) == state_digest(lanes_of(whole, 60)[seed])


@pytest.mark.slow
def test_killed_on_four_devices_and_resumed_on_one(tmp_path):
    """Killed by `kill -9`, with `parallel.mesh` None, which uses all devices of the machine."""
    many = {"train.duration": "1500 steps", "parallel.mesh": None, "checkpoint.every": "100 steps"}
    config = config_file(tmp_path, {"seed": FIRST, "train.seeds": 3, **many})
    arguments = [f"--config={config}", "--quiet"]
    process = start(tmp_path, *arguments, "--workdir=killed", **on_devices(4))
    wait_for(lambda: (tmp_path / "killed" / "checkpoints" / "200").exists())
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    assert not (tmp_path / "killed" / "result.json").exists()
    for workdir in ("killed", "whole"):
        ended = run(tmp_path, *arguments, f"--workdir={workdir}")
        assert ended.returncode == 0, ended.stderr
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_evaluate_measures_every_seed_at_the_best_step(whole):
    best = result_of(whole)["best"]
    found, rows = evaluate(whole), read_rows(whole / "metrics.jsonl")
    assert found["step"] == best["step"]
    (row,) = [row for row in rows if (row["step"], row["split"]) == (best["step"], "validation")]
    assert found["validation"] == {name: value for name, value in row.items() if name not in ROW_KEYS}
    assert found["test"].keys() >= {f"seed_{seed}/loss" for seed in SEEDS}


def test_a_seed_is_opened_by_its_number(whole):
    """`load_run` returns the lane of the seed, the first by default, and rejects unknown seeds."""
    inputs = experiment().dataset.split("test")["inputs"]
    lanes = lanes_of(whole, load_run(whole).step)
    for seed in SEEDS:
        run_of_seed = load_run(whole, seed=seed)
        assert state_digest(jax.device_get(run_of_seed.state)) == state_digest(lanes[seed])
        assert run_of_seed.predict(inputs).shape == (len(inputs), 10)
    assert state_digest(jax.device_get(load_run(whole).state)) == state_digest(lanes[FIRST])
    with pytest.raises(UsageError, match=r"seed: got 9; expected one of 2, 3, 4, the seeds of"):
        load_run(whole, seed=9)


def test_a_warm_start_gives_every_seed_the_same_weights(solos):
    """The averaged weights of the best step of the other run; the keys of the lanes differ."""
    warm = {"checkpoint.init_from": str(solos[3])}
    found = build(tiny(THREE | warm))
    states = jax.device_get(make_runner(found, train_step).init())
    source = load_run(solos[3]).state
    assert source.ema is not None
    for lane in range(3):
        params = jax.tree.map(lambda leaf, lane=lane: leaf[lane], states.params)
        assert state_digest(params) == state_digest(jax.device_get(source.ema[0]))
    assert len({tuple(key) for key in states.key}) == 3


def test_trackers_see_the_curve_of_each_seed(tmp_path):
    tracker = MemoryTracker()
    trained(tiny(THREE), tmp_path, trackers=[tracker])
    assert {f"seed_{seed}/loss" for seed in SEEDS} <= tracker.rows[0].keys()


def test_pmap_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"parallel\.backend: got 'pmap'; expected 'mesh' where train\.seeds"):
        trained(tiny(THREE | {"parallel.backend": "pmap"}), tmp_path)


def test_one_seed_is_reported_without_a_spread(solos):
    assert result_of(solos[3])["seeds"] is None
