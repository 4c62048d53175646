"""What all losses and metrics do to the axes of an example."""

import jax
import jax.numpy as jnp

from jaxtrain.errors import ConfigError


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
        shapes = f"<one of pairs, for predictions of shape {predictions.shape} and targets of shape {targets.shape}>"
        raise ConfigError("loss.name", shapes, "a loss of classes, such as cross_entropy, where targets are labels")
    return predictions.astype(jnp.float32), targets.astype(jnp.float32)


def labelled(predictions: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns logits (batch, ..., classes) in float32 and labels (batch, ..., 1), and refuses other shapes."""
    if predictions.shape[:-1] != targets.shape:
        shapes = f"<one of classes, for predictions of shape {predictions.shape} and targets of shape {targets.shape}>"
        raise ConfigError("loss.name", shapes, "a loss of pairs, such as binary_cross_entropy, where shapes are equal")
    return predictions.astype(jnp.float32), targets.astype(jnp.int32)[..., None]
