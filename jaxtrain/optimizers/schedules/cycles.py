"""Cyclic schedules: one-cycle, triangular cycles, and cosine decay with restarts."""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from jaxtrain.config.schema import Bounds, Count, Fraction, NonNegative, Positive
from jaxtrain.optimizers.schedules.curves import cosine, linear, progress


def one_cycle(
    step: jax.Array,
    total_steps: jax.Array,
    warmup: Fraction = 0.3,
    start: NonNegative = 0.04,
    peak: NonNegative = 1.0,
    end: NonNegative = 4e-6,
    anneal: Literal["cosine", "linear"] = "cosine",
) -> jax.Array:
    """Rises from `start` to `peak` over the first fraction `warmup` of the run, then falls to `end`.

    For momentum, which moves opposite to the rate, use a peak below 1: `start=1, peak=0.9, end=1`. The defaults are
    those of optax's cosine_onecycle_schedule. Smith and Topin (2018), https://arxiv.org/abs/1708.07120.

    >>> [round(float(one_cycle(jnp.float32(step), 100.0)), 2) for step in (0, 30, 65, 100)]
    [0.04, 1.0, 0.5, 0.0]
    """
    curve = {"cosine": cosine, "linear": linear}[anneal]
    top = warmup * total_steps
    rise = curve(start, peak, progress(step, 0.0, top))
    fall = curve(peak, end, progress(step, top, total_steps))
    return jnp.where(step < top, rise, fall)


def cyclic(
    step: jax.Array,
    total_steps: jax.Array,
    cycles: Positive = 4.0,
    low: Fraction = 0.1,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: Fraction = 0.999,
) -> jax.Array:
    """Triangular cycles between `low` and 1, `cycles` of them in the run.

    `triangular2` halves the height with each cycle, `exp_range` multiplies it by `gamma` to the power of the step.
    Smith (2017), https://arxiv.org/abs/1506.01186.

    >>> [round(float(cyclic(jnp.float32(step), 100.0)), 2) for step in (0, 12.5, 25)]
    [0.1, 1.0, 0.1]
    """
    position = step * cycles / total_steps
    cycle = jnp.floor(position)
    height = 1.0 - jnp.abs(2.0 * (position - cycle) - 1.0)
    scale = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": gamma**step}[mode]
    return low + (1.0 - low) * height * scale


def sgdr(
    step: jax.Array,
    total_steps: jax.Array,
    cycles: Count = 4,
    multiplier: Annotated[float, Bounds(1)] = 2.0,
    shrink: NonNegative = 1.0,
    end: NonNegative = 0.0,
) -> jax.Array:
    """Cosine decay from 1 to `end` with warm restarts: `cycles` fill the run, each `multiplier` times as long.

    Each cycle begins at `shrink` times the height of the previous one; cycles shorter than a step are skipped.
    Loshchilov and Hutter (2017), https://arxiv.org/abs/1608.03983; equals optax's sgdr_schedule.

    >>> [round(float(sgdr(jnp.float32(step), 150.0)), 2) for step in (0, 5, 10, 20, 30)]
    [1.0, 0.5, 1.0, 0.5, 1.0]
    """
    # Lengths are relative to the last cycle, since powers of the multiplier could overflow float32.
    lengths = jnp.cumprod(jnp.full(cycles, 1.0 / multiplier).at[0].set(1.0))[::-1]
    ends = jnp.round(jnp.cumsum(lengths) * total_steps / lengths.sum())  # cycles begin at whole steps
    begins = jnp.concatenate([jnp.zeros(1), ends[:-1]])
    cycle = jnp.sum(jnp.asarray(step)[..., None] >= ends[:-1], axis=-1)
    return cosine(shrink ** cycle.astype(step.dtype), end, progress(step, begins[cycle], ends[cycle]))
