"""Shapes and dtypes of predictions and targets, for losses and metrics."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxtrain.config.registry import BoundMember
from jaxtrain.core.floats import as_floats, float_type
from jaxtrain.errors import ConfigError, Words


def flatten_examples(values: jax.Array) -> jax.Array:
    """Flattens all axes but the batch axis: (batch, ...) -> (batch, n)."""
    return values.reshape(values.shape[0], -1)


def mean_per_example(values: jax.Array, kept: jax.Array | None = None) -> jax.Array:
    """Averages over all axes but the batch axis: (batch, ...) -> (batch,).

    `kept`, booleans of the same shape, says which values count; of an example without any the mean is 0.
    """
    if kept is None:
        return flatten_examples(values).mean(axis=1)
    count = flatten_examples(kept).sum(axis=1).astype(values.dtype)
    return flatten_examples(jnp.where(kept, values, 0.0)).sum(axis=1) / jnp.maximum(count, 1.0)


def as_examples(
    predictions: jax.Array, targets: jax.Array, mask: jax.Array, kept: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Makes an example of each target (batch, ...), masked where its example is, and where `kept` is false."""
    weights = jnp.where(kept, mask.reshape(-1, *(1,) * (targets.ndim - 1)), 0.0)
    return predictions.reshape(-1, *predictions.shape[targets.ndim :]), targets.reshape(-1), weights.reshape(-1)


def is_binary(predictions: jax.Array, targets: jax.Array) -> bool:
    """Returns whether there is one logit per target of 0 or 1, and no class axis."""
    return predictions.ndim == targets.ndim


def as_float_pair(predictions: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns both as floats; raises ConfigError if the shapes differ, since broadcasting would give a wrong loss."""
    if predictions.shape != targets.shape:
        hint = "Take a loss of classes, such as cross_entropy, where targets are labels"
        raise ConfigError("loss.name", _shapes(predictions, targets), "equal shapes for this loss", hint)
    kind = float_type(predictions, targets)
    return predictions.astype(kind), targets.astype(kind)


def as_logits_and_labels(predictions: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns logits (batch, ..., classes) as floats and labels (batch, ..., 1); ConfigError for other shapes."""
    if predictions.shape[:-1] != targets.shape:
        expected = "logits with one axis more, that of the classes, for this loss"
        hint = "Take a loss such as binary_cross_entropy where the shapes are equal"
        raise ConfigError("loss.name", _shapes(predictions, targets), expected, hint)
    return as_floats(predictions), targets.astype(jnp.int32)[..., None]


def as_cells_and_boxes(predictions: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns outputs (batch, rows, columns, 4 + classes) and boxes (batch, most, 5); ConfigError for other shapes."""
    grids = predictions.ndim == 4 and predictions.shape[-1] > 4
    if not (grids and targets.ndim == 3 and targets.shape[-1] == 5 and len(targets) == len(predictions)):
        expected = "outputs (batch, rows, columns, 4 + classes) and boxes (batch, most, 5) for this loss"
        hint = "Take it with task.name=detection"
        raise ConfigError("loss.name", _shapes(predictions, targets), expected, hint)
    return as_floats(predictions), as_floats(targets)


def _shapes(predictions: jax.Array, targets: jax.Array) -> Words:
    return Words(f"predictions of shape {predictions.shape} and targets of shape {targets.shape}")


@dataclass(frozen=True)
class PerExample:
    """A loss function that raises ConfigError, when it is traced, unless it returns one real number for each example.

    Anything else would be averaged with wrong weights: the mean of a batch, for one, counts padding rows in evaluation.
    Integers and booleans have no gradient, and of complex numbers only the real part would be trained.
    """

    function: Any
    name: str

    def takes(self, name: str) -> bool:
        """Tells whether the function has an argument of this name, which `optional` may hold then."""
        return isinstance(self.function, BoundMember) and self.function.takes(name)

    def __call__(self, values: Any, predictions: Any, targets: Any, **optional: Any) -> jax.Array:
        """Calls the function; the examples are counted by the first axis of the targets."""
        losses = self.function(values, predictions, targets, **optional)
        expected = jax.tree.leaves(targets)[0].shape[:1]
        if getattr(losses, "shape", None) != expected:
            got = Words(f"{self.name!r}, which returns {describe(losses)} for a batch of {expected[0]}")
            hint = "Average over all axes but the first, and over no examples"
            raise ConfigError("loss.name", got, f"one loss for each example, shape {expected}", hint)
        if not jnp.issubdtype(losses.dtype, jnp.floating):
            got = Words(f"{self.name!r}, which returns numbers of the type {losses.dtype}")
            raise ConfigError("loss.name", got, "real numbers, such as float32", "A loss must have a gradient")
        return losses


def name_of(function: Any) -> str:
    """Returns the user's name for a function: that in the config, or that in their code."""
    return getattr(function, "name", "") or getattr(function, "__name__", "") or type(function).__name__


def reshape_outputs(outputs: Any, shape: tuple[int, ...], model: Any) -> jax.Array:
    """Reshapes a model's outputs to (batch, *shape); raises ConfigError if they are too many or too few."""
    given = getattr(outputs, "shape", ())
    if not given or math.prod(given[1:]) != math.prod(shape):
        got = Words(f"{name_of(model)!r}, which returns {describe(outputs)}")
        hint = "The number of outputs is the first argument of a model"
        raise ConfigError("model.name", got, f"outputs of shape {(*given[:1], *shape)}, to fit the targets", hint)
    return outputs.reshape(given[0], *shape)


def describe(value: Any) -> str:
    """Describes the shape of an array, or the type of anything else, in words."""
    shape = getattr(value, "shape", None)
    return f"an array of shape {shape}" if shape is not None else f"a {type(value).__name__}"
