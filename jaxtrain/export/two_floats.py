"""Numbers far from 0 as two float32, the value and its remainder: together they hold 48 bits.

A program in float32 holds 2,000,000.1 only to an eighth. What matters to a model is the distance from the mean, which
is taken before anything is rounded.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MOST_DEVIATIONS = 16.0
"""The distance of a mean from 0, in deviations, up to which one float32 is enough: it is off by 1e-6 of a deviation."""


class TwoFloats(NamedTuple):
    """An array as the sum of two float32 of its shape."""

    value: np.ndarray
    remainder: np.ndarray


def split(numbers: Any) -> TwoFloats:
    """Splits float64 numbers; what is no number, or too large for float32, has the remainder 0."""
    exact = np.asarray(numbers, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        value = exact.astype(np.float32)
        remainder = np.where(np.isfinite(value), exact - value, 0.0).astype(np.float32)
    return TwoFloats(value, remainder)


def centre(value: Any, remainder: Any, mean: Any) -> Any:
    """Returns value + remainder - mean in float32, to the precision of float32 at the distance from the mean.

    Works alike on arrays of NumPy and inside a program, to the bit.
    """
    offset = split(mean)
    parts = (value - offset.value, remainder - offset.remainder)
    if isinstance(value, jax.Array):  # else the compiler would join the constants, and round value + remainder
        parts = jax.lax.optimization_barrier(parts)
    return parts[0] + parts[1]


def fits_one_float(mean: Any, std: Any) -> bool:
    """Tells whether float32 holds numbers of this mean and deviation as finely as a standardised one."""
    return bool(np.all(np.abs(mean) <= MOST_DEVIATIONS * np.asarray(std)))


def standardise(value: jax.Array, remainder: jax.Array | None, mean: Any, std: Any) -> jax.Array:
    """Returns (value + remainder - mean) / std in float32, inside a program; both statistics are of the last axis."""
    shape = (1,) * (value.ndim - 1) + (-1,)
    means = np.reshape(mean, shape)
    deviations = np.reshape(std, shape).astype(np.float32)
    rest = jnp.zeros_like(value) if remainder is None else remainder
    return centre(value, rest, means) / deviations
