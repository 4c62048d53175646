"""The curves that schedules are put together from."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Number = jax.Array | float


def part(step: jax.Array, begin: Number, end: Number) -> jax.Array:
    """How much of the way from step `begin` to step `end` is done, 0 to 1; an empty way is done at once."""
    return jnp.clip((step - begin) / jnp.maximum(end - begin, 1e-6), 0.0, 1.0)


def linear(begin: Number, end: Number, done: Number) -> jax.Array:
    """The straight line from `begin` to `end`."""
    return jnp.asarray(begin + (end - begin) * done)


def cosine(begin: Number, end: Number, done: Number) -> jax.Array:
    """Half a cosine from `begin` to `end`."""
    return end + (begin - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))


def root(begin: Number, end: Number, done: Number) -> jax.Array:
    """A square root from `begin` to `end`, steep first."""
    return begin + (end - begin) * jnp.sqrt(done)


def warmed(step: jax.Array, warmup_steps: Number, start: Number, then: jax.Array) -> jax.Array:
    """Linear from `start` to 1 over the first `warmup_steps`, `then` after them."""
    return jnp.where(step < warmup_steps, linear(start, 1.0, part(step, 0.0, warmup_steps)), then)


def warmed_curve(
    step: jax.Array, total_steps: jax.Array, warmup: Number, start: Number, curve: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Linear from `start` to 1 over the first part `warmup` of the run, then `curve` of the done part of the rest."""
    warmup_steps = warmup * total_steps
    return warmed(step, warmup_steps, start, curve(part(step, warmup_steps, total_steps)))
