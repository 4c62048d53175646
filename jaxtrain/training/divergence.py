"""Divergence: finds the last finite state of a call, and the step and value that became non-finite after it."""

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
    call: TrainCall, start: TrainState, diverged: CallOutput, batches: Batches
) -> tuple[TrainState, int, CallOutput | None]:
    """Returns (state, steps, output) of the longest finite part of a call, found by replaying the same program.

    Bisects over the number of steps, since a non-finite state never becomes finite again. Nothing is replayed where
    each step was guarded: the state is the last finite one already.

    Args:
        call: the compiled call; it uses up the state that it is given.
        start: the state that the call returned, with `live` False.
        diverged: the output of the call.
        batches: the batches of the call.

    Returns:
        The last finite state, the steps up to it, and their output: None if there are none.
    """
    start = start.replace(live=jnp.ones_like(start.live))
    state = start
    finite_steps = int(np.max(diverged.kept))
    diverged_steps = int(np.max(diverged.tried))
    output = diverged if finite_steps else None
    while diverged_steps - finite_steps > 1:
        middle = (finite_steps + diverged_steps) // 2
        replayed, replayed_output = call(jax.tree.map(jnp.copy, start), batches, middle)
        if bool(np.all(replayed_output.live)):
            state = replayed
            output = replayed_output
            finite_steps = middle
        else:
            diverged_steps = middle
    return state, finite_steps, output


def explain_divergence(step: StepFunction, state: TrainState, batch: Batch, rules: Rules) -> str:
    """Describes a divergence in one line: the step, its learning rates, and the first non-finite leaf after it."""
    rejected, metrics = jax.jit(functools.partial(step, rules=rules))(state, batch)
    values = rules.schedule(state.step, state.hparams)
    rates = {name: float(values[name]) for name in values if name.endswith("learning_rate")}
    shown = ", ".join(f"{name} {rate:.4g}" for name, rate in rates.items())
    where = _describe_non_finite((*named_leaves(rejected), ("loss", metrics["loss"].sum)))
    return (
        f"diverged at step {int(state.step)}{' with ' if shown else ''}{shown}: {where} after the update, which was "
        "rejected; the last finite state is saved. Lower the learning rate, clip the gradients (optimizer.clip_norm), "
        "or find a learning rate with the learning-rate range test"
    )


def _describe_non_finite(leaves: Any) -> str:
    """Describes the first non-finite leaf of (path, leaf) pairs."""
    for path, leaf in leaves:
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and not bool(jnp.isfinite(leaf).all()):
            return f"{path} is not finite"
    return "a value that is finite in a replay of the step is not finite"
