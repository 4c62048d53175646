"""Where two runs part: at the step and in the array in which they were made to, and nowhere where they are the same."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from json_schema import faults
from tiny_runs import tiny

from jaxtrain import diff_runs, diff_searches
from jaxtrain.core.steps import train_step
from jaxtrain.errors import UsageError
from jaxtrain.main import main
from jaxtrain.replay.pair_report import pair_lines, search_lines
from jaxtrain.replay.recorded import open_recorded, read_search
from jaxtrain.replay.search_pair import compare_outcomes
from jaxtrain.search.run import run_search
from jaxtrain.training.train import train_and_evaluate

SPARE = {"track.pictures": None, "track.histograms": None, "track.tensorboard": False, "track.performance": False}
"""Leaves out what the test does not look at."""


def quiet(line: str) -> None:
    """Says nothing."""


def train(folder: Path, **more: Any) -> Path:
    """Trains the tiny config."""
    train_and_evaluate(tiny({**SPARE, **more}), folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of 60 steps, with checkpoints at 20, 40 and 60."""
    return train(tmp_path_factory.mktemp("diff") / "run", **{"checkpoint.keep": 3})


def test_equal_runs_are_the_same_to_the_bit_without_recomputing_anything(run: Path, tmp_path: Path):
    other = train(tmp_path / "other", **{"log.every": "10 steps", "checkpoint.keep": 1})
    said: list[str] = []
    pair = diff_runs(run, other, say=said.append)
    assert pair.are_the_same
    assert said == []
    assert pair.comparisons == ((), ())
    assert (pair.order, pair.same_data, pair.config) == (None, True, {})
    assert pair.without_effect.keys() == {"log.every", "checkpoint.keep"}
    assert list(pair_lines(pair))[-1] == "the same to the bit, over 60 steps"


DROP = {
    "schedule.optimizer.learning_rate": {"name": "piecewise", "first": 0.55, "second": 0.95},
    "checkpoint.keep": 9,
}
"""A rate that falls to a tenth at step 33 of 60."""

LATER = {**DROP, "schedule.optimizer.learning_rate": {"name": "piecewise", "first": 0.9, "second": 0.95}}
"""The same program with another float: the rate falls at step 54."""


def test_the_step_and_the_array_in_which_runs_part_are_found_between_checkpoints(tmp_path: Path):
    one, other = train(tmp_path / "one", **DROP), train(tmp_path / "other", **LATER)
    pair = diff_runs(one, other, say=quiet)
    assert pair.state is not None
    assert (pair.last_equal, pair.state.step, pair.state.leaf) == (33, 34, "params/Dense_0/bias")
    assert pair.row is not None
    assert (pair.row.step, pair.row.split) == (40, "train")
    assert pair.is_exact
    assert {comparison.step for own in pair.comparisons for comparison in own} == {40}
    assert pair.config.keys() == {"schedule.optimizer.learning_rate.first"}
    assert not pair.are_the_same
    assert list(pair_lines(pair))[-1] == "they part in step 33"
    # The size by another way: both runs with a checkpoint of that step.
    saved = [
        train(tmp_path / f"{name}-again", **{**given, "checkpoint.every": "34 steps"})
        for name, given in (("one", DROP), ("other", LATER))
    ]
    first, second = (open_recorded(place).checkpoints for place in saved)
    assert first is not None
    assert second is not None
    ours, theirs = (checkpoints.restore_leaves(34)[0][pair.state.leaf] for checkpoints in (first, second))
    assert pair.state.difference == pytest.approx(abs(ours - theirs).max() / abs(theirs).max(), rel=1e-6)


def nudged(state: Any, batch: Any, *, rules: Any, axis_name: Any = (), measure_norms: Any = True) -> Any:
    """A step of a user's own: it moves a bias a little once."""
    moved, metrics = train_step(state, batch, rules=rules, axis_name=axis_name, measure_norms=measure_norms)
    bias = moved.params["Dense_1"]["bias"]
    once = jnp.where(state.step == 47, 1e-3, 0.0)
    return moved.replace(params=moved.params | {"Dense_1": {**moved.params["Dense_1"], "bias": bias + once}}), metrics


@pytest.mark.slow
def test_a_run_whose_program_is_not_there_is_said_before_anything_is_concluded(run: Path, tmp_path: Path):
    train_and_evaluate(tiny({**SPARE, "checkpoint.keep": 3}), tmp_path / "other", step=nudged, quiet=True)
    pair = diff_runs(run, tmp_path / "other", say=quiet)
    assert pair.last_equal is not None
    assert pair.last_equal >= 40
    assert not pair.is_exact
    lines = list(pair_lines(pair))
    told = next(i for i, line in enumerate(lines) if "is NOT the run" in line)
    assert any(line.startswith("recomputed B: DIFFERENT: the mean loss up to step 60") for line in lines[:told])
    assert any(line.startswith("recomputed A: equal to the bit") for line in lines[:told])


def test_other_seeds_orders_and_devices_are_told_apart(run: Path, tmp_path: Path):
    seed = diff_runs(run, train(tmp_path / "seed", seed=1, **{"checkpoint.keep": 3}), say=quiet)
    assert seed.state is not None
    assert (seed.last_equal, seed.state.step, seed.order) == (None, 0, None)
    data = diff_runs(run, train(tmp_path / "data", **{"data.seed": 5}), say=quiet)
    assert data.state is not None
    assert (data.last_equal, data.state.step, data.same_data, data.order) == (0, 1, False, None)
    assert "data: OTHER, by their fingerprints" in list(pair_lines(data))
    two = diff_runs(run, train(tmp_path / "two", **{"parallel.mesh": 2}), say=quiet)
    assert two.state is not None
    assert two.is_exact
    assert two.last_equal is not None
    assert 0 < two.state.worst[1] < 1e-4  # rounding alone
    assert two.without_effect.keys() >= {"parallel.mesh"} or "parallel.mesh" in two.config


@pytest.mark.slow
def test_searches_part_in_a_trial_at_a_rung(tmp_path: Path):
    space = {"optimizer": {"learning_rate": ("choice", (1e-3, 3e-3, 1e-2, 3e-2))}}
    search = {"trials": 4, "batch": 2, "seeds": 1, "compare_seeds": 0, "space": space, "halving": "successive"}
    given = {**SPARE, **{f"search.{name}": value for name, value in search.items()}, "eval.every": "10 steps"}
    for name, more in {"one": {}, "other": {}, "moved": {"optimizer.weight_decay": 0.5}}.items():
        run_search(tiny({**given, **more}), tmp_path / name, quiet=True)
    same = diff_searches(tmp_path / "one", tmp_path / "other", say=quiet)
    assert same.are_the_same
    assert list(search_lines(same))[-1] == "the same to the bit, in 4 trials"
    moved = diff_searches(tmp_path / "one", tmp_path / "moved", say=quiet)
    assert (moved.trial, moved.batch, moved.point, moved.step, moved.rung) == (0, 0, None, 10, 0)
    assert moved.states is not None
    assert moved.states.state is not None
    assert (moved.states.last_equal, moved.states.state.step) == (1, 2)  # the rate of the first step is 0
    assert all(c.what == "evaluation" and c.is_equal for own in moved.states.comparisons for c in own)
    lines = list(search_lines(moved))
    assert lines[5].startswith("its first evaluation that differs is at step 10, after 0 rungs: ")
    # As if the last evaluation of another trial had differed.
    _, outcomes = read_search(tmp_path / "one")
    survivor = next(outcome for number, outcome in outcomes.items() if outcome.status == "done" and number)
    assert any(outcome.status == "stopped" for outcome in outcomes.values())
    *earlier, (step, value) = survivor.curve
    later = {**outcomes, survivor.trial: replace(survivor, curve=[*earlier, [step, value + 1.0]])}
    pair = compare_outcomes(outcomes, later, 2)
    assert (pair.trial, pair.batch, pair.step) == (survivor.trial, survivor.trial // 2, step)
    assert pair.rung


def test_the_command_prints_its_document(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy = shutil.copytree(run, tmp_path / "copy")
    assert main(["diff", str(run), str(copy), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert faults(document, "diff") == []
    assert document["pair"]["same"]
    assert document["searches"] is None
    assert main(["diff", str(run)]) == 2
    assert "error: diff: got 1 directories; expected two" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"expected the directory of a run"):
        diff_runs(run, tmp_path, say=quiet)
    with pytest.raises(UsageError, match=r"expected the directory of a search"):
        diff_searches(run, run, say=quiet)
