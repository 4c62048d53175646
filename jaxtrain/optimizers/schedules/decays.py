"""Schedules that decay over the run, most of them after an optional linear warm-up.

In the formulas t is the completed fraction, 0 to 1, of the run after the warm-up.
"""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from jaxtrain.config.schema import Bounds, Fraction, NonNegative, Positive
from jaxtrain.optimizers.schedules.curves import cosine, linear, progress, root, warmup_then, warmup_then_curve


def warmup_cosine(
    step: jax.Array, total_steps: jax.Array, warmup: Fraction = 0.05, start: NonNegative = 0.0, end: NonNegative = 0.0
) -> jax.Array:
    """Linear warm-up from `start` to 1 over the first fraction `warmup` of the run, then cosine decay to `end`.

    Loshchilov and Hutter (2017), https://arxiv.org/abs/1608.03983; equals optax's warmup_cosine_decay_schedule.

    >>> [round(float(warmup_cosine(jnp.float32(step), 100.0)), 2) for step in (0, 5, 50, 100)]
    [0.0, 1.0, 0.54, 0.0]
    """
    return warmup_then_curve(step, total_steps, warmup, start, lambda done: cosine(1.0, end, done))


def linear_decay(
    step: jax.Array, total_steps: jax.Array, warmup: Fraction = 0.0, start: NonNegative = 0.0, end: NonNegative = 0.0
) -> jax.Array:
    """Linear decay to `end`, after a warm-up from `start` over the first fraction `warmup` of the run.

    1 - (1 - end) t. Defazio et al. (2023), https://arxiv.org/abs/2310.07831; equals optax's
    warmup_constant_schedule joined to its linear_schedule.

    >>> [round(float(linear_decay(jnp.float32(step), 100.0, warmup=0.1)), 2) for step in (0, 10, 55, 100)]
    [0.0, 1.0, 0.5, 0.0]
    """
    return warmup_then_curve(step, total_steps, warmup, start, lambda done: linear(1.0, end, done))


def polynomial(
    step: jax.Array,
    total_steps: jax.Array,
    power: Positive = 2.0,
    warmup: Fraction = 0.0,
    start: NonNegative = 0.0,
    end: NonNegative = 0.0,
) -> jax.Array:
    """Polynomial decay to `end`: a power of the remaining fraction of the run.

    end + (1 - end) (1 - t)^power, after a warm-up from `start` over the first fraction `warmup` of the run.
    Chen et al. (2018), https://arxiv.org/abs/1606.00915; equals optax's polynomial_schedule.

    >>> [round(float(polynomial(jnp.float32(step), 100.0)), 2) for step in (0, 50, 90, 100)]
    [1.0, 0.25, 0.01, 0.0]
    """
    return warmup_then_curve(step, total_steps, warmup, start, lambda done: end + (1.0 - end) * (1.0 - done) ** power)


def exponential(
    step: jax.Array,
    total_steps: jax.Array,
    end: Positive = 0.01,
    warmup: Fraction = 0.0,
    start: NonNegative = 0.0,
) -> jax.Array:
    """Exponential decay to `end`: the same ratio at each step.

    end^t, after a warm-up from `start` over the first fraction `warmup` of the run. Equals optax's exponential_decay,
    https://optax.readthedocs.io/en/latest/api/optimizer_schedules.html.

    >>> [round(float(exponential(jnp.float32(step), 100.0)), 3) for step in (0, 50, 100)]
    [1.0, 0.1, 0.01]
    """
    return warmup_then_curve(step, total_steps, warmup, start, lambda done: end**done)


def inverse_sqrt(
    step: jax.Array,
    total_steps: jax.Array,
    warmup: Annotated[float, Bounds(0, 1, open_low=True)] = 0.05,
    start: NonNegative = 0.0,
) -> jax.Array:
    """Linear warm-up from `start` to 1 over the first fraction `warmup` of the run, then inverse square root decay.

    √(warmup steps / step), which does not depend on the length of the run. Vaswani et al. (2017), https://arxiv.org/abs/1706.03762.

    >>> [round(float(inverse_sqrt(jnp.float32(step), 100.0, warmup=0.04)), 2) for step in (0, 4, 16, 100)]
    [0.0, 1.0, 0.5, 0.2]
    """
    warmup_steps = warmup * total_steps
    return warmup_then(step, warmup_steps, start, jnp.sqrt(warmup_steps / jnp.maximum(step, warmup_steps)))


def warmup_stable_decay(
    step: jax.Array,
    total_steps: jax.Array,
    warmup: Fraction = 0.05,
    decay: Fraction = 0.2,
    start: NonNegative = 0.0,
    end: NonNegative = 0.0,
    shape: Literal["linear", "cosine", "root"] = "linear",
) -> jax.Array:
    """Linear warm-up from `start` to 1, then constant, then decay to `end` over the last fraction `decay` of the run.

    The decay begins after the warm-up at the earliest. With s its completed fraction, `shape` is linear,
    1 - (1 - end) s, cosine, or root, 1 - (1 - end) √s. A `decay` of 0 is a warm-up alone. Hu et al. (2024),
    https://arxiv.org/abs/2404.06395; the root by Hägele et al. (2024), https://arxiv.org/abs/2405.18392.

    >>> [round(float(warmup_stable_decay(jnp.float32(step), 100.0)), 2) for step in (0, 5, 80, 90, 100)]
    [0.0, 1.0, 1.0, 0.5, 0.0]
    """
    curve = {"linear": linear, "cosine": cosine, "root": root}[shape]
    stable_until = jnp.maximum(1.0 - decay, warmup) * total_steps
    # With a decay of 0 the last step of the run would otherwise be at `end`.
    done = jnp.where(decay > 0.0, progress(step, stable_until, total_steps), 0.0)
    return warmup_then(step, warmup * total_steps, start, curve(1.0, end, done))


def step_decay(step: jax.Array, total_steps: jax.Array, stages: Positive = 3.0, gamma: NonNegative = 0.1) -> jax.Array:
    """Step decay: the run in `stages` of equal length, each at `gamma` times the previous one.

    gamma^⌊stages step / total steps⌋, where stages begin at the nearest whole step. He et al. (2016),
    https://arxiv.org/abs/1512.03385; equals optax's exponential_decay with a staircase.

    >>> [round(float(step_decay(jnp.float32(step), 90.0)), 3) for step in (0, 29, 30, 60)]
    [1.0, 1.0, 0.1, 0.01]
    """
    # Half a step is added so that rounding of the quotient cannot move the first step of a stage into the previous one.
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
    """Multiplies by a scale at each of three points, given as fractions of the run, in any order.

    `between` the points the factor is constant, or moves to the next value linearly or along half a cosine wave. A
    point at 1 with a scale of 1 has no effect. Equals optax's piecewise_constant_schedule and
    piecewise_interpolate_schedule, https://optax.readthedocs.io/en/latest/api/optimizer_schedules.html.

    >>> [round(float(piecewise(jnp.float32(step), 100.0)), 3) for step in (0, 49, 50, 75)]
    [1.0, 1.0, 0.1, 0.01]
    """
    value = jnp.ones_like(step)
    factor = jnp.ones_like(step)
    begin = jnp.zeros_like(total_steps)
    points = jnp.stack([first, second, third])
    scales = jnp.stack([first_scale, second_scale, third_scale])
    order = jnp.argsort(points)
    for point, scale in zip(points[order], scales[order], strict=True):
        end = jnp.round(point * total_steps)
        next_value = value * scale
        factor = jnp.where(step >= begin, _interpolate(value, next_value, step, begin, end, between), factor)
        value = next_value
        begin = end
    return jnp.where(step >= begin, value, factor)


def _interpolate(
    value: jax.Array, next_value: jax.Array, step: jax.Array, begin: jax.Array, end: jax.Array, between: str
) -> jax.Array:
    """Returns the factor between two points: constant until the second, or moving to its value."""
    if between == "constant":
        return value
    return {"linear": linear, "cosine": cosine}[between](value, next_value, progress(step, begin, end))
