"""Counting and dividing, for metrics."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def counted(places: jax.Array, mask: jax.Array, length: int) -> jax.Array:
    """Counts how often each of `length` places occurs in integers (batch, ...), with the examples' weights `mask`."""
    weights = jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (places.ndim - 1)), places.shape)
    return jnp.bincount(places.ravel(), weights.ravel(), length=length)


def divided(above: Any, below: Any, otherwise: float = 0.0) -> np.ndarray:
    """Divides on the host, in float64; `otherwise` where `below` is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), otherwise)
