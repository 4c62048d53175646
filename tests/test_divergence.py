"""Diverging runs restore their last finite state, report the step and the cause, and end the same when repeated."""

import functools
import json

import jax
import numpy as np
import pytest
from tiny_runs import timeless_rows, tiny

from jaxtrain import main
from jaxtrain.core.state import Batch, TrainState
from jaxtrain.core.steps import train_step
from jaxtrain.core.trees import named_leaves, state_digest
from jaxtrain.parallel.mesh import compile_train_call
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.training.experiment import Experiment, build
from jaxtrain.training.feeds import CAPACITY
from jaxtrain.training.train import train_and_evaluate
from jaxtrain.training.trained_run import load_run

# Excessive weight decay and rates, with which a run of 60 steps diverges in its first step, soon after, or late.
SGD = {"optimizer.name": "sgd", "optimizer.momentum": None, "schedule.optimizer.learning_rate": "constant"}
FIRST = SGD | {"optimizer.learning_rate": 1e10, "optimizer.weight_decay": 1e30}
SOON = SGD | {"optimizer.learning_rate": 1e6, "optimizer.weight_decay": 1e-3}
LATE = SGD | {"optimizer.learning_rate": 3.0, "optimizer.weight_decay": 1.5}


def stopped_at(experiment: Experiment, step: int) -> TrainState:
    """Returns the state of a run after `step` steps, computed with the run's own program."""
    state = experiment.init()
    if step == 0:
        return state
    call = compile_train_call(experiment.rules, experiment.mesh, "mesh")
    return call(state, experiment.batches(0, step, CAPACITY), step)[0]


def is_finite(state: TrainState) -> bool:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(state))]
    return all(np.isfinite(leaf).all() for leaf in leaves if leaf.dtype.kind == "f")


@pytest.mark.one_fast_of(3)
@pytest.mark.parametrize(
    ("given", "log"), [(FIRST, "1 steps"), (SOON, "1 steps"), (SOON, "20 steps"), (LATE, "5 steps"), (LATE, "20 steps")]
)
def test_the_last_finite_state_is_saved_and_nothing_is_written_after_it(tmp_path, given, log):
    config = tiny(given | {"log.every": log})
    result = train_and_evaluate(config, tmp_path, quiet=True)
    assert (result.status, result.exit_code, result.test) == ("diverged", 4, None)
    assert (result.step == 0) == (given is FIRST)
    assert (result.step > 20) == (given is LATE)
    experiment = build(config)
    stopped = stopped_at(experiment, result.step)
    assert is_finite(stopped)
    assert state_digest(jax.device_get(stopped)) == result.state_digest
    saved = Checkpoints(tmp_path / "checkpoints", keep=1, say=print).restore(experiment.state_shapes())
    assert saved is not None
    assert saved.step == result.step
    assert state_digest(saved.state) == result.state_digest
    assert all(row["step"] <= result.step for row in read_rows(tmp_path / "metrics.jsonl"))
    assert "loss" in result.last["train"]
    step = jax.jit(functools.partial(train_step, rules=experiment.rules))
    rejected, metrics = step(stopped, batch_of(experiment, stopped))
    bad = [path for path, leaf in named_leaves(rejected) if not np.isfinite(np.asarray(leaf)).all()]
    bad += [] if np.isfinite(metrics["loss"].sum) else ["loss"]
    assert bad, "one step further is one step too far"
    for part in (f"step {result.step} ", "optimizer.learning_rate", bad[0], "range test"):
        assert part in result.reason
    assert "\n" not in result.reason
    assert load_run(tmp_path).predict(np.zeros((1, 8, 8, 1))).shape == (1, 10)


def batch_of(experiment: Experiment, state: TrainState) -> Batch:
    return experiment.batches(int(state.step), 1, 1).take(0)


def test_a_run_that_diverges_late_keeps_the_numbers_of_its_finite_steps(tmp_path):
    result = train_and_evaluate(tiny(LATE | {"log.every": "60 steps"}), tmp_path, quiet=True)
    assert np.isfinite(result.last["train"]["loss"])


def test_the_command_ends_with_code_4_and_one_line_and_again_when_repeated(tmp_path, capfd):
    """The repeated command trains nothing and prints the same reason."""
    saved = tmp_path / "config.json"
    saved.write_text(json.dumps(tiny(SOON)))
    arguments = [f"--config={saved}", f"--workdir={tmp_path / 'run'}"]
    assert main.main(arguments) == 4
    said = [line for line in capfd.readouterr().out.splitlines() if line.startswith("diverged at step")]
    assert len(said) == 1
    before = (tmp_path / "run" / "result.json").read_bytes()
    assert main.main(arguments) == 4
    captured = capfd.readouterr()
    assert [line for line in captured.out.splitlines() if line.startswith("diverged at step")] == said
    assert "nothing to do" in captured.err
    assert (tmp_path / "run" / "result.json").read_bytes() == before


def test_a_run_killed_after_it_diverged_diverges_again_at_the_same_step(tmp_path):
    first = train_and_evaluate(tiny(LATE), tmp_path, quiet=True)
    rows = timeless_rows(tmp_path)
    (tmp_path / "result.json").unlink()
    second = train_and_evaluate(tiny(LATE), tmp_path, quiet=True)
    kept = ("status", "step", "state_digest", "reason", "last", "best")
    assert {name: getattr(first, name) for name in kept} == {name: getattr(second, name) for name in kept}
    assert timeless_rows(tmp_path) == rows
