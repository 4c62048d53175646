"""The curves that schedules are built from."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Number = jax.Array | float


def progress(step: jax.Array, begin: Number, end: Number) -> jax.Array:
    """Returns the completed fraction, 0 to 1, of the steps from `begin` to `end`; 1 after `begin` if they coincide."""
    return jnp.clip((step - begin) / jnp.maximum(end - begin, 1e-6), 0.0, 1.0)


def linear(begin: Number, end: Number, done: Number) -> jax.Array:
    """Returns the point at `done`, 0 to 1, on a straight line from `begin` to `end`."""
    return jnp.asarray(begin + (end - begin) * done)


def cosine(begin: Number, end: Number, done: Number) -> jax.Array:
    """Returns the point at `done`, 0 to 1, on half a cosine wave from `begin` to `end`."""
    return end + (begin - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))


def root(begin: Number, end: Number, done: Number) -> jax.Array:
    """Returns the point at `done`, 0 to 1, on a square root from `begin` to `end`, steep at first."""
    return begin + (end - begin) * jnp.sqrt(done)


def warmup_then(step: jax.Array, warmup_steps: Number, start: Number, then: jax.Array) -> jax.Array:
    """Returns a line from `start` to 1 over the first `warmup_steps`, then `then`."""
    return jnp.where(step < warmup_steps, linear(start, 1.0, progress(step, 0.0, warmup_steps)), then)


def warmup_then_curve(
    step: jax.Array, total_steps: jax.Array, warmup: Number, start: Number, curve: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Returns a line from `start` to 1 over the fraction `warmup` of the run, then `curve` of the progress after it."""
    warmup_steps = warmup * total_steps
    return warmup_then(step, warmup_steps, start, curve(progress(step, warmup_steps, total_steps)))
