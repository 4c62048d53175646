"""A user's own members, named by import path in a file outside the package, through the same command."""

import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import Interrupting, result_of, run, tiny

from jaxtrain.config.registry import knobs_of
from jaxtrain.core.state import TrainState
from jaxtrain.core.steps import train_step
from jaxtrain.errors import JaxtrainError
from jaxtrain.main import main
from jaxtrain.optimizers.wrappers import wrap
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.training.train import train_and_evaluate

WRAPPER = dict.fromkeys(knobs_of(wrap, 1))
"""The knobs that every optimizer has, for clipping, freezing and scaling, all off."""

OWN = """
    import flax.linen as nn
    import jax.numpy as jnp
    import numpy as np
    import optax
    from jaxtrain import Task, linen_task

    WIDTH = 16


    class Net(nn.Module):
        outputs: int
        width: int = 16
        slope: float = 0.1

        @nn.compact
        def __call__(self, inputs, train=False):
            hidden = nn.Dense(self.width)(inputs.reshape(len(inputs), -1))
            return nn.Dense(self.outputs)(jnp.where(hidden > 0, hidden, self.slope * hidden))


    class Hidden(nn.Module):
        # Its width is no knob, so only a look at the saved state can tell that it changed.
        outputs: int

        @nn.compact
        def __call__(self, inputs, train=False):
            return nn.Dense(self.outputs)(nn.relu(nn.Dense(WIDTH)(inputs.reshape(len(inputs), -1))))


    def focal(predictions, targets, gamma: float = 2.0):
        log_probability = jnp.take_along_axis(nn.log_softmax(predictions), targets[:, None], axis=1)[:, 0]
        return -((1.0 - jnp.exp(log_probability)) ** gamma) * log_probability


    def descent(learning_rate, decay: float = 0.0, heavy: bool = False):
        return optax.chain(optax.add_decayed_weights(decay), optax.sgd(learning_rate, 0.9 if heavy else None))


    def blobs(path, count: int = 300, spread: float = 0.5):
        generator = np.random.default_rng(0)
        targets = np.arange(count) % 3
        inputs = generator.normal(size=(count, 5)) * spread + np.eye(3, 5)[targets] * 3
        return {"train": (inputs, targets)}


    def confident(model, loss, info, temperature: float = 1.0):
        from jaxtrain import Mean

        def judged(values, predictions, targets):
            return loss(values, predictions / temperature, targets)

        task = linen_task(lambda values: model(values, info.classes), judged, ("accuracy",))

        def with_confidence(params, model_state, batch, key, values, train):
            found, (model_state, metrics) = task.loss(params, model_state, batch, key, values, train)
            sure = jnp.max(nn.softmax(task.predict(params, model_state, batch["inputs"], values)), axis=1)
            mask = batch.get("mask", jnp.ones(len(sure)))
            return found, (model_state, metrics | {"confidence": Mean.of(sure, mask, higher_is_better=True)})

        return Task(task.init, with_confidence, task.predict)


    def broken(predictions, targets):
        return predictions[:, 0] @ targets.reshape(3, -1)  # the line that is to blame


    class Shaped(nn.Module):
        outputs: int
        width: float = 16.0

        @nn.compact
        def __call__(self, inputs, train=False):
            return nn.Dense(self.outputs)(nn.Dense(int(self.width))(inputs.reshape(len(inputs), -1)))


    class Sized(Shaped):
        @nn.compact
        def __call__(self, inputs, train=False):
            return nn.Dense(self.outputs)(inputs.reshape(len(inputs), -1)) + jnp.zeros((self.width,)).sum()


    def gated(predictions, targets, gate: float = 0.5):
        return focal(predictions, targets, 2.0 if gate > 0.3 else 0.0)
"""
CONFIG = """
    from ml_collections import ConfigDict


    def get_config():
        return ConfigDict(
            {
                "data": {"name": "own.parts:blobs", "spread": 0.6, "batch_size": 32},
                "task": {"name": "own.parts:confident"},
                "model": {"name": "own.parts:Net", "width": 8},
                "loss": {"name": "own.parts:focal"},
                "optimizer": {"name": "own.parts:descent", "learning_rate": 0.1},
                "schedule": {"optimizer": {"learning_rate": {"name": "constant"}}},
                "train": {"duration": "60 steps"},
                "eval": {"metric": "confidence"},
            }
        )
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with a package and a config; the command is started there, so it finds the package."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own").mkdir()
    (folder / "own" / "__init__.py").touch()
    (folder / "own" / "parts.py").write_text(textwrap.dedent(OWN))
    (folder / "config.py").write_text(textwrap.dedent(CONFIG))
    return folder


@pytest.mark.slow
def test_a_task_loss_model_optimizer_and_source_of_ones_own_train_with_their_knobs(folder):
    overrides = ["loss.gamma=1.5", "model.slope=0.2", "task.temperature=2.0", "optimizer.heavy=True", "data.count=240"]
    flags = [f"--config.{override}" for override in overrides]
    done = run(folder, "--config=config.py", "--workdir=run", *flags)
    assert done.returncode == 0, done.stderr
    config = json.loads((folder / "run" / "config.json").read_text())
    assert config["model"] == {"name": "own.parts:Net", "width": 8, "slope": 0.2}
    assert config["optimizer"] == {
        "name": "own.parts:descent",
        "learning_rate": 0.1,
        "decay": 0.0,
        "heavy": True,
        **WRAPPER,
    }
    result = result_of(folder / "run")
    assert result["test"]["accuracy"] > 0.9
    assert result["best"]["metric"] == "confidence"
    assert {"confidence", "accuracy", "loss"} <= read_rows(folder / "run" / "metrics.jsonl")[0].keys()
    evaluated = run(folder, "evaluate", "--workdir=run")
    assert evaluated.returncode == 0, evaluated.stderr
    assert f"confidence {result['test']['confidence']:.4g}" in evaluated.stdout


@pytest.mark.parametrize(
    ("flag", "parts"),
    [
        ("model.widht=3", ("model.widht", "Did you mean 'width'?", "slope")),
        ("loss.name=own.parts:vocal", ("loss.name", "own.parts:vocal", "Did you mean 'focal'?")),
        ("loss.name=own.prats:focal", ("loss.name", "own.prats:focal", "PYTHONPATH")),
        ("eval.metric=confidenze", ("eval.metric", "confidenze", "accuracy, confidence, loss")),
    ],
)
def test_what_a_members_own_signature_does_not_know_is_refused_in_one_line(folder, flag, parts, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    assert main(["--config=config.py", "--workdir=refused", "--quiet", f"--config.{flag}"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    for part in parts:
        assert part in error


@pytest.mark.slow
def test_an_exception_in_a_users_loss_shows_the_users_own_frames(folder):
    done = run(folder, "--config=config.py", "--workdir=broken", "--config.loss.name=own.parts:broken")
    assert done.returncode == 2
    assert "own/parts.py" in done.stderr
    assert "the line that is to blame" in done.stderr
    assert "jaxtrain: a float" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("model.name=own.parts:Shaped", "model.width"),
        ("model.name=own.parts:Sized", "model.width"),
        ("loss.name=own.parts:gated", "loss.gate"),
    ],
)
def test_a_float_that_shapes_the_program_ends_in_an_error_that_says_what_to_do(folder, flag, name):
    width = ["--config.model.width=16.0"] if "model" in flag else []
    done = run(folder, "--config=config.py", "--workdir=shaped", f"--config.{flag}", *width)
    assert done.returncode == 2
    assert "own/parts.py" in done.stderr, "the user's own frames are there"
    note = done.stderr[done.stderr.index("jaxtrain: floats of the config") :]
    for part in ("traced", "int, bool or str", name, "optimizer.learning_rate"):
        assert part in note


@pytest.mark.slow
def test_another_width_in_a_users_module_is_refused_on_a_resume_with_both_shapes(folder):
    """The config is unchanged: only the saved leaves show the difference."""
    flags = ["--config=config.py", "--workdir=changed", "--config.model.name=own.parts:Hidden", "--quiet"]
    assert run(folder, *flags).returncode == 0
    (folder / "changed" / "result.json").unlink()
    (folder / "own" / "parts.py").write_text(textwrap.dedent(OWN.replace("WIDTH = 16", "WIDTH = 24")))
    try:
        refused = run(folder, *flags)
    finally:
        (folder / "own" / "parts.py").write_text(textwrap.dedent(OWN))
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    for part in ("params/Dense_0/kernel", "float32[16,3]", "float32[24,3]", "Give another directory"):
        assert part in refused.stderr


def frozen_bias_step(state, batch, *, rules, axis_name=()):
    """A user's step: like `train_step`, but the last bias does not change."""
    moved, metrics = train_step(state, batch, rules=rules, axis_name=axis_name)
    bias = {"bias": state.params["Dense_1"]["bias"]}
    return moved.replace(params=moved.params | {"Dense_1": moved.params["Dense_1"] | bias}), metrics


def last_bias(workdir: Path) -> np.ndarray:
    from jaxtrain.training.trained_run import load_run

    state: TrainState = load_run(workdir).state
    return np.asarray(state.params["Dense_1"]["bias"])


@pytest.mark.one_fast_of(2)
@pytest.mark.parametrize("backend", ["mesh", "pmap"])
def test_a_step_of_ones_own_is_taken_and_resumes(tmp_path, backend):
    config = tiny({"train.duration": "300 steps", "parallel.backend": backend})
    train_and_evaluate(config, tmp_path / "own", step=frozen_bias_step, quiet=True)
    assert not last_bias(tmp_path / "own").any()
    resumed = tmp_path / "resumed"
    train_and_evaluate(config, resumed, step=frozen_bias_step, trackers=[Interrupting(20)], quiet=True)
    assert result_of(resumed)["status"] == "interrupted"
    train_and_evaluate(config, resumed, step=frozen_bias_step, quiet=True)
    assert result_of(resumed)["state_digest"] == result_of(tmp_path / "own")["state_digest"]
    if backend == "mesh":
        train_and_evaluate(config, tmp_path / "usual", quiet=True)
        assert last_bias(tmp_path / "usual").any()


NO_MEMBERS = [
    (
        "optimizer",
        "builtins:print",
        "a function that builds an optax transformation. Name another function: this one re",
    ),
    ("optimizer", "math:sin", "a function whose arguments can be passed by name"),
    ("model", "math:sin", "a function that builds a Linen module"),
    ("model", "os:system", "a function that builds a Linen module. Name another function: this one raises TypeError"),
    ("loss", "math:sin", r"a function that takes \(predictions, targets\) first"),
    ("task", "math:sin", r"a function that takes \(model, loss, info\) first"),
    ("task", "builtins:print", "a function that builds a task, with init, loss and predict"),
    ("data", "os:getcwd", r"a function that takes \(path\) first"),
    ("data", "os:fspath", r"got .* expected .*Source"),
    ("schedule.optimizer.learning_rate", "math:sin", r"a function that takes \(step, total_steps\) first"),
    ("schedule.optimizer.learning_rate", "builtins:print", "a function that builds the value at a step, one number"),
]


@pytest.mark.parametrize(("section", "name", "expected"), NO_MEMBERS)
def test_a_callable_that_is_no_member_is_refused_by_signature_then_by_what_it_builds(section, name, expected, tmp_path):
    with pytest.raises(JaxtrainError, match=expected) as refused:
        train_and_evaluate(tiny({f"{section}.name": name}), tmp_path, quiet=True)
    assert name in str(refused.value) or section == "data"
