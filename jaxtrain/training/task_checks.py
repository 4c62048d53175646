"""Checks of a user's own functions before training: one loss for each example, and masked rows that count nothing.

A run with a task, model, loss or metric of the user's own is traced with batches of two sizes, which computes nothing.
A task, loss or metric of the user's own is also run once, on a few examples with and without masked rows beside them.
Members of the tables are checked by the tests of this project instead, so that they cost nothing at the start of a run.
"""

import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval

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
FIRST = 2  # examples of the first of two parts

HINT = "Compute one number for each example, and add them up with jaxtrain.Mean.of(numbers, mask)"


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
    targets, for a metric that is no `Mean`, and for one that counts masked rows or does not add up over batches.
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
        jax.eval_shape(functools.partial(_call_loss, subject, train), params, model_state, batch, key, values)


def _call_loss(subject: _Subject, train: bool, params: Any, model_state: Any, *others: Any) -> Any:
    """Calls a task's loss, checks what it returns, and returns the loss alone."""
    result = subject.task.loss(params, model_state, *others, train)
    _check_result(result, model_state, subject.config)
    return result[0]


def _check_result(result: Any, model_state: Any, config: Config) -> None:
    """Raises ConfigError unless a task's loss returns (loss, (model_state, {name: Mean})), with a metric "loss"."""
    task = config["task"]["name"]
    try:
        loss, (after, metrics) = result
        named = dict(metrics)
    except (TypeError, ValueError) as error:
        got = Words(f"{task!r}, whose loss returns something else")
        raise ConfigError("task.name", got, "a loss that returns (loss, (model_state, {name: Mean}))") from error
    if getattr(loss, "shape", None) != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        shown = f"{describe(loss)} of {loss.dtype}" if getattr(loss, "shape", None) == () else describe(loss)
        got = Words(f"{task!r}, whose loss is {shown}")
        raise ConfigError("task.name", got, "a loss that is one real number for the batch, shape ()")
    if _form(after) != _form(model_state):
        got = Words(f"{task!r}, whose loss returns another model state than it got")
        raise ConfigError("task.name", got, "a state of the same names, shapes and types", "Return the state as it was")
    if "loss" not in named or not all(isinstance(name, str) for name in named):
        got = Words(f"{task!r}, whose metrics are {[*named]}")
        raise ConfigError("task.name", got, "names as text, 'loss' among them")
    for name, metric in named.items():
        key, function = _named(config, name)
        if not isinstance(metric, Mean):
            got = Words(f"{function!r}, whose metric {name!r} is {describe(metric)}")
            raise ConfigError(key, got, "a jaxtrain.Mean, which adds up over batches", HINT)
        if any(np.shape(leaf) != () for leaf in jax.tree.leaves(metric.count)):
            got = Words(f"{function!r}, whose metric {name!r} has a count of shape {np.shape(metric.count)}")
            raise ConfigError(key, got, "a count that is one number", HINT)


@functools.lru_cache(maxsize=256)
def _check_mask(subject: _Subject) -> None:
    """Runs the task on examples alone and with masked rows beside them, which must give equal sums and counts.

    The counts of two parts of the examples must add up where a number depends on them: otherwise it would change with
    how an evaluation is cut into batches.
    A task of the user's own is run in training, too, unless it has a state, such as running statistics of the batch, or
    draws random numbers there: then its numbers may depend on the other rows.
    """
    rows = np.linspace(0, subject.dataset.sizes["train"] - 1, KEPT + MASKED).astype(np.int64)
    order = np.argsort(np.arange(len(rows)) % 2, kind="stable")  # of the split, every second row is masked
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
    parts = found.pop("parts")
    for form, (alone, beside, again) in found.items():
        if _difference(beside, again, tolerance) is None and (name := _difference(alone, beside, tolerance)):
            raise _counts_masked_rows(subject.config, name, form, alone[name], beside[name])
    whole = found["evaluation"][0]
    for name, metric in whole.items():
        counts = [float(part[name].count) for part in parts]
        if not (np.isclose(sum(counts), metric.count) or _ignores_count(metric) or not _is_of_batch(subject, name)):
            raise _does_not_add_up(subject.config, name, metric, counts)


def _draw(shapes: tuple[Any, Any]) -> tuple[Any, Any]:
    """Draws parameters on the host, normal with the spread of a dense layer's, and sets the model state to ones."""
    generator = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> Any:
        spread = 1.0 / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        return jnp.asarray(generator.normal(0.0, spread, leaf.shape), leaf.dtype)

    params, model_state = shapes
    return jax.tree.map(draw, params), jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), model_state)


def _measure(subject: _Subject, params: Any, model_state: Any, batch: Batch, hparams: Mapping[str, Any]) -> Any:
    """Returns form -> metrics of the rows alone, beside masked rows, and of these with another key.

    "parts" has the metrics of an evaluation of two parts of the rows. In another order a masked row lies before the
    others, too, so that what is summed along the batch is seen; but what is drawn for a row may depend on its place.
    """
    key = jax.random.key(0)
    other = jax.random.key(1)
    values = subject.values(hparams)
    alone = {name: leaf[:KEPT] for name, leaf in batch.items()} | {"mask": jnp.ones(KEPT, jnp.float32)}

    def metrics(batch: Batch, key: jax.Array, train: bool) -> Any:
        return subject.task.loss(params, model_state, batch, key, values, train)[1][1]

    def beside(order: np.ndarray, begin: int = 0, end: int = KEPT) -> Batch:
        """Returns all rows in an order, with those from `begin` to `end` counted."""
        mask = ((order >= begin) & (order < end)).astype(np.float32)
        return {name: leaf[order] for name, leaf in batch.items()} | {"mask": jnp.asarray(mask)}

    in_order = np.arange(KEPT + MASKED)
    moved = np.roll(in_order, 1)
    evaluated = metrics(alone, key, False)
    masked = metrics(beside(in_order), key, False)
    forms = {
        "evaluation": (evaluated, masked, masked),
        "evaluation in another order": (evaluated, *(metrics(beside(moved), own, False) for own in (key, other))),
        "parts": [metrics(beside(in_order, *part), key, False) for part in ((0, FIRST), (FIRST, KEPT))],
    }
    if subject.config["task"]["name"] not in TASKS.members and not jax.tree.leaves(model_state):
        forms["training"] = (
            metrics(alone, key, True),
            metrics(beside(in_order), key, True),
            metrics(beside(in_order), other, True),
        )
    return forms


def _difference(left: Mapping[str, Mean], right: Mapping[str, Mean], tolerance: float) -> str | None:
    """Returns the name of the first metric whose sum or count differs; None if all are equal."""

    def differ(a: Any, b: Any) -> bool:
        scale = np.abs(np.nan_to_num(np.asarray(a, np.float64))).max(initial=0.0)
        return np.shape(a) != np.shape(b) or not np.allclose(a, b, tolerance, tolerance * scale, equal_nan=True)

    return next((n for n, m in left.items() if differ(m.count, right[n].count) or differ(m.sum, right[n].sum)), None)


def _form(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]


def _ignores_count(metric: Mean) -> bool:
    """Tells whether the count is no part of the number that a metric reports."""
    once, twice = (np.asarray(metric.finish(metric.sum + 1, count)) for count in (1.0, 2.0))
    return np.array_equal(once, twice, equal_nan=True)


def _is_of_batch(subject: _Subject, name: str) -> bool:
    """Tells whether a metric of an evaluation depends on the batch; a norm of the parameters, for one, does not."""
    batch = subject.dataset.read("train", np.zeros(KEPT, np.int64)) | {"mask": np.ones(KEPT, np.float32)}
    key = jax.random.key(0)
    params, model_state = jax.eval_shape(subject.init, key, batch, dict(subject.hparams))
    values = jax.eval_shape(subject.values, dict(subject.hparams))

    def total(batch: Batch, *others: Any) -> Any:
        return subject.task.loss(*others[:2], batch, key, others[2], False)[1][1][name].sum

    traced = jax.make_jaxpr(total)(batch, params, model_state, values).jaxpr
    _, used = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
    return any(used[: len(jax.tree.leaves(batch))])


def _named(config: Config, metric: str) -> tuple[str, str]:
    """Returns the key of the config that a metric comes from, and the user's name for the function there."""
    own = _own(config)
    key = "task.name" if "task.name" in own else "loss.name" if metric == "loss" else "task.metrics"
    return key, metric if key == "task.metrics" else config[key.partition(".")[0]]["name"]


def _does_not_add_up(config: Config, name: str, whole: Mean, counts: Sequence[float]) -> ConfigError:
    key, function = _named(config, name)
    got = Words(
        f"{function!r}, whose metric {name!r} counts {_shown(whole.count)} for {KEPT} examples, but "
        f"{counts[0]:g} and {counts[1]:g} for {FIRST} and {KEPT - FIRST} of them"
    )
    expected = "counts that add up, as otherwise the number changes with the size of batches"
    return ConfigError(key, got, expected, HINT)


def _counts_masked_rows(config: Config, name: str, form: str, alone: Mean, beside: Mean) -> ConfigError:
    key, function = _named(config, name)
    numbers = [f"sum {_shown(metric.sum)} and count {_shown(metric.count)}" for metric in (alone, beside)]
    got = Words(
        f"{function!r}, whose metric {name!r} in {form} has {numbers[0]} for {KEPT} examples, but {numbers[1]} with "
        f"{MASKED} masked rows beside them"
    )
    return ConfigError(key, got, "equal sums and counts, since masked rows are padding", HINT)


def _shown(value: Any) -> str:
    return f"{float(value):.6g}" if np.ndim(value) == 0 else f"{float(np.sum(value)):.6g} in all"
