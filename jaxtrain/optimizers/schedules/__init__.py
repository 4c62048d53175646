"""Schedules: `value = hyperparameter * factor(step, total_steps, **knobs)`, for any hyperparameter.

Every float may be traced, so formulas branch with `jnp.where`; lengths are fractions of the run. The learning rate in
the config is the peak of a warm-up or of one-cycle, and the upper bound of a cycle. Steps count from 0.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxtrain.config.defaults import Config
from jaxtrain.config.hparams import bind_schedules
from jaxtrain.config.registry import BoundMember, Family, Product, Values
from jaxtrain.core.floats import as_floats
from jaxtrain.optimizers.schedules import plateau
from jaxtrain.optimizers.schedules.cycles import cyclic, one_cycle, sgdr
from jaxtrain.optimizers.schedules.decays import (
    exponential,
    inverse_sqrt,
    linear_decay,
    piecewise,
    polynomial,
    step_decay,
    warmup_cosine,
    warmup_stable_decay,
)
from jaxtrain.optimizers.schedules.plateau import reduce_on_plateau


@dataclass(frozen=True)
class Schedule:
    """The schedules of a run: maps (step, hparams) to a copy of hparams with the scheduled entries replaced."""

    entries: tuple[tuple[str, BoundMember], ...] = ()

    def __call__(self, step: jax.Array, hparams: Values) -> dict[str, jax.Array]:
        """Returns the values of one step, a dict of scalars."""
        total_steps = hparams["train.total_steps"]
        now = jnp.asarray(step, as_floats(total_steps).dtype)
        factors = {target: factor(hparams, now, total_steps) for target, factor in self.entries}
        return {name: value * factors[name] if name in factors else value for name, value in hparams.items()}

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the hyperparameters that follow a schedule."""
        return tuple(target for target, _ in self.entries)

    @property
    def plateaus(self) -> tuple[str, ...]:
        """The config sections of the schedules that evaluations change."""
        return tuple(factor.section for _, factor in self.entries if factor.function is reduce_on_plateau)

    @property
    def initial_plateau_state(self) -> dict[str, float]:
        """The state of those schedules before the first evaluation, as further hyperparameters."""
        initial = plateau.INITIAL_STATE
        return {f"{section}.{name}": value for section in self.plateaus for name, value in initial.items()}

    def after_evaluation(self, hparams: Values, loss: Any) -> Values:
        """Returns the hyperparameters after an evaluation; `loss` (lower is better) has the shape of each of them."""
        for section in self.plateaus:
            hparams = plateau.after_evaluation(hparams, f"{section}.", loss)
        return hparams


def constant(step: jax.Array, total_steps: jax.Array) -> jax.Array:
    """1 at every step.

    >>> float(constant(jnp.float32(7), 100.0))
    1.0
    """
    return jnp.ones_like(step)


def _is_number(built: Any) -> bool:
    return isinstance(built, int | float) or getattr(built, "shape", None) == ()


SCHEDULES = Family(
    "schedule",
    {
        "constant": constant,
        "linear": linear_decay,
        "polynomial": polynomial,
        "exponential": exponential,
        "inverse_sqrt": inverse_sqrt,
        "step": step_decay,
        "piecewise": piecewise,
        "warmup_cosine": warmup_cosine,
        "warmup_stable_decay": warmup_stable_decay,
        "one_cycle": one_cycle,
        "cyclic": cyclic,
        "sgdr": sgdr,
        "reduce_on_plateau": reduce_on_plateau,
    },
    supplied=("step", "total_steps"),
    product=Product("the value at a step, one number", _is_number),
)


def schedule_of(config: Config) -> Schedule:
    """Builds the schedules of a config."""
    return Schedule(bind_schedules(config))
