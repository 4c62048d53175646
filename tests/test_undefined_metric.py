"""A metric that is undefined at every evaluation: runs say so and stop early, searches tell it from divergence."""

import dataclasses
import json
import math

import numpy as np
import pytest
from example_findings import all_diverged
from tiny_runs import tiny

from jaxtrain.commands.search import UNDEFINED, search_report
from jaxtrain.search.run import run_search
from jaxtrain.search.trials import Judgement, Outcome, Record, rank
from jaxtrain.training.train import train_and_evaluate

ONE_CLASS = {
    "data.name": "test_undefined_metric:one_class",
    "data.batch_size": 16,
    "task.name": "binary_classification",
    "task.metrics": ("roc_auc",),
    "loss.name": "binary_cross_entropy",
    "model.dropout": 0.0,
    "eval.metric": "roc_auc",
}


def one_class(path):
    """Two classes to train on, of which only one is in the validation split."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(96, 4)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int32)
    return {"train": (inputs, labels), "validation": (inputs[labels == 0], labels[labels == 0])}


def test_a_run_says_so_once_at_the_first_evaluation_and_in_its_result(tmp_path, capsys):
    result = train_and_evaluate(tiny(ONE_CLASS), tmp_path / "run")
    printed = capsys.readouterr()
    lines = [line for line in (printed.out + printed.err).splitlines() if "eval.metric: got nan" in line]
    assert len(lines) == 1
    assert "got nan as 'roc_auc' of the validation split at step 20; expected a number" in lines[0]
    assert (result.status, result.step, result.best) == ("done", 60, None)
    assert result.reason == "roc_auc was undefined at every evaluation, so no state is the best"


@pytest.mark.parametrize("patience", [20, 40])
def test_early_stopping_counts_it_as_no_better(patience, tmp_path):
    config = tiny({**ONE_CLASS, "train.duration": "200 steps", "train.early_stopping": f"{patience} steps"})
    result = train_and_evaluate(config, tmp_path / "run", quiet=True)
    assert (result.status, result.step, result.best) == ("done", 20 + patience, None)
    assert result.reason.startswith(f"stopped early at step {20 + patience}: roc_auc was undefined at every evaluation")


@pytest.mark.slow
def test_a_search_tells_undefined_from_diverged_in_status_exit_code_ledger_and_report(tmp_path):
    space = {"optimizer": {"learning_rate": ("grid", (1e-3, 1e-2))}}
    search = {"search.space": space, "search.sampler": "grid", "search.batch": 3, "track.tensorboard": False}
    config = tiny({**ONE_CLASS, **search, "train.ema": None})
    result = run_search(config, tmp_path, quiet=True)
    assert (result.status, result.exit_code) == ("undefined", 2)
    rows = [json.loads(line) for line in (result.folder / "trials.jsonl").read_text().splitlines()]
    assert {(row["status"], row["value"], row["step"]) for row in rows} == {("undefined", None, 60)}
    told = "\n".join(search_report(result, []))
    assert "undefined" in told
    assert UNDEFINED in told
    assert "diverged)" not in told
    page = (result.folder / "report.html").read_text()
    assert "No trial has a value: roc_auc was undefined" in page
    assert "All trials diverged" not in page
    assert json.loads((result.folder / "result.json").read_text())["trials"]["undefined"] == len(rows)
    assert run_search(config, tmp_path, quiet=True).status == "undefined", "its ledger is read again"


def outcome(trial, status, value=None):
    return Outcome(trial, status, value, {0: value}, 10, {}, {}, [], 0.0)


def test_undefined_trials_rank_between_stopped_and_diverged_ones_and_name_the_status_of_a_search():
    ended = [outcome(0, "diverged"), outcome(1, "undefined"), outcome(2, "stopped", 0.5), outcome(3, "done", 0.1)]
    assert [found.trial for found in rank(ended, True)] == [3, 2, 1, 0]
    for outcomes, status in ((ended, "done"), (ended[:2], "undefined"), (ended[:1], "diverged")):
        assert dataclasses.replace(all_diverged(), outcomes=outcomes).status == status


def test_a_lane_stops_early_where_a_run_does_and_one_that_diverges_later_is_undefined_all_the_same():
    judgement = Judgement(True, 20)
    undefined = [[20.0, math.nan], [40.0, math.nan]]
    assert judgement.reading(Record([*undefined, [60.0, 0.9]])) is None, "a run has ended before it is defined"
    assert Judgement(True, 40).reading(Record([*undefined, [60.0, 0.9]])) == [60.0, 0.9]
    late = Record(undefined, diverged=50)
    assert (judgement.diverged(late), Judgement(True, 40).diverged(late)) == (None, 50)
    assert judgement.reading(Record([[20.0, 0.5], [40.0, math.nan], [60.0, 0.9]])) == [20.0, 0.5]
