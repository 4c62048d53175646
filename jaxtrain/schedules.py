"""Schedules: factors in time. `value = hyperparameter * factor(step, total_steps, **knobs)`, for any hyperparameter.

Every knob is a float and may be swept, so the formulas are `jnp.where` arithmetic; lengths are fractions of the run.
The rate in the config is the peak of a warm-up or of one-cycle, and the upper bound of a cycle. Steps count from 0.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from jaxtrain.families import Bound, Family, Values
from jaxtrain.knobs import Fraction, NonNegative, Positive


@dataclass(frozen=True)
class Schedule:
    """The schedules of a run: called with (step, hparams), a copy of hparams with the scheduled entries replaced."""

    entries: tuple[tuple[str, Bound], ...] = ()

    def __call__(self, step: jax.Array, hparams: Values) -> dict[str, jax.Array]:
        """Returns this step's values, a dict of float32 scalars."""
        total_steps = hparams["train.total_steps"]
        now = jnp.asarray(step, jnp.float32)
        factors = {target: factor(hparams, now, total_steps) for target, factor in self.entries}
        return {name: value * factors[name] if name in factors else value for name, value in hparams.items()}

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the hyperparameters that follow a schedule."""
        return tuple(target for target, _ in self.entries)


def constant(step: jax.Array, total_steps: jax.Array) -> jax.Array:
    """1 at every step."""
    return jnp.ones_like(step)


def warmup_cosine(
    step: jax.Array, total_steps: jax.Array, warmup: Fraction = 0.05, start: NonNegative = 0.0, end: NonNegative = 0.0
) -> jax.Array:
    """Linear from `start` to 1 over the first part `warmup` of the run, then half a cosine down to `end`.

    Loshchilov and Hutter (2017), https://arxiv.org/abs/1608.03983; equals optax's warmup_cosine_decay_schedule.
    """
    warmup_steps = warmup * total_steps
    rising = _linear(start, 1.0, _part(step, 0.0, warmup_steps))
    return jnp.where(step < warmup_steps, rising, _cosine(1.0, end, _part(step, warmup_steps, total_steps)))


def one_cycle(
    step: jax.Array,
    total_steps: jax.Array,
    warmup: Fraction = 0.3,
    start: NonNegative = 0.04,
    peak: NonNegative = 1.0,
    end: NonNegative = 4e-6,
    anneal: Literal["cosine", "linear"] = "cosine",
) -> jax.Array:
    """From `start` to `peak` over the first part `warmup` of the run, then to `end`.

    For the momentum, which moves against the rate, take a peak below 1: `start=1, peak=0.9, end=1`. The defaults are
    those of optax's cosine_onecycle_schedule. Smith and Topin (2018), https://arxiv.org/abs/1708.07120.
    """
    blend = {"cosine": _cosine, "linear": _linear}[anneal]
    top = warmup * total_steps
    return jnp.where(
        step < top, blend(start, peak, _part(step, 0.0, top)), blend(peak, end, _part(step, top, total_steps))
    )


def cyclic(
    step: jax.Array,
    total_steps: jax.Array,
    cycles: Positive = 4.0,
    low: Fraction = 0.1,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: Fraction = 0.999,
) -> jax.Array:
    """Triangles between `low` and 1, `cycles` of them in the run.

    `triangular2` halves the height with each cycle, `exp_range` shrinks it by `gamma` to the power of the step.
    Smith (2017), https://arxiv.org/abs/1506.01186.
    """
    position = step * cycles / total_steps
    cycle = jnp.floor(position)
    height = 1.0 - jnp.abs(2.0 * (position - cycle) - 1.0)
    scale = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": gamma**step}[mode]
    return low + (1.0 - low) * height * scale


def _part(step: jax.Array, begin: jax.Array | float, end: jax.Array | float) -> jax.Array:
    """How much of the way from `begin` to `end` is done, 0 to 1; an empty way is done at once."""
    return jnp.clip((step - begin) / jnp.maximum(end - begin, 1e-6), 0.0, 1.0)


def _linear(begin: jax.Array | float, end: jax.Array | float, part: jax.Array) -> jax.Array:
    return begin + (end - begin) * part


def _cosine(begin: jax.Array | float, end: jax.Array | float, part: jax.Array) -> jax.Array:
    return end + (begin - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * part))


SCHEDULES = Family(
    "schedule",
    {"constant": constant, "warmup_cosine": warmup_cosine, "one_cycle": one_cycle, "cyclic": cyclic},
    supplied=("step", "total_steps"),
)
