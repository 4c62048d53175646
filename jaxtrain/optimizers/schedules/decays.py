"""Schedules that fall over the run, each after a linear warm-up on request.

In the formulas t is the part of the run after the warm-up that is done, 0 to 1.
"""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from jaxtrain.config.schema import Bounds, Fraction, NonNegative, Positive
from jaxtrain.optimizers.schedules.curves import cosine, linear, part, root, warmed, warmed_curve


def warmup_cosine(
    step: jax.Array, total_steps: jax.Array, warmup: Fraction = 0.05, start: NonNegative = 0.0, end: NonNegative = 0.0
) -> jax.Array:
    """Linear from `start` to 1 over the first part `warmup` of the run, then half a cosine down to `end`.

    Loshchilov and Hutter (2017), https://arxiv.org/abs/1608.03983; equals optax's warmup_cosine_decay_schedule.

    >>> [round(float(warmup_cosine(jnp.float32(step), 100.0)), 2) for step in (0, 5, 50, 100)]
    [0.0, 1.0, 0.54, 0.0]
    """
    return warmed_curve(step, total_steps, warmup, start, lambda done: cosine(1.0, end, done))


def linear_decay(
    step: jax.Array, total_steps: jax.Array, warmup: Fraction = 0.0, start: NonNegative = 0.0, end: NonNegative = 0.0
) -> jax.Array:
    """Linear down to `end`, after a warm-up from `start` over the first part `warmup` of the run.

    1 - (1 - end) t. Defazio et al. (2023), https://arxiv.org/abs/2310.07831; equals optax's
    warmup_constant_schedule joined to its linear_schedule.

    >>> [round(float(linear_decay(jnp.float32(step), 100.0, warmup=0.1)), 2) for step in (0, 10, 55, 100)]
    [0.0, 1.0, 0.5, 0.0]
    """
    return warmed_curve(step, total_steps, warmup, start, lambda done: linear(1.0, end, done))


def polynomial(
    step: jax.Array,
    total_steps: jax.Array,
    power: Positive = 2.0,
    warmup: Fraction = 0.0,
    start: NonNegative = 0.0,
    end: NonNegative = 0.0,
) -> jax.Array:
    """A power of what is left of the run, down to `end`.

    end + (1 - end) (1 - t)^power, after a warm-up from `start` over the first part `warmup` of the run.
    Chen et al. (2018), https://arxiv.org/abs/1606.00915; equals optax's polynomial_schedule.

    >>> [round(float(polynomial(jnp.float32(step), 100.0)), 2) for step in (0, 50, 90, 100)]
    [1.0, 0.25, 0.01, 0.0]
    """
    return warmed_curve(step, total_steps, warmup, start, lambda done: end + (1.0 - end) * (1.0 - done) ** power)


def exponential(
    step: jax.Array,
    total_steps: jax.Array,
    end: Positive = 0.01,
    warmup: Fraction = 0.0,
    start: NonNegative = 0.0,
) -> jax.Array:
    """By the same ratio each step, down to `end`.

    end^t, after a warm-up from `start` over the first part `warmup` of the run. Equals optax's exponential_decay,
    https://optax.readthedocs.io/en/latest/api/optimizer_schedules.html.

    >>> [round(float(exponential(jnp.float32(step), 100.0)), 3) for step in (0, 50, 100)]
    [1.0, 0.1, 0.01]
    """
    return warmed_curve(step, total_steps, warmup, start, lambda done: end**done)


def inverse_sqrt(
    step: jax.Array,
    total_steps: jax.Array,
    warmup: Annotated[float, Bounds(0, 1, open_low=True)] = 0.05,
    start: NonNegative = 0.0,
) -> jax.Array:
    """Linear from `start` to 1 over the first part `warmup` of the run, then by the inverse square root of the step.

    √(warmup steps / step), whatever the length of the run. Vaswani et al. (2017), https://arxiv.org/abs/1706.03762.

    >>> [round(float(inverse_sqrt(jnp.float32(step), 100.0, warmup=0.04)), 2) for step in (0, 4, 16, 100)]
    [0.0, 1.0, 0.5, 0.2]
    """
    warmup_steps = warmup * total_steps
    return warmed(step, warmup_steps, start, jnp.sqrt(warmup_steps / jnp.maximum(step, warmup_steps)))


def warmup_stable_decay(
    step: jax.Array,
    total_steps: jax.Array,
    warmup: Fraction = 0.05,
    decay: Fraction = 0.2,
    start: NonNegative = 0.0,
    end: NonNegative = 0.0,
    shape: Literal["linear", "cosine", "root"] = "linear",
) -> jax.Array:
    """Linear from `start` to 1, 1 for long, and over the last part `decay` of the run down to `end`.

    A decay that would begin before the warm-up has ended waits for it. With s the part of it that is done: linear
    1 - (1 - end) s, cosine, or root 1 - (1 - end) √s. A `decay` of 0 is a warm-up alone. Hu et al. (2024),
    https://arxiv.org/abs/2404.06395; the root by Hägele et al. (2024), https://arxiv.org/abs/2405.18392.

    >>> [round(float(warmup_stable_decay(jnp.float32(step), 100.0)), 2) for step in (0, 5, 80, 90, 100)]
    [0.0, 1.0, 1.0, 0.5, 0.0]
    """
    falling = {"linear": linear, "cosine": cosine, "root": root}[shape]
    stable_until = jnp.maximum(1.0 - decay, warmup) * total_steps
    # Without a decay the last step of the run is no part of one.
    done = jnp.where(decay > 0.0, part(step, stable_until, total_steps), 0.0)
    return warmed(step, warmup * total_steps, start, falling(1.0, end, done))


def step_decay(step: jax.Array, total_steps: jax.Array, stages: Positive = 3.0, gamma: NonNegative = 0.1) -> jax.Array:
    """Stairs: the run in `stages` of equal length, each at `gamma` times the one before.

    gamma^⌊stages step / total steps⌋, where a stage begins at the nearest whole step. He et al. (2016),
    https://arxiv.org/abs/1512.03385; equals optax's exponential_decay with a staircase.

    >>> [round(float(step_decay(jnp.float32(step), 90.0)), 3) for step in (0, 29, 30, 60)]
    [1.0, 1.0, 0.1, 0.01]
    """
    # Half a step on: a whole step at which a stage begins is well inside it, however the quotient is rounded.
    return gamma ** jnp.floor((step + 0.5) * stages / total_steps)


def piecewise(
    step: jax.Array,
    total_steps: jax.Array,
    first: Fraction = 0.5,
    first_scale: NonNegative = 0.1,
    second: Fraction = 0.75,
    second_scale: NonNegative = 0.1,
    third: Fraction = 1.0,
    third_scale: NonNegative = 1.0,
    between: Literal["constant", "linear", "cosine"] = "constant",
) -> jax.Array:
    """Multiplied by a scale at each of three points of the run, given as fractions of it, in any order.

    `between` the points it is constant, or goes to the next value by a line or half a cosine; a point at 1, with a
    scale of 1, is one fewer. Equals optax's piecewise_constant_schedule and piecewise_interpolate_schedule,
    https://optax.readthedocs.io/en/latest/api/optimizer_schedules.html.

    >>> [round(float(piecewise(jnp.float32(step), 100.0)), 3) for step in (0, 49, 50, 75)]
    [1.0, 1.0, 0.1, 0.01]
    """
    value, begin, factor = jnp.ones_like(step), jnp.zeros_like(total_steps), jnp.ones_like(step)
    points, scales = jnp.stack([first, second, third]), jnp.stack([first_scale, second_scale, third_scale])
    order = jnp.argsort(points)
    for point, scale in zip(points[order], scales[order], strict=True):
        end = jnp.round(point * total_steps)
        factor = jnp.where(step >= begin, _towards(value, value * scale, step, begin, end, between), factor)
        value, begin = value * scale, end
    return jnp.where(step >= begin, value, factor)


def _towards(
    value: jax.Array, following: jax.Array, step: jax.Array, begin: jax.Array, end: jax.Array, between: str
) -> jax.Array:
    """The curve between two points: the value stays until the second, or moves there."""
    if between == "constant":
        return value
    return {"linear": linear, "cosine": cosine}[between](value, following, part(step, begin, end))
