"""The population: many runs, called lanes, trained on the same batches by one program.

Each lane has hyperparameters and a seed of its own. Each device takes an equal share of the lanes, without
communication, and makes a call for `width` lanes at a time: lanes are the outer loop, steps the inner one. At width 1,
a lane equals its solo run bit for bit, and a dead lane costs nothing. At larger widths lanes are vmapped, which is
faster on a GPU, and results differ by rounding.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtrain.config.registry import Values
from jaxtrain.core.batches import Batches, pieces_of
from jaxtrain.core.frozen import SharedByLanes, map_lanes, put_shared, take_shared
from jaxtrain.core.metric import Metrics
from jaxtrain.core.state import Batch, Rules, TrainState, init_state
from jaxtrain.core.steps import CallOutput, StepFunction, eval_call, train_call, train_step
from jaxtrain.errors import ConfigError
from jaxtrain.parallel.memory import plan_memory
from jaxtrain.parallel.mesh import (
    Devices,
    compile_init,
    compile_lanes,
    lane_shapes,
    pick_lanes,
    replace_lane,
    replicated_shapes,
    shard_lanes,
)


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

    def call(lane: tuple[TrainState, Any], batches: Batches, steps: jax.Array) -> tuple[TrainState, CallOutput]:
        state, own = lane
        state, output = train_call(_with_frozen(state, frozen), batches.of_lane(own), steps, rules=rules, step=step)
        return _without_frozen(state, frozen), output

    def chunk(lanes: tuple[TrainState, Any], call: Callable[..., Any]) -> tuple[TrainState, CallOutput]:
        # Take no steps if all lanes of the chunk are dead. In a mixed chunk, vmap steps the dead lanes, too.
        return call(lanes, batches, jnp.where(lanes[0].live.any(), steps, 0))

    return _map_lanes(chunk, call, (None, None), (states, batches.own), width)


_Evaluated = tuple[tuple[TrainState, Metrics | None], Any]
"""State and totals of a lane, or of several along a leading axis, and rows and mask of its own batches."""


def lane_evals(
    lanes: tuple[TrainState, Metrics | None], frozen: Any, batches: Batches, *, rules: Rules, width: int = 1
) -> Metrics:
    """Evaluates the batches in every live lane of (states, totals), `width` at a time; adds the metrics to the totals.

    Sums and counts have a leading lane axis. `frozen` are the parameters that all lanes share, or None.
    """

    def call(lane: _Evaluated, batches: Batches, count: jax.Array) -> Metrics:
        (state, total), own = lane
        return eval_call(_with_frozen(state, frozen), batches.of_lane(own), total, count, rules=rules)

    def chunk(lanes: _Evaluated, call: Callable[..., Any]) -> Metrics:
        # Evaluate nothing if all lanes of the chunk are dead, as in lane_calls.
        (states, _), _ = lanes
        return call(lanes, batches, jnp.where(states.live.any(), batches.capacity, 0))

    return _map_lanes(chunk, call, (None, None), (lanes, batches.own), width)


def _with_frozen(state: TrainState, frozen: Any) -> TrainState:
    return state if frozen is None else state.replace(frozen=frozen)


def _without_frozen(state: TrainState, frozen: Any) -> TrainState:
    return state if frozen is None else state.replace(frozen=None)


def _map_lanes(
    chunk: Callable[[Any, Callable[..., Any]], Any],
    call: Callable[..., Any],
    shared: tuple[None, ...],
    lanes: Any,
    width: int,
) -> Any:
    """Applies `chunk(lanes, call)` to `width` lanes at a time; `call` takes one lane, and is vmapped for width > 1."""
    if width == 1:
        return lax.map(lambda lane: chunk(lane, call), lanes)
    vmapped = jax.vmap(call, in_axes=(0, *shared))
    count = len(jax.tree.leaves(lanes)[0])
    if width >= count:
        return chunk(lanes, vmapped)
    chunks = jax.tree.map(lambda leaf: leaf.reshape(count // width, width, *leaf.shape[1:]), lanes)
    outputs = lax.map(lambda lanes: chunk(lanes, vmapped), chunks)
    return jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), outputs)


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


@dataclass(frozen=True)
class Population:
    """Programs that initialise, train and evaluate `lanes` runs on the devices, `width` lanes at a time on each.

    Rules and step are those of a solo run. States have a leading axis of `padded` lanes, a multiple of the lanes that
    all devices take at a time. Each device has as many of the `lanes`, but for one, and after them padding: dead copies
    of the last lane, which `fetch` removes.
    min_lanes: lower limit of the lanes that the program is compiled for, so that fewer lanes share a program.
    share_frozen: whether the lanes share the frozen parameters, which `init` then makes from the first lane's seed.
    They are held once on each device, without a lane axis.
    """

    rules: Rules
    mesh: Devices
    lanes: int
    width: int = 1
    step: StepFunction = train_step
    min_lanes: int = 0
    share_frozen: bool = False

    @property
    def padded(self) -> int:
        """Number of lanes of the states, with padding."""
        chunks = -(-self._share // self.effective_width)
        return self.mesh.size * chunks * self.effective_width

    @property
    def effective_width(self) -> int:
        """Number of lanes that a device takes at a time: `width`, but at most its share."""
        return min(self.width, self._share)

    @property
    def padding_is_free(self) -> bool:
        """Whether lanes of padding take no time, as dead lanes that are taken one by one."""
        return self.effective_width == 1

    @property
    def _share(self) -> int:
        """Number of lanes of each device, before padding to a multiple of the width."""
        return -(-max(self.lanes, self.min_lanes) // self.mesh.size)

    def init(self, seeds: Any, hparams: Mapping[str, Any], example: Batch) -> TrainState:
        """Makes the initial states; seeds and hyperparameters are numbers, or sequences with one value per lane."""
        lanes = self._broadcast(seeds, hparams)
        states = self._init(self.spread(lanes), example)
        if self.share_frozen:
            first = compile_init(self.rules, self.mesh)(jax.random.key(lanes[0][0]), example, _first_of(lanes[1]))
            states = states.replace(frozen=SharedByLanes(first.frozen))
        return self._kill_padding(states)

    def call(self, states: TrainState, batches: Batches, steps: int) -> tuple[TrainState, CallOutput]:
        """Takes up to k steps in every live lane; the given states are donated.

        Lanes share the batches, or each has its own. The output includes the padding: read it through `fetch`.
        """
        own, frozen = take_shared(states)
        own, output = self._train_call(own, frozen, self._pad(batches), np.int32(steps))
        return put_shared(own, frozen), output

    def evaluate(self, states: TrainState, batches: Batches | Iterable[Batches]) -> Metrics:
        """Evaluates the batches, which may come in pieces, in every lane; read the metrics through `fetch`."""
        evals = compile_lanes(lane_evals, self.rules, self.mesh, width=self.effective_width)
        own, frozen = take_shared(states)
        total = None
        for piece in pieces_of(batches):
            total = evals((own, total), frozen, self._pad(piece))
        assert total is not None
        return total

    def fetch(self, tree: Any) -> Any:
        """Copies states, outputs or metrics to the host, without the padding."""
        on_host = jax.device_get(tree)
        if self.padded == self.lanes:
            return on_host
        return map_lanes(lambda leaf: leaf[self._places], on_host)  # a copy: a slice would hold the padding in memory

    def gather(self, states: TrainState, lanes: Sequence[int]) -> tuple["Population", TrainState]:
        """Returns a smaller population of the given lanes, in this order, and its states."""
        smaller = replace(self, lanes=len(lanes), min_lanes=0)
        order = self._places[np.asarray(lanes)[smaller._padded_order()]]
        return smaller, smaller._kill_padding(self._pick(states, order))

    def with_lanes(self, lanes: int) -> "Population":
        """Returns a population of `lanes` lanes, at most those of this one, that runs the same program."""
        return replace(self, lanes=lanes, min_lanes=self.padded)

    def copy(self, states: TrainState, source: Sequence[int], destination: Sequence[int]) -> TrainState:
        """Copies lanes `source` over lanes `destination`, including their hyperparameters and keys."""
        order = np.arange(self.padded)
        order[self._places[np.asarray(destination)]] = self._places[np.asarray(source)]
        return self._pick(states, order)

    def _pick(self, states: TrainState, order: np.ndarray) -> TrainState:
        own, frozen = take_shared(states)
        return put_shared(pick_lanes(own, order, self.mesh), frozen)

    def replace_lane(self, states: TrainState, lane: int, single: TrainState) -> TrainState:
        """Overwrites one lane by the state of a solo run."""
        own, frozen = take_shared(states)
        place = int(self._places[lane])
        return put_shared(replace_lane(own, place, _without_frozen(single, frozen), self.mesh), frozen)

    def edit(self, states: TrainState, edit: Callable[[Values], Values]) -> TrainState:
        """Changes the hyperparameters of live lanes on the host; `edit` maps name -> (lanes,) to new values."""
        live, before = self.fetch((states.live, states.hparams))
        after = {name: np.where(live, values, before[name]) for name, values in edit(before).items()}
        padded = {name: np.asarray(values, np.float32)[self._padded_order()] for name, values in after.items()}
        return states.replace(hparams=self.spread(padded))

    def place(self, states: Any) -> TrainState:
        """Copies states of `lanes` lanes from the host to the devices, and adds the padding."""
        padded = map_lanes(lambda leaf: np.asarray(leaf)[self._padded_order()], states)
        return self._kill_padding(self.spread(padded))

    def spread(self, tree: Any) -> Any:
        """Shards a tree with a leading axis of `padded` lanes over the devices, like the states."""
        return shard_lanes(tree, self.mesh)

    def fetch_lane(self, states: TrainState, lane: int) -> TrainState:
        """Copies the state of one lane to the host, in the form of a solo run's state."""
        own, frozen = take_shared(states)
        place = int(self._places[lane])
        return _with_frozen(jax.tree.map(lambda leaf: np.asarray(leaf[place]), own), jax.device_get(frozen))

    def plan_bytes(self, hparams: Mapping[str, Any], batches: Batches) -> int:
        """Returns the bytes that a call needs on each device, by XLA's memory analysis; runs nothing.

        Data that are on the devices already are not counted. 0 if the backend gives no memory analysis.
        """
        planned = plan_memory(self.plan_call(hparams, batches))
        resident = sum(leaf.nbytes for leaf in jax.tree.leaves(batches.data) if isinstance(leaf, jax.Array))
        return planned.total - resident if planned else 0

    def plan_call(self, hparams: Mapping[str, Any], batches: Batches) -> Any:
        """Compiles the program of `call` for the shapes of batches; runs nothing."""
        lanes = self._broadcast(0, hparams)
        states = lane_shapes(jax.eval_shape(self._init, lanes, batches.example), self.mesh)
        frozen = (
            replicated_shapes(self._frozen_shapes(lanes, batches.example), self.mesh) if self.share_frozen else None
        )
        return self._train_call.lower(states, frozen, self._pad(batches), np.int32(1)).compile()

    @property
    def _init(self) -> Any:
        return compile_lanes(lane_inits, self.rules, self.mesh, share=self.share_frozen)

    def _frozen_shapes(self, lanes: tuple[np.ndarray, Mapping[str, np.ndarray]], example: Batch) -> Any:
        init = functools.partial(init_state, rules=self.rules)
        return jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)), example, _first_of(lanes[1])).frozen

    @property
    def _train_call(self) -> Any:
        options = {"step": self.step, "width": self.effective_width}
        return compile_lanes(lane_calls, self.rules, self.mesh, donate=True, **options)

    def _broadcast(self, seeds: Any, hparams: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Returns (seeds, hparams) with a value for every lane and the padding."""

        def broadcast(values: Any, dtype: Any) -> np.ndarray:
            return np.broadcast_to(np.asarray(values, dtype), (self.lanes,))[self._padded_order()]

        _check_seeds(seeds)
        return broadcast(seeds, np.uint32), {name: broadcast(values, np.float32) for name, values in hparams.items()}

    @property
    def _places(self) -> np.ndarray:
        """The place of each lane on the padded axis, of which every device has an equal part."""
        device, place = np.divmod(np.arange(self.lanes), -(-self.lanes // self.mesh.size))
        return device * (self.padded // self.mesh.size) + place

    def _padded_order(self) -> np.ndarray:
        """Returns the lane at each place of the padded axis; padding repeats the last lane."""
        order = np.full(self.padded, self.lanes - 1)
        order[self._places] = np.arange(self.lanes)
        return order

    def _pad(self, batches: Batches) -> Batches:
        """Returns the batches with those of the last lane for the padding, where each lane has its own."""
        return batches.pick(self._padded_order())

    def _kill_padding(self, states: TrainState) -> TrainState:
        if self.padded == self.lanes:
            return states
        is_lane = np.isin(np.arange(self.padded), self._places)
        return states.replace(live=self.spread(np.asarray(states.live) & is_lane))


def _first_of(hparams: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values[0] for name, values in hparams.items()}


def _check_seeds(seeds: Any) -> None:
    """Raises ConfigError for seeds that are no integers of 32 bits: a conversion of an array would wrap them."""
    given = np.asarray(seeds)
    if given.dtype.kind not in "iu" or given.min() < 0 or given.max() > np.iinfo(np.uint32).max:
        raise ConfigError("seeds", seeds, "integers from 0 to 2**32 - 1")
