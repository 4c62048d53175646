"""A replayed step is the run's own to the bit, its measures are right, and what leaves the finite numbers is named."""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import faulty_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from json_schema import faults
from tiny_runs import config_file, tiny

from jaxtrain import replay_step
from jaxtrain.config.resolve import resolve_config
from jaxtrain.core.state import Rules
from jaxtrain.core.steps import train_step
from jaxtrain.data.order import batch_indices
from jaxtrain.errors import DataError, UsageError
from jaxtrain.main import main
from jaxtrain.optimizers import Optimizer
from jaxtrain.replay.layers import name_layers
from jaxtrain.replay.look import look_at_step
from jaxtrain.replay.operations import read_program
from jaxtrain.replay.origin import describe_origin, locate_origin
from jaxtrain.replay.report import replay_lines
from jaxtrain.search.run import run_search
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.training.experiment import build
from jaxtrain.training.train import train_and_evaluate

SPARE = {"track.pictures": None, "track.histograms": None, "track.tensorboard": False, "track.performance": False}
"""Leaves out what the test does not look at."""


def quiet(line: str) -> None:
    """Says nothing."""


def saved_leaves(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Reads the arrays of a checkpoint."""
    return Checkpoints(workdir / "checkpoints", keep=9, say=quiet).restore_leaves(step)[0]


def replayed_leaves(replay: Any) -> dict[str, np.ndarray]:
    """Reads the arrays of the state that a replay saved."""
    path = next(path for path in replay.files if path.suffix == ".npz")
    return {name.removeprefix("state/"): leaf for name, leaf in np.load(path).items() if name.startswith("state/")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of 60 steps, with checkpoints at 20, 40 and 60."""
    folder = tmp_path_factory.mktemp("replay") / "run"
    train_and_evaluate(tiny({**SPARE, "checkpoint.keep": 3}), folder, quiet=True)
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, which a test changes."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_a_replayed_state_is_that_of_the_run_to_the_bit(run: Path, tmp_path: Path):
    oftener = tmp_path / "oftener"
    train_and_evaluate(tiny({**SPARE, "checkpoint.every": "11 steps", "checkpoint.keep": 9}), oftener, quiet=True)
    replay = replay_step(run, 33, save=True, say=quiet)
    assert replay.restored == 20
    compared = [(comparison.what, comparison.step, comparison.is_equal) for comparison in replay.comparisons]
    assert compared == [("row", 40, True), ("checkpoint", 40, True)]
    assert replay.is_exact
    ours, theirs = replayed_leaves(replay), saved_leaves(oftener, 33)
    assert ours.keys() == theirs.keys()
    for path, leaf in theirs.items():
        np.testing.assert_array_equal(ours[path], leaf, err_msg=path)
    batch = np.load(next(path for path in replay.files if path.suffix == ".npz"))
    dataset = build(tiny()).dataset
    rows = batch_indices(33, 1, examples=dataset.sizes["train"], batch_size=64, seed=0)[0]
    np.testing.assert_array_equal(batch["batch/examples"], rows)
    np.testing.assert_array_equal(batch["batch/inputs"], dataset.read("train", rows)["inputs"])
    assert {row.example for row in replay.hardest} <= set(rows)
    assert [row.example for row in replay.hardest] == [rows[row.place] for row in replay.hardest]


def test_without_checkpoints_it_recomputes_from_the_start_and_says_so(copy: Path):
    shutil.rmtree(copy / "checkpoints" / "20")
    lines: list[str] = []
    replay = replay_step(copy, 30, say=lines.append)
    assert lines == [
        "no checkpoint at or before step 30 is left (there are: 40, 60)",
        "recomputing 30 steps from step 0",
    ]
    assert [(c.what, c.step) for c in replay.comparisons] == [("row", 20), ("row", 40), ("checkpoint", 40)]
    assert replay.is_exact
    shutil.rmtree(copy / "checkpoints")
    last = replay_step(copy, 59, say=quiet)
    assert [(c.what, c.step) for c in last.comparisons] == [("row", 20), ("row", 40), ("row", 60), ("end", 60)]
    assert last.is_exact


def test_a_run_of_other_code_is_said_before_anything_is_concluded(copy: Path, monkeypatch: pytest.MonkeyPatch):
    environment = json.loads((copy / "environment.json").read_text())
    environment["packages"]["optax"] = "0.0.1"
    (copy / "environment.json").write_text(json.dumps(environment))
    update = Optimizer.__call__

    def other(self: Any, values: Any) -> Any:
        return update(self, {**values, "optimizer.learning_rate": 1.001 * values["optimizer.learning_rate"]})

    monkeypatch.setattr(Optimizer, "__call__", other)
    monkeypatch.setattr(Optimizer, "__hash__", lambda self: 1)
    replay = replay_step(copy, 30, say=quiet)
    assert replay.is_exact is False
    state = next(comparison for comparison in replay.comparisons if comparison.what == "checkpoint")
    assert state.where.startswith("params/")
    assert 1e-6 < state.difference < 0.1
    lines = list(replay_lines(replay))
    told = next(i for i, line in enumerate(lines) if "is NOT the run" in line)
    assert any(line.startswith("  DIFFERENT: the state of step 40 in its checkpoint") for line in lines[:told])
    assert lines[told + 1].startswith("  optax: 0.0.1 in the run, ")
    assert lines[told + 2].startswith("loss ")


def mlp(**more: Any) -> tuple[Any, Any, Rules]:
    """Returns a state, a batch and rules of a network without dropout."""
    experiment = build(tiny({"model.dropout": None, **more}))
    return experiment.init(), jax.device_get(experiment.batches(7, 1).take(0)), experiment.rules


def test_what_is_measured_agrees_with_numpy():
    state, batch, rules = mlp()
    look = look_at_step(train_step, state, batch, rules)
    assert [activation.layer for activation, _ in look.activations] == ["", "MLP/Dense_0", "MLP", "MLP/Dense_1"]
    logits = np.asarray(rules.task.predict(state.params, state.model_state, batch["inputs"], {}), np.float64)
    last = look.activations[-1][1]
    assert last[:3] == pytest.approx((logits.mean(), logits.std(), abs(logits).max()), rel=1e-4)
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(64), batch["targets"]]
    assert look.row_losses is not None
    np.testing.assert_allclose(look.row_losses, losses, rtol=1e-3, atol=1e-4)
    assert look.loss == pytest.approx(losses.mean(), rel=1e-5)
    chances = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    by_logits = (chances - np.eye(10)[batch["targets"]]) / 64
    assert look.gradients["Dense_1/bias"].largest == pytest.approx(abs(by_logits.sum(axis=0)).max(), rel=1e-4)
    after = jax.device_get(jax.jit(functools.partial(train_step, rules=rules))(state, batch)[0].params)
    moved = after["Dense_0"]["kernel"] - np.asarray(state.params["Dense_0"]["kernel"])
    update = look.updates["Dense_0/kernel"]
    assert update[:3] == pytest.approx((moved.mean(), moved.std(), abs(moved).max()), rel=1e-3, abs=1e-8)
    assert look.parameters["Dense_0/bias"].zeros == 1.0
    assert look.origin is None


MODELS = {
    "linen": ({"model": {"name": "faulty_models:Faulty"}}, "model", "Faulty"),
    "nnx": ({"task": {"name": "diverging_models:nnx_faulty"}}, "task", "hidden"),
    "plain": ({"task": {"name": "diverging_models:plain_faulty"}}, "task", "first"),
}
"""Kind of model -> its config, the section with its fault, and the layer of the line that goes wrong."""

WRONG = {"nan": ("log", "forward pass"), "backward": ("div", "backward pass"), "loop": ("sqrt", "forward pass")}
"""Fault -> the operation that goes wrong, and its part of the step."""


@pytest.mark.one_fast_of(9)
@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("kind", MODELS)
def test_the_operation_that_leaves_the_finite_numbers_is_named(kind: str, fault: str):
    given, section, layer = MODELS[kind]
    own = {**given, section: {**given[section], "fault": fault}}
    base = {
        "data": {"name": "digits", "batch_size": 8},
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "parallel": {"mesh": 1},
    }
    experiment = build(resolve_config({**base, **own}).config, judge_task=False)
    batch = jax.device_get(experiment.batches(0, 1).take(0))
    origin = look_at_step(train_step, experiment.init(), batch, experiment.rules).origin
    assert origin is not None
    assert origin.frame is not None
    source = Path(faulty_models.__file__)
    number = next(i for i, text in enumerate(source.read_text().splitlines(), 1) if text.endswith(f"# {fault}"))
    assert (origin.operation, origin.direction) == WRONG[fault]
    assert (origin.frame.file, origin.frame.line) == (str(source), number)
    assert origin.layer == layer
    assert all(operand.not_finite == 0 for operand in origin.operands)
    assert origin.result.not_finite > 0
    if fault == "nan":
        assert origin.operands[0].high <= -1
        assert origin.rows == list(range(8))
    if fault == "loop":
        assert (origin.operands[0].low, origin.operands[0].high) == (-1, -1)


def origin_of(function: Any, *values: Any) -> tuple[str, str]:
    """Returns the operation by which a function leaves the finite numbers, and the name of an input that does."""
    program = read_program(lambda values: function(*values), values=values)
    number = locate_origin(program, values, list(program.outputs))
    assert number is not None
    origin = describe_origin(program, values, name_layers(program), number, 3)
    return origin.operation, origin.result.name


def test_infinities_that_are_meant_and_those_that_vanish_are_not_named():
    values = jnp.array([1.0, 2.0, 3.0])

    def masked(values: Any) -> Any:
        hidden = jnp.where(values > 1.5, values, -jnp.inf)  # as in attention
        vanishing = 1.0 / (1.0 + jnp.exp(1000.0 * values))  # a sigmoid by hand: 1 / inf
        return jnp.exp(hidden - hidden.max()) + vanishing + jnp.log(values - values)

    assert origin_of(masked, values)[0] == "log"

    def all_masked(values: Any) -> Any:
        hidden = jnp.where(values > 5, values, -jnp.inf)
        return jnp.exp(hidden - hidden.max())

    assert origin_of(all_masked, values)[0] == "sub"
    assert origin_of(lambda values: values * 2, values / 0) == ("", "values/0")


def test_seeds_and_folds_are_replayed_each_by_itself(tmp_path: Path):
    config = tiny({**SPARE, "train.seeds": 2, "train.duration": "20 steps", "checkpoint.every": "10 steps"})
    train_and_evaluate(config, tmp_path / "seeds", quiet=True)
    replays = [replay_step(tmp_path / "seeds", 10, seed=seed, save=True, say=quiet) for seed in (0, 1)]
    assert [replay.folder.name for replay in replays] == ["seed-0-step-10", "seed-1-step-10"]
    saved = saved_leaves(tmp_path / "seeds", 10)
    for lane, replay in enumerate(replays):
        assert replay.is_exact
        for path, leaf in replayed_leaves(replay).items():
            np.testing.assert_array_equal(leaf, saved[path][lane], err_msg=path)
    with pytest.raises(UsageError, match=r"--seed: got 2; expected one of 0, 1, the seeds of"):
        replay_step(tmp_path / "seeds", 10, seed=2, say=quiet)


@pytest.mark.slow
def test_schedules_that_react_to_evaluations_are_replayed(tmp_path: Path):
    plateau = {"name": "reduce_on_plateau", "patience": 1.0, "factor": 0.5, "threshold": 0.9}
    given = {**SPARE, "schedule.optimizer.learning_rate": plateau, "checkpoint.keep": 9, "track.layers": True}
    train_and_evaluate(tiny(given), tmp_path / "run", quiet=True)
    for step in (20, 40):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
    replay = replay_step(tmp_path / "run", 50, say=quiet)
    assert replay.restored is None
    assert [(c.what, c.step, c.is_equal) for c in replay.comparisons] == [
        ("row", 20, True),
        ("row", 40, True),
        ("row", 60, True),
        ("checkpoint", 60, True),
    ]


@pytest.mark.slow
def test_a_trial_is_replayed_as_the_run_that_it_equals(tmp_path: Path):
    space = {"optimizer": {"learning_rate": ("choice", (1e-3, 1e-2))}}
    search = {"trials": 2, "seeds": 1, "compare_seeds": 0, "space": space, "value": "last"}
    config = tiny({**SPARE, **{f"search.{name}": value for name, value in search.items()}})
    run_search(config, tmp_path, quiet=True)
    replay = replay_step(tmp_path, 30, trial=1, say=quiet)
    assert [(c.what, c.step, c.is_equal) for c in replay.comparisons] == [
        ("evaluation", 20, True),
        ("evaluation", 40, True),
    ]
    assert replay.run.config["optimizer"]["learning_rate"] == 1e-2
    with pytest.raises(UsageError, match=r"--trial: got 5; expected one of the 2 trials of"):
        replay_step(tmp_path, 30, trial=5, say=quiet)


@pytest.mark.slow
def test_a_run_that_diverged_prints_the_command_that_looks_at_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rate = ["--config.optimizer.name=sgd", "--config.optimizer.learning_rate=3e4"]
    words = [f"--config={config_file(tmp_path)}", f"--workdir={tmp_path / 'run'}", *rate]
    assert main(words) == 4
    line = next(line for line in capsys.readouterr().out.splitlines() if " replay " in line)
    verb, *options = line.partition("  #")[0].partition("jaxtrain.main ")[2].split()
    assert verb == "replay"
    assert main([verb, *options, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert faults(document, "replay") == []
    assert document["diverges"]
    assert document["origin"]["operation"]
    assert document["origin"]["line"]
    assert all(Path(path).is_file() for path in document["files"])


def test_what_cannot_be_is_refused_in_one_line(copy: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"--step: got 60; expected 0 to 59, the steps of .*run"):
        replay_step(copy, 60, say=quiet)
    with pytest.raises(UsageError, match=r"expected the directory of a run"):
        replay_step(tmp_path, 1, say=quiet)
    with pytest.raises(UsageError, match=r"expected the directory of a search"):
        replay_step(copy, 1, trial=0, say=quiet)
    assert main(["replay", f"--workdir={copy}"]) == 2
    environment = json.loads((copy / "environment.json").read_text()) | {"data_fingerprint": "0" * 64}
    (copy / "environment.json").write_text(json.dumps(environment))
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(DataError, match=r"expected 000000000000, the fingerprint of the data that this run"):
        replay_step(copy, 1, say=quiet)
