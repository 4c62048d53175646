"""What all losses and metrics do to the axes of an example."""

import jax
import jax.numpy as jnp

from jaxtrain.errors import ConfigError, Words


def rows(values: jax.Array) -> jax.Array:
    """Flattens all but the batch axis."""
    return values.reshape(values.shape[0], -1)


def averaged(values: jax.Array) -> jax.Array:
    """Averages all but the batch axis: (batch, ...) -> (batch,)."""
    return rows(values).mean(axis=1)


def is_binary(predictions: jax.Array, targets: jax.Array) -> bool:
    """Tells whether there is one logit for each target of 0 or 1, and no axis of classes."""
    return predictions.ndim == targets.ndim


def in_float32(predictions: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns both in float32, and refuses shapes that differ, which would broadcast to numbers that mean nothing."""
    if predictions.shape != targets.shape:
        hint = "Take a loss of classes, such as cross_entropy, where targets are labels"
        raise ConfigError("loss.name", _shapes(predictions, targets), "equal shapes for this loss", hint)
    return predictions.astype(jnp.float32), targets.astype(jnp.float32)


def labelled(predictions: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns logits (batch, ..., classes) in float32 and labels (batch, ..., 1), and refuses other shapes."""
    if predictions.shape[:-1] != targets.shape:
        expected = "logits with one axis more, that of the classes, for this loss"
        hint = "Take a loss such as binary_cross_entropy where the shapes are equal"
        raise ConfigError("loss.name", _shapes(predictions, targets), expected, hint)
    return predictions.astype(jnp.float32), targets.astype(jnp.int32)[..., None]


def _shapes(predictions: jax.Array, targets: jax.Array) -> Words:
    return Words(f"predictions of shape {predictions.shape} and targets of shape {targets.shape}")
