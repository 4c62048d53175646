"""Losses: one number per example, so that masks and weights work alike with all of them."""

import jax
import jax.numpy as jnp

from jaxtrain.families import Family
from jaxtrain.knobs import Fraction, NonNegative


def cross_entropy(predictions: jax.Array, targets: jax.Array, label_smoothing: Fraction = 0.0) -> jax.Array:
    """Cross-entropy of logits (batch, classes) against labels (batch,), as (batch,) in nats.

    With smoothing s the target is (1 - s) at the label plus s / classes everywhere: Szegedy et al. (2016),
    https://arxiv.org/abs/1512.00567.

    >>> cross_entropy(jnp.zeros((1, 4)), jnp.array([2])).round(4)
    Array([1.3863], dtype=float32)
    """
    logits = predictions.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    expected = (1.0 - label_smoothing) * chosen + label_smoothing * logits.mean(axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - expected


def mse(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Squared error of (batch, ...), averaged over all but the batch axis, as (batch,)."""
    squares = (predictions.astype(jnp.float32) - targets.astype(jnp.float32)) ** 2
    return squares.reshape(squares.shape[0], -1).mean(axis=1)


def dice(predictions: jax.Array, targets: jax.Array, smooth: NonNegative = 1.0) -> jax.Array:
    """Soft Dice loss of logits (batch, ...) against masks of 0 and 1, per example, as (batch,).

    1 - (2 Σ p t + smooth) / (Σ p + Σ t + smooth), so an empty mask that is predicted empty costs nothing as long as
    `smooth` is above 0. Milletari et al. (2016), https://arxiv.org/abs/1606.04797, with plain sums below the line.
    """
    rows = predictions.shape[0]
    probability = jax.nn.sigmoid(predictions.astype(jnp.float32)).reshape(rows, -1)
    truth = targets.astype(jnp.float32).reshape(rows, -1)
    overlap = 2.0 * (probability * truth).sum(axis=1)
    return 1.0 - (overlap + smooth) / (probability.sum(axis=1) + truth.sum(axis=1) + smooth)


LOSSES = Family(
    "loss",
    {"cross_entropy": cross_entropy, "mse": mse, "dice": dice},
    supplied=("predictions", "targets"),
)
