"""Weighted counts and safe division, for metrics."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

COUNTABLE = 2**24
"""The count at which adding 1 no longer changes a float32: a batch of 256 masks of 512x512 pixels has four times it."""


def count_places(places: jax.Array, mask: jax.Array, length: int) -> jax.Array:
    """Counts how often each integer below `length` occurs in `places` (batch, ...); `mask` weights the examples."""
    weights = jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (places.ndim - 1)), places.shape)
    pieces = -(-places.size // COUNTABLE) or 1
    parts = zip(jnp.array_split(places.ravel(), pieces), jnp.array_split(weights.ravel(), pieces), strict=True)
    return sum((jnp.bincount(*part, length=length) for part in parts), start=jnp.zeros(length, jnp.float32))


def divide(numerator: Any, denominator: Any, otherwise: float = 0.0) -> np.ndarray:
    """Divides on the host, in float64; returns `otherwise` where `denominator` is 0."""
    numerator = np.asarray(numerator, np.float64)
    denominator = np.asarray(denominator, np.float64)
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1.0), otherwise)
