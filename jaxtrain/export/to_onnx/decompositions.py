"""Primitives that ONNX lacks, as functions of simpler ones."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def _log1p(value: jax.Array) -> jax.Array:
    """Returns log(1 + x) to the precision of x near 0: Kahan's correction of what 1 + x lost."""
    raised = 1.0 + value
    corrected = jnp.log(raised) * (value / (raised - 1.0))
    return jnp.where(raised == 1.0, value, jnp.where(jnp.isinf(raised), raised, corrected))


def _expm1(value: jax.Array) -> jax.Array:
    """Returns exp(x) - 1 to the precision of x near 0, by the same correction."""
    power = jnp.exp(value)
    difference = power - 1.0
    corrected = difference * (value / jnp.log(power))
    is_far = (power == 0.0) | jnp.isinf(power)
    return jnp.where(power == 1.0, value, jnp.where(is_far, difference, corrected))


def _cube_root(value: jax.Array, **_: Any) -> jax.Array:
    return jnp.sign(value) * jnp.abs(value) ** (1.0 / 3.0)


def _angle(rise: jax.Array, run: jax.Array) -> jax.Array:
    """Returns the angle of points (run, rise) in all four quadrants."""
    straight = jnp.where(run == 0.0, 1.0, run)
    half = jnp.where(_is_negative(run), jnp.pi, 0.0)
    turn = jnp.where(_is_negative(rise), -half, half)
    upright = jnp.where(rise == 0.0, turn, jnp.sign(rise) * (jnp.pi / 2.0))
    return jnp.where(run == 0.0, upright, jnp.arctan(rise / straight) + turn)


def _is_negative(value: jax.Array) -> jax.Array:
    """Tells which numbers are negative, -0.0 among them."""
    return (value < 0.0) | (1.0 / value < 0.0)


def _at_most(first: jax.Array, second: jax.Array) -> jax.Array:
    """Compares numbers of which nan is the largest."""
    return (first <= second) | (second != second)


def _below(first: jax.Array, second: jax.Array) -> jax.Array:
    return (first < second) | ((second != second) & (first == first))


def _accumulate(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Returns the function that accumulates along an axis."""
    return lambda values, axis, reverse: lax.associative_scan(function, values, reverse, axis)


def _update(operand: jax.Array, update: jax.Array, *starts: jax.Array) -> jax.Array:
    """Writes a part into an operand at a computed place, moved so that all of it lies inside."""
    inside = jnp.ones((1,) * operand.ndim, bool)
    spread = update
    for axis, (length, size) in enumerate(zip(operand.shape, update.shape, strict=True)):
        if length == size:
            continue
        start = jnp.clip(starts[axis], 0, length - size)
        places = jnp.arange(length) - start
        spread = jnp.take(spread, jnp.clip(places, 0, size - 1), axis=axis, mode="clip")
        lies_inside = (places >= 0) & (places < size)
        inside &= lies_inside.reshape([-1 if place == axis else 1 for place in range(operand.ndim)])
    return jnp.where(inside, spread, operand)


DECOMPOSITIONS: dict[str, Callable[..., jax.Array]] = {
    "log1p": lambda value, **_: _log1p(value),
    "expm1": lambda value, **_: _expm1(value),
    "cbrt": _cube_root,
    "atan2": _angle,
    "le_to": _at_most,
    "lt_to": _below,
    "cumprod": _accumulate(lax.mul),
    "cummax": _accumulate(lax.max),
    "cummin": _accumulate(lax.min),
    "cumlogsumexp": _accumulate(jnp.logaddexp),
    "dynamic_update_slice": _update,
}
"""Primitive -> its function of operands and parameters."""
