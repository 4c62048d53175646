"""Averaged parameters: the moving average of `train.ema` and the average x of a schedule-free optimizer."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import ScheduleFreeState

from jaxtrain.config.registry import Values
from jaxtrain.core.frozen import join_params
from jaxtrain.core.state import TrainState


def schedule_free_average(opt_state: Any, params: Any) -> Any:
    """Returns the averaged parameters x of a schedule-free optimizer; `params` for any other optimizer."""
    states = _schedule_free_states(opt_state)
    if not states:
        return params
    (state,) = states
    # Parameters that the optimizer does not see are masked: they have no z.
    return jax.tree.map(
        lambda z, y: y if isinstance(z, optax.MaskedNode) else schedule_free_x(y, z, state.b1),
        state.z,
        params,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )


def schedule_free_x(y: Any, z: Any, b1: Any) -> Any:
    """Solves y = (1 - b1) z + b1 x for x."""
    return (y - (1.0 - b1) * z) / b1


def is_schedule_free(opt_state: Any) -> bool:
    """Tells whether the state is that of a schedule-free optimizer."""
    return bool(_schedule_free_states(opt_state))


def _schedule_free_states(opt_state: Any) -> list[ScheduleFreeState]:
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, ScheduleFreeState))
    return [node for node in nodes if isinstance(node, ScheduleFreeState)]


def evaluation_weights(state: TrainState) -> tuple[Any, Any]:
    """Returns the (params, model_state) for evaluation and prediction, frozen parameters among them.

    These are the moving averages of `train.ema` if the run keeps them, else a schedule-free optimizer's averaged
    parameters, else the current ones.
    """
    trained, model_state = state.ema or (schedule_free_average(state.opt_state, state.params), state.model_state)
    return join_params(trained, state.frozen), model_state


def update_average(state: TrainState, current: Any, values: Values) -> Any:
    """Updates the exponential moving average of (params, model_state); returns None for a run without one.

    average + (1 - decay) (current - average), with the decay `train.ema`, but at most (1 + step) / (10 + step), so that
    the initial weights do not dominate the average early on.
    """
    if state.ema is None:
        return None
    step = state.step.astype(values["train.ema"].dtype)
    decay = jnp.minimum(values["train.ema"], (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: (old + (1.0 - decay) * (new - old)).astype(old.dtype), state.ema, current)
