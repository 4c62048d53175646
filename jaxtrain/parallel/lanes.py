"""Many runs as lanes of one program: their initial states, calls and evaluations. `Population` compiles them.

Lanes are the outer loop, steps the inner one. At width 1 lanes are taken one after another: each equals its solo run
bit for bit, and a dead lane costs nothing. At larger widths lanes are vmapped, which is faster on a GPU, and results
differ by rounding.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxtrain.core.batches import Batches
from jaxtrain.core.metric import Metrics
from jaxtrain.core.state import Batch, Rules, TrainState, init_state
from jaxtrain.core.steps import CallOutput, StepFunction, eval_call, train_call, train_step


def lane_inits(
    lanes: tuple[jax.Array, Mapping[str, jax.Array]], batch: Batch, *, rules: Rules, share: bool = False
) -> TrainState:
    """Makes the states of (seeds (lanes,), hparams name -> (lanes,)), each equal to that of its solo run.

    With `share` they are made without the frozen parameters.
    """

    def init(lane: tuple[jax.Array, Mapping[str, jax.Array]]) -> TrainState:
        state = init_state(jax.random.key(lane[0]), batch, lane[1], rules=rules)
        return state.replace(frozen=None) if share else state

    return lax.map(init, lanes)


def lane_calls(
    states: TrainState,
    frozen: Any,
    batches: Batches,
    steps: jax.Array,
    *,
    rules: Rules,
    step: StepFunction = train_step,
    width: int = 1,
) -> tuple[TrainState, CallOutput]:
    """Makes `train_call` for every lane, `width` at a time; leaves of `states` have a leading lane axis.

    `frozen` are the parameters that all lanes share, or None.
    """

    def call(lane: tuple[TrainState, Any], steps: jax.Array) -> tuple[TrainState, CallOutput]:
        state, own = lane
        state, output = train_call(with_frozen(state, frozen), batches.of_lane(own), steps, rules=rules, step=step)
        return without_frozen(state, frozen), output

    return _map_live(call, (states, batches.own), states.live, steps, width)


def lane_evals(
    lanes: tuple[TrainState, Metrics | None], frozen: Any, batches: Batches, *, rules: Rules, width: int = 1
) -> Metrics:
    """Evaluates the batches in every live lane of (states, totals), `width` at a time; adds the metrics to the totals.

    Sums and counts have a leading lane axis. `frozen` are the parameters that all lanes share, or None.
    """

    def call(lane: tuple[tuple[TrainState, Metrics | None], Any], count: jax.Array) -> Metrics:
        (state, total), own = lane
        return eval_call(with_frozen(state, frozen), batches.of_lane(own), total, count, rules=rules)

    states, _ = lanes
    return _map_live(call, (lanes, batches.own), states.live, batches.capacity, width)


def with_frozen(state: TrainState, frozen: Any) -> TrainState:
    """Returns the state of a lane with the frozen parameters that all lanes share; as it is where they share none."""
    return state if frozen is None else state.replace(frozen=frozen)


def without_frozen(state: TrainState, frozen: Any) -> TrainState:
    """Inverts `with_frozen`."""
    return state if frozen is None else state.replace(frozen=None)


def _map_live(
    call: Callable[[Any, jax.Array], Any], lanes: Any, live: jax.Array, count: jax.Array | int, width: int
) -> Any:
    """Applies `call(lane, count)` to `width` lanes at a time, vmapped for a width above 1.

    `count` is 0 where all lanes of a chunk are dead. In a mixed chunk the dead ones take the steps of the others, too.
    """

    def take(chunk: tuple[Any, jax.Array], call: Callable[[Any, jax.Array], Any]) -> Any:
        lanes, live = chunk
        return call(lanes, jnp.where(live.any(), count, 0))

    if width == 1:
        return lax.map(lambda chunk: take(chunk, call), (lanes, live))
    vmapped = jax.vmap(call, in_axes=(0, None))
    if width >= len(live):
        return take((lanes, live), vmapped)
    chunks = jax.tree.map(lambda leaf: leaf.reshape(len(live) // width, width, *leaf.shape[1:]), (lanes, live))
    outputs = lax.map(lambda chunk: take(chunk, vmapped), chunks)
    return jax.tree.map(lambda leaf: leaf.reshape(len(live), *leaf.shape[2:]), outputs)
