"""The two ways in which a call of many steps keeps its state finite; both give the same numbers up to rounding.

A call is judged once, at its end, and then goes back to its start: its steps stay as fast as they are, but it holds a
copy of the state at its start, and of the parameters before its last step. Or each step is judged before its update is
kept: nothing is copied, but the update is computed twice. So small states are guarded by calls, and large ones, which
fill the memory, by steps.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxtrain.core.measures import measure_update
from jaxtrain.core.metric import Mean, Metrics
from jaxtrain.core.metric_names import SAMPLES
from jaxtrain.core.state import TrainState
from jaxtrain.core.tracing import traced_once
from jaxtrain.core.trees import is_float

TakeStep = Callable[[TrainState, jax.Array], tuple[TrainState, Metrics]]
"""(state, i) -> (next state, metrics), for step i of a call."""

Guarded = tuple[TrainState, Metrics, jax.Array, jax.Array]
"""(state, metrics stacked over steps, kept, tried).

The state is finite, and the first `kept` steps led to it. It is not live if it is known that `tried` steps diverge.
"""


def keep_finite(
    update: Callable[[Any], TrainState],
    gradients: Any,
    state: TrainState,
    metrics: Metrics,
    measure_norms: Any,
    by_layer: bool = False,
) -> tuple[TrainState, Metrics]:
    """Returns `update(gradients)`; the state as it is, not live, if that or the loss is not finite.

    Norms of the update are added to the metrics if `measure_norms`, also those of each array with `by_layer`. Metrics
    of a state that is not live are nan.
    """
    live = state.live & _all_finite((update(gradients), metrics["loss"]))

    def measure(before: Any, after: Any) -> dict[str, jax.Array]:
        return measure_update(before, after, by_layer)

    def skip(gradients: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        shapes = jax.eval_shape(measure, state.params, state.params)
        return state, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def keep(gradients: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        # Computed again, in place: XLA would have to keep an update that was judged beside the old state.
        moved = update(gradients)
        return moved, lax.cond(measure_norms, measure, lambda *_: skip(gradients)[1], state.params, moved.params)

    kept, norms = lax.cond(live, keep, skip, gradients)
    metrics |= {name: Mean(norm, jnp.asarray(measure_norms, jnp.float32)) for name, norm in norms.items()}
    metrics = {name: metric.replace(sum=_nan_unless(state.live, metric.sum)) for name, metric in metrics.items()}
    return kept.replace(live=live), metrics


def run_guarded_steps(take_step: TakeStep, state: TrainState, steps: jax.Array, capacity: int) -> Guarded:
    """Takes `steps` steps that judge their own updates; the state is the last finite one."""

    def body(carry: Any) -> Any:
        i, kept, state, stacked = carry
        state, metrics = take_step(state, i)
        return i + 1, kept + state.live.astype(jnp.int32), state, _set_row(stacked, i, metrics)

    take_step = traced_once(take_step)
    zero = jnp.zeros((), jnp.int32)
    carry = (zero, zero, state, _empty_rows(take_step, state, capacity))
    # The condition must not depend on the state: a batched one makes vmap select each lane's carry at every step.
    _, kept, end, stacked = lax.while_loop(lambda carry: carry[0] < steps, body, carry)
    return end, stacked, kept, jnp.minimum(kept + 1, steps)


def run_guarded_call(
    take_step: TakeStep, state: TrainState, steps: jax.Array, capacity: int, by_layer: bool = False
) -> Guarded:
    """Takes `steps` steps, and measures the norms of the last update; a call that diverges returns its initial state.

    Replaying the call with fewer steps gives the last finite state.
    """

    def body(carry: Any) -> Any:
        i, state, stacked = carry
        state, metrics = take_step(state, i)
        return i + 1, state, _set_row(stacked, i, metrics)

    def run_until(carry: Any, end: jax.Array) -> tuple[Any, None]:
        i, state, stacked, _ = carry
        advanced = lax.while_loop(lambda carry: carry[0] < end, body, (i, state, stacked))
        return (*advanced, state.params), None

    take_step = traced_once(take_step)
    # Two loops: all steps but the last, then the last. The parameters between them give the norm of the last update.
    # Inside the step that norm would slow every step by 5 %, since XLA would have to write out the whole update.
    start = jnp.zeros((), jnp.int32)
    carry = (start, state, _empty_rows(take_step, state, capacity), state.params)
    (_, end, stacked, before), _ = lax.scan(run_until, carry, jnp.stack([steps - 1, steps]))
    is_last = (jnp.arange(capacity) == steps - 1).astype(jnp.float32)
    measured = measure_update(before, end.params, by_layer)
    norms = {
        name: Mean(jnp.multiply.outer(is_last.astype(norm.dtype), norm), is_last) for name, norm in measured.items()
    }
    live = state.live & _all_finite((end, stacked["loss"]))
    return _select(live, end, state), stacked | norms, jnp.where(live, steps, 0), steps


def _select(live: jax.Array, new: TrainState, old: TrainState) -> TrainState:
    return jax.tree.map(lambda new, old: jnp.where(live, new, old), new, old).replace(live=live)


def _all_finite(tree: Any) -> jax.Array:
    floats = [leaf for leaf in jax.tree.leaves(tree) if is_float(leaf)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]).all()


def _nan_unless(live: jax.Array, total: jax.Array) -> jax.Array:
    return jnp.where(live, total, jnp.nan) if is_float(total) else total


def _empty_rows(take_step: TakeStep, state: TrainState, capacity: int) -> Metrics:
    """Returns the metrics of `capacity` steps, stacked and all 0; samples of gradients have one row."""
    _, shapes = jax.eval_shape(take_step, state, jnp.zeros((), jnp.int32))

    def empty(name: str, metric: Mean) -> Mean:
        rows = 1 if name == SAMPLES else capacity
        return jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), metric)

    return {name: empty(name, metric) for name, metric in shapes.items()}


def _set_row(stacked: Metrics, i: jax.Array, metrics: Metrics) -> Metrics:
    """Writes the metrics of step i; samples of gradients are those of the newest step."""

    def set_at(place: jax.Array | int, rows: Mean, row: Mean) -> Mean:
        return jax.tree.map(lambda rows, row: rows.at[place].set(row), rows, row)

    return {name: set_at(0 if name == SAMPLES else i, stacked[name], metric) for name, metric in metrics.items()}
