"""Runs in float64: every number follows, a loop in NumPy agrees to 1e-12, and what has no float64 is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
from tiny_runs import Interrupting

from jaxtrain import export_run, load_run
from jaxtrain.config.resolve import resolve_config
from jaxtrain.core.steps import eval_step, train_step
from jaxtrain.core.trees import named_leaves
from jaxtrain.data.order import batch_indices
from jaxtrain.errors import ConfigError, UsageError
from jaxtrain.optimizers.schedules.decays import warmup_cosine
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.training.experiment import build
from jaxtrain.training.train import train_and_evaluate

STEPS = 12
RATE = 0.05
MOMENTUM = 0.9
GIVEN = {
    "data": {"name": "diabetes", "batch_size": 32},
    "task": {"name": "regression"},
    "loss": {"name": "mse"},
    "model": {"name": "mlp", "hidden": (8,)},
    "optimizer": {"name": "sgd", "learning_rate": RATE, "momentum": MOMENTUM},
    "schedule": {"optimizer": {"learning_rate": "warmup_cosine"}},
    "train": {"duration": f"{STEPS} steps", "precision": "float64"},
    "log": {"every": "1 steps"},
    "eval": {"every": "6 steps"},
    "checkpoint": {"every": "6 steps"},
    "parallel": {"mesh": 1},
    "track": {"histograms": None, "pictures": None, "tensorboard": False},
}


@pytest.fixture
def x64():
    """Turns on float64 for the test, in all threads; integers of 64 bits then meet others, as they do for users."""
    jax.config.update("jax_enable_x64", True)
    with jax.numpy_dtype_promotion("standard"):
        yield
    jax.config.update("jax_enable_x64", False)


def with_float64(overrides=()):
    return resolve_config(GIVEN, dict(overrides)).config


def standardised(values, training):
    """Returns float64 values of mean 0 and deviation 1 over the training examples."""
    values = np.asarray(values, np.float64)
    training = np.asarray(training, np.float64)
    return (values - training.mean(axis=0)) / training.std(axis=0)


def loss_and_gradients(weights, inputs, targets):
    """Returns the mean squared error of an MLP with one hidden layer, and its gradients."""
    (first, first_bias), (second, second_bias) = weights
    before = inputs @ first + first_bias
    hidden = np.maximum(before, 0.0)
    errors = (hidden @ second + second_bias)[:, 0] - targets
    slopes = 2 * errors[:, None] / len(errors)
    back = (slopes @ second.T) * (before > 0)
    gradients = [(inputs.T @ back, back.sum(0)), (hidden.T @ slopes, slopes.sum(0))]
    return (errors**2).mean(), gradients


def train_in_numpy(experiment):
    """Trains as the config says; returns the losses of all steps, and the weights."""
    parts = {
        name: (part.split.inputs[part.rows], part.split.targets[part.rows])
        for name, part in experiment.dataset.parts.items()
    }
    inputs, targets = (standardised(values, values) for values in parts["train"])
    params = experiment.init().params
    weights = [
        tuple(np.asarray(params[layer][name]) for name in ("kernel", "bias")) for layer in ("Dense_0", "Dense_1")
    ]
    speeds = [tuple(np.zeros_like(array) for array in pair) for pair in weights]
    order = batch_indices(0, STEPS, examples=len(inputs), batch_size=32, seed=experiment.config["data"]["seed"])
    losses = []
    for step in range(STEPS):
        loss, gradients = loss_and_gradients(weights, inputs[order[step]], targets[order[step]])
        rate = RATE * float(warmup_cosine(jnp.float64(step), jnp.float64(STEPS)))
        speeds = [
            tuple(MOMENTUM * v + g for v, g in zip(*pair, strict=True)) for pair in zip(speeds, gradients, strict=True)
        ]
        weights = [
            tuple(w - rate * v for w, v in zip(*pair, strict=True)) for pair in zip(weights, speeds, strict=True)
        ]
        losses.append(loss)
    of_validation = [standardised(*pair) for pair in zip(parts["validation"], parts["train"], strict=True)]
    return losses, loss_and_gradients(weights, *of_validation)[0]


@pytest.mark.usefixtures("x64")
def test_a_run_equals_a_loop_in_numpy_resumes_to_the_bit_and_predicts(tmp_path, monkeypatch):
    whole = train_and_evaluate(with_float64(), tmp_path / "run", quiet=True)
    losses, validation = train_in_numpy(build(with_float64()))
    rows = list(read_rows(tmp_path / "run" / "metrics.jsonl"))
    np.testing.assert_allclose([row["loss"] for row in rows if row["split"] == "train"], losses, rtol=1e-12)
    assert whole.last["validation"]["loss"] == pytest.approx(validation, rel=1e-12)
    interrupted = train_and_evaluate(with_float64(), tmp_path / "cut", quiet=True, trackers=[Interrupting(6)])
    assert interrupted.status == "interrupted"
    resumed = train_and_evaluate(with_float64(), tmp_path / "cut", quiet=True)
    assert (resumed.step, resumed.state_digest) == (STEPS, whole.state_digest)
    with pytest.raises(UsageError, match=r"export: got a run of train\.precision=float64; expected a run in float32"):
        export_run(tmp_path / "run")
    jax.config.update("jax_enable_x64", False)
    with pytest.raises(
        ConfigError, match=r"train\.precision: got 'float64'; expected .* where JAX has no float64\. Set"
    ):
        load_run(tmp_path / "run")


PROGRAMS = {
    "pictures": {"model": {"name": "cnn", "features": (4,), "hidden": (8,), "norm": "batch", "dropout": 0.1}},
    "attention": {"model": {"name": "vit", "patch": 4, "width": 8, "layers": 1, "heads": 2}},
    "text": {
        "data": {"name": "python_source", "context": 8, "stride": 4096},
        "task": {"name": "language_modelling"},
        "model": {"name": "transformer", "width": 8, "layers": 1, "heads": 2},
    },
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", PROGRAMS)
def test_states_metrics_and_products_are_float64(name):
    given = {"data": {"name": "digits"}, "parallel": {"mesh": 1}, **PROGRAMS[name]}
    found = build(
        resolve_config(given, {"train.precision": "float64", "train.ema": 0.9, "train.on_spike": "rewind"}).config
    )
    state = found.state_shapes()
    batch = found.dataset.read("train", np.arange(8))
    for step in (train_step, eval_step):
        traced = jax.make_jaxpr(functools.partial(step, rules=found.rules), return_shape=True)(state, batch)
        products = [line for line in str(traced[0]).splitlines() if " = dot_general[" in line]
        assert products
        assert all("f64[" in line for line in products)
        floats = {path for path, leaf in named_leaves(traced[1]) if leaf.dtype == np.float32}
        assert not {path for path in floats if not path.endswith("count") and "skipped" not in path}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("lanes", [{"train.seeds": 2}, {"data.folds": 3}])
def test_lanes_are_refused(lanes):
    with pytest.raises(
        ConfigError, match=r"train\.precision: got 'float64'; expected float32 or bfloat16 for searches"
    ):
        build(with_float64(lanes), folds=True)


def test_the_command_turns_it_on(tmp_path):
    words = [f"--config={tiny_runs.config_file(tmp_path)}", f"--workdir={tmp_path / 'run'}"]
    words += ["--config.train.precision=float64", "--config.train.duration=2 steps"]
    assert tiny_runs.run(tmp_path, *words).returncode == 0
    evaluated = tiny_runs.run(tmp_path, "evaluate", f"--workdir={tmp_path / 'run'}")
    assert evaluated.returncode == 0, evaluated.stderr
