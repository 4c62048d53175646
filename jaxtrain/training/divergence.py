"""Divergence: the last finite state of a call that left the finite numbers, and what the next step did to it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.batches import Batches
from jaxtrain.core.state import Batch, Rules, TrainState
from jaxtrain.core.steps import CallOutput, StepFunction
from jaxtrain.core.trees import named_leaves
from jaxtrain.parallel.mesh import TrainCall


def find_last_finite(
    call: TrainCall, start: TrainState, batches: Batches, steps: int
) -> tuple[TrainState, int, CallOutput | None]:
    """Returns (state, steps, output) of the longest part of a call that stays finite, by replays of the same program.

    `start` is the state that the call returned, the one it began with; what is not finite stays so, hence a bisection.
    The output is None where the first step already left the finite numbers.
    """
    start = start.replace(live=jnp.ones_like(start.live))
    finite, steps_finite, steps_not, measured = start, 0, steps, None
    while steps_not - steps_finite > 1:
        middle = (steps_finite + steps_not) // 2
        state, output = call(jax.tree.map(jnp.copy, start), batches, middle)
        if bool(np.all(output.live)):
            finite, steps_finite, measured = state, middle, output
        else:
            steps_not = middle
    return finite, steps_finite, measured


def explain_divergence(step: StepFunction, state: TrainState, batch: Batch, rules: Rules) -> str:
    """Says in one line which step left the finite numbers, at which rate, and where the rejected update first shows."""
    rejected, metrics = jax.jit(functools.partial(step, rules=rules))(state, batch)
    values = rules.schedule(state.step, state.hparams)
    rates = {name: float(values[name]) for name in values if name.endswith("learning_rate")}
    shown = ", ".join(f"{name} {rate:.4g}" for name, rate in rates.items()) or "its values"
    where = _first_non_finite((*named_leaves(rejected), ("loss", metrics["loss"].sum)))
    return (
        f"diverged at step {int(state.step)} with {shown}: {where} is not finite after the update, which was rejected; "
        "the state before it is saved. Lower the rate, clip the gradients (optimizer.clip_norm), or find a rate with "
        "the learning-rate range test"
    )


def _first_non_finite(leaves: Any) -> str:
    for path, leaf in leaves:
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and not bool(jnp.isfinite(leaf).all()):
            return path
    return "nothing that a replay shows"
