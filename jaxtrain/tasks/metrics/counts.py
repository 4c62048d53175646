"""Weighted counts and safe division, for metrics."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def count_places(places: jax.Array, mask: jax.Array, length: int) -> jax.Array:
    """Counts how often each integer below `length` occurs in `places` (batch, ...); `mask` weights the examples."""
    weights = jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (places.ndim - 1)), places.shape)
    return jnp.bincount(places.ravel(), weights.ravel(), length=length)


def divide(numerator: Any, denominator: Any, otherwise: float = 0.0) -> np.ndarray:
    """Divides on the host, in float64; returns `otherwise` where `denominator` is 0."""
    numerator = np.asarray(numerator, np.float64)
    denominator = np.asarray(denominator, np.float64)
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1.0), otherwise)
