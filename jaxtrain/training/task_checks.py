"""Checks of a user's own functions before training: one loss for each example, and masked rows that count nothing.

A run with a task, model, loss or metric of the user's own is traced with batches of two sizes, which computes nothing.
A task, loss or metric of the user's own is also run once, on a few examples with and without masked rows beside them.
Members of the tables are checked by the tests of this project instead, so that they cost nothing at the start of a run.
"""

import functools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.config.defaults import Config, family
from jaxtrain.config.registry import Values
from jaxtrain.core.metric import Mean
from jaxtrain.core.state import Batch, Rules, Task
from jaxtrain.data.dataset import Dataset
from jaxtrain.errors import ConfigError, Words
from jaxtrain.tasks import TASKS
from jaxtrain.tasks.inputs import normalise_inputs
from jaxtrain.tasks.losses import LOSSES
from jaxtrain.tasks.metrics import METRICS
from jaxtrain.tasks.shapes import describe

TRACED = (4, 6)  # with two sizes, a wrong axis that equals the batch in one of them is seen in the other
KEPT = 5  # examples of the batch that is run
MASKED = 3  # masked rows beside them


@dataclass(frozen=True)
class _Subject:
    """A task with the shapes of its data and the names of its floats, by which the checks are remembered."""

    task: Task
    shapes: Hashable
    floats: tuple[str, ...]
    rules: Rules = field(compare=False)
    config: Config = field(compare=False)
    dataset: Dataset = field(compare=False)
    hparams: Mapping[str, Any] = field(compare=False)

    def values(self, hparams: Mapping[str, Any]) -> Values:
        """Returns the hyperparameters of step 0."""
        return self.rules.schedule(jnp.zeros((), jnp.int32), hparams)

    def init(self, key: jax.Array, batch: Batch, hparams: Mapping[str, Any]) -> tuple[Any, Any]:
        """Makes parameters and model state."""
        return self.task.init(key, batch, self.values(hparams))


def check_task(rules: Rules, config: Config, dataset: Dataset, hparams: Mapping[str, Any]) -> None:
    """Checks the user's own functions of a run, once for a task and the shapes of its data.

    Raises ConfigError for a loss that is not a number or not one for each example, for outputs that do not fit the
    targets, and for a metric that counts masked rows.
    """
    own = _own(config)
    if not own:
        return
    leaves, tree = jax.tree.flatten(dataset.example)
    shapes = (tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
    subject = _Subject(rules.task, shapes, tuple(hparams), rules, config, dataset, hparams)
    _check_shapes(subject)
    if own != ["model.name"]:
        _check_mask(subject)


def _own(config: Config) -> list[str]:
    """Returns the keys that name a task, loss, metric or model of the user's own."""
    families = {"task": TASKS, "loss": LOSSES, "model": family("model")}
    keys = [f"{name}.name" for name, table in families.items() if config[name]["name"] not in table.members]
    return keys + ["task.metrics"] * (not set(config["task"].get("metrics", ())) <= set(METRICS.members))


@functools.lru_cache(maxsize=256)
def _check_shapes(subject: _Subject) -> None:
    """Traces the task in training and in evaluation, with batches of different sizes."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    example = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in subject.dataset.example.items()}
    params, model_state = jax.eval_shape(subject.init, key, example, dict(subject.hparams))
    values = jax.eval_shape(subject.values, dict(subject.hparams))
    for size, train in zip(TRACED, (True, False), strict=True):
        batch = {name: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype) for name, leaf in example.items()}
        batch |= {} if train else {"mask": jax.ShapeDtypeStruct((size,), jnp.float32)}
        measure = functools.partial(_loss_of, subject.task, train)
        loss = jax.eval_shape(measure, params, model_state, batch, key, values)
        if getattr(loss, "shape", None) != ():
            got = Words(f"{subject.config['task']['name']!r}, whose loss is {describe(loss)}")
            raise ConfigError("task.name", got, "a loss that is one number for the batch, shape ()")


def _loss_of(task: Task, train: bool, *arguments: Any) -> Any:
    return task.loss(*arguments, train)[0]


@functools.lru_cache(maxsize=256)
def _check_mask(subject: _Subject) -> None:
    """Runs the task on examples alone and with masked rows beside them, which must give equal sums and counts.

    A task of the user's own is run in training, too, unless it has a state, such as running statistics of the batch, or
    draws random numbers there: then its numbers may depend on the other rows.
    """
    rows = np.linspace(0, subject.dataset.sizes["train"] - 1, KEPT + MASKED).astype(np.int64)
    order = np.argsort(np.arange(len(rows)) % 2, kind="stable")  # the masked rows lie between the others
    batch = subject.dataset.read("train", rows[order])
    info = subject.dataset.info
    inputs = np.array(batch["inputs"] if info.layout else normalise_inputs(batch["inputs"], info))
    if np.issubdtype(inputs.dtype, np.floating) and not (info.layout and info.layout.codes):
        inputs[KEPT:] *= 10  # unlike the others, so that they are seen in a maximum, too
        batch["inputs"] = inputs
    hparams = dict(subject.hparams)
    key = jax.random.key(0)
    # Lightly optimised, since it runs once. Weights drawn on the host spare the compilation of the initializers.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    measure = jax.jit(functools.partial(_measure, subject), compiler_options=options)
    with jax.default_matmul_precision("highest"):  # products of other shapes may round otherwise
        found = jax.device_get(measure(*_draw(jax.eval_shape(subject.init, key, batch, hparams)), batch, hparams))
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found)):
            weights = jax.jit(subject.init)(key, batch, hparams)
            found = jax.device_get(measure(*weights, batch, hparams))
    tolerance = 2e-2 if subject.config["train"]["precision"] == "bfloat16" else 1e-4
    for form, (alone, beside, again) in found.items():
        if _difference(beside, again, tolerance) is None and (name := _difference(alone, beside, tolerance)):
            raise _counts_masked_rows(subject.config, name, form, alone[name], beside[name])


def _draw(shapes: tuple[Any, Any]) -> tuple[Any, Any]:
    """Draws parameters on the host, normal with the spread of a dense layer's, and sets the model state to ones."""
    generator = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> Any:
        spread = 1.0 / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        return jnp.asarray(generator.normal(0.0, spread, leaf.shape), leaf.dtype)

    params, model_state = shapes
    return jax.tree.map(draw, params), jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), model_state)


def _measure(subject: _Subject, params: Any, model_state: Any, batch: Batch, hparams: Mapping[str, Any]) -> Any:
    """Returns form -> metrics of the rows alone, beside masked rows, and of these with another key."""
    key = jax.random.key(0)
    other = jax.random.key(1)
    values = subject.values(hparams)
    alone = {name: leaf[:KEPT] for name, leaf in batch.items()} | {"mask": jnp.ones(KEPT, jnp.float32)}
    beside = {**batch, "mask": (jnp.arange(KEPT + MASKED) < KEPT).astype(jnp.float32)}

    def metrics(batch: Batch, key: jax.Array, train: bool) -> Any:
        return subject.task.loss(params, model_state, batch, key, values, train)[1][1]

    def form(train: bool) -> tuple[Any, Any, Any]:
        with_masked = metrics(beside, key, train)
        return metrics(alone, key, train), with_masked, metrics(beside, other, train) if train else with_masked

    forms = {"evaluation": form(False)}
    if subject.config["task"]["name"] not in TASKS.members and not jax.tree.leaves(model_state):
        forms["training"] = form(True)
    return forms


def _difference(left: Mapping[str, Mean], right: Mapping[str, Mean], tolerance: float) -> str | None:
    """Returns the name of the first metric whose sum or count differs; None if all are equal."""

    def differ(a: Any, b: Any) -> bool:
        scale = np.abs(np.nan_to_num(np.asarray(a, np.float64))).max(initial=0.0)
        return np.shape(a) != np.shape(b) or not np.allclose(a, b, tolerance, tolerance * scale, equal_nan=True)

    return next((n for n, m in left.items() if differ(m.count, right[n].count) or differ(m.sum, right[n].sum)), None)


def _counts_masked_rows(config: Config, name: str, form: str, alone: Mean, beside: Mean) -> ConfigError:
    own = _own(config)
    key = "task.name" if "task.name" in own else "loss.name" if name == "loss" else "task.metrics"
    function = name if key == "task.metrics" else config[key.partition(".")[0]]["name"]
    numbers = [f"sum {_shown(metric.sum)} and count {_shown(metric.count)}" for metric in (alone, beside)]
    got = Words(
        f"{function!r}, whose metric {name!r} in {form} has {numbers[0]} for {KEPT} examples, but {numbers[1]} with "
        f"{MASKED} masked rows beside them"
    )
    hint = "Compute one number for each example, and add them up with jaxtrain.Mean.of(numbers, batch['mask'])"
    return ConfigError(key, got, "equal sums and counts, since masked rows are padding", hint)


def _shown(value: Any) -> str:
    return f"{float(value):.6g}" if np.ndim(value) == 0 else f"{float(np.sum(value)):.6g} in all"
