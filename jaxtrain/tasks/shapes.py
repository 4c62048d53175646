"""Shapes and dtypes of predictions and targets, for losses and metrics."""

import jax
import jax.numpy as jnp

from jaxtrain.errors import ConfigError, Words


def flatten_examples(values: jax.Array) -> jax.Array:
    """Flattens all axes but the batch axis: (batch, ...) -> (batch, n)."""
    return values.reshape(values.shape[0], -1)


def mean_per_example(values: jax.Array) -> jax.Array:
    """Averages over all axes but the batch axis: (batch, ...) -> (batch,)."""
    return flatten_examples(values).mean(axis=1)


def is_binary(predictions: jax.Array, targets: jax.Array) -> bool:
    """Returns whether there is one logit per target of 0 or 1, and no class axis."""
    return predictions.ndim == targets.ndim


def as_float32_pair(predictions: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns both as float32; raises ConfigError if the shapes differ, since broadcasting would give a wrong loss."""
    if predictions.shape != targets.shape:
        hint = "Take a loss of classes, such as cross_entropy, where targets are labels"
        raise ConfigError("loss.name", _shapes(predictions, targets), "equal shapes for this loss", hint)
    return predictions.astype(jnp.float32), targets.astype(jnp.float32)


def as_logits_and_labels(predictions: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns logits (batch, ..., classes) as float32 and labels (batch, ..., 1); ConfigError for other shapes."""
    if predictions.shape[:-1] != targets.shape:
        expected = "logits with one axis more, that of the classes, for this loss"
        hint = "Take a loss such as binary_cross_entropy where the shapes are equal"
        raise ConfigError("loss.name", _shapes(predictions, targets), expected, hint)
    return predictions.astype(jnp.float32), targets.astype(jnp.int32)[..., None]


def _shapes(predictions: jax.Array, targets: jax.Array) -> Words:
    return Words(f"predictions of shape {predictions.shape} and targets of shape {targets.shape}")
