"""Averaged parameters: those of `train.ema`, and those that a schedule-free optimizer keeps."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import ScheduleFreeState

from jaxtrain.config.registry import Values
from jaxtrain.core.state import TrainState


def schedule_free_average(opt_state: Any, params: Any) -> Any:
    """Returns the parameters that a model is used by: x where the optimizer is schedule-free, else `params`."""
    states = _states(opt_state)
    if not states:
        return params
    (state,) = states
    # Frozen parameters have no z.
    return jax.tree.map(
        lambda z, y: y if isinstance(z, optax.MaskedNode) else schedule_free_x(y, z, state.b1),
        state.z,
        params,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )


def schedule_free_x(y: Any, z: Any, b1: Any) -> Any:
    """Works x out from y and z."""
    return (y - (1.0 - b1) * z) / b1


def is_schedule_free(opt_state: Any) -> bool:
    """Tells whether an optimizer of this state keeps an average."""
    return bool(_states(opt_state))


def _states(opt_state: Any) -> list[ScheduleFreeState]:
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, ScheduleFreeState))
    return [node for node in nodes if isinstance(node, ScheduleFreeState)]


def evaluation_weights(state: TrainState) -> tuple[Any, Any]:
    """Returns the (params, model_state) that a model is judged and used by: the averaged ones where there are any.

    Those of `train.ema`, else those that a schedule-free optimizer keeps.
    """
    return state.ema or (schedule_free_average(state.opt_state, state.params), state.model_state)


def update_average(state: TrainState, current: Any, values: Values) -> Any:
    """Moves the averaged parameters and statistics towards the current ones.

    The decay is at most (1 + step) / (10 + step), so that the initial weights do not linger in the average.
    """
    if state.ema is None:
        return None
    step = state.step.astype(jnp.float32)
    decay = jnp.minimum(values["train.ema"], (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: (old + (1.0 - decay) * (new - old)).astype(old.dtype), state.ema, current)
