"""The population: many runs, called lanes, trained on the same batches by one program.

Each lane has hyperparameters and a seed of its own. Each device takes an equal share of the lanes, without
communication, and makes a call for `width` lanes at a time. At width 1, a lane equals its solo run bit for bit.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxtrain.config.registry import Values
from jaxtrain.core.batches import Batches, pieces_of
from jaxtrain.core.frozen import SharedByLanes, map_lanes, put_shared, take_shared
from jaxtrain.core.metric import Metrics
from jaxtrain.core.state import Batch, Rules, TrainState, init_state
from jaxtrain.core.steps import CallOutput, StepFunction, train_step
from jaxtrain.errors import ConfigError
from jaxtrain.parallel.lane_places import LanePlaces
from jaxtrain.parallel.lanes import lane_calls, lane_evals, lane_inits, with_frozen, without_frozen
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
        return self._places.padded

    @property
    def effective_width(self) -> int:
        """Number of lanes that a device takes at a time: `width`, but at most its share."""
        return self._places.width

    @property
    def padding_is_free(self) -> bool:
        """Whether lanes of padding take no time, as dead lanes that are taken one by one."""
        return self.effective_width == 1

    @property
    def _places(self) -> LanePlaces:
        return LanePlaces.of(self.lanes, self.mesh.size, self.width, self.min_lanes)

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
        places = self._places.of_lanes()
        return map_lanes(lambda leaf: leaf[places], on_host)  # a copy: a slice would hold the padding in memory

    def gather(self, states: TrainState, lanes: Sequence[int]) -> tuple["Population", TrainState]:
        """Returns a smaller population of the given lanes, in this order, and its states."""
        smaller = replace(self, lanes=len(lanes), min_lanes=0)
        order = self._places.of_lanes()[np.asarray(lanes)[smaller._places.lanes_at()]]
        return smaller, smaller._kill_padding(self._pick(states, order))

    def with_lanes(self, lanes: int) -> "Population":
        """Returns a population of `lanes` lanes, at most those of this one, that runs the same program."""
        return replace(self, lanes=lanes, min_lanes=self.padded)

    def copy(self, states: TrainState, source: Sequence[int], destination: Sequence[int]) -> TrainState:
        """Copies lanes `source` over lanes `destination`, including their hyperparameters and keys."""
        order = np.arange(self.padded)
        places = self._places.of_lanes()
        order[places[np.asarray(destination)]] = places[np.asarray(source)]
        return self._pick(states, order)

    def _pick(self, states: TrainState, order: np.ndarray) -> TrainState:
        own, frozen = take_shared(states)
        return put_shared(pick_lanes(own, order, self.mesh), frozen)

    def replace_lane(self, states: TrainState, lane: int, single: TrainState) -> TrainState:
        """Overwrites one lane by the state of a solo run."""
        own, frozen = take_shared(states)
        place = int(self._places.of_lanes()[lane])
        return put_shared(replace_lane(own, place, without_frozen(single, frozen), self.mesh), frozen)

    def edit(self, states: TrainState, edit: Callable[[Values], Values]) -> TrainState:
        """Changes the hyperparameters of live lanes on the host; `edit` maps name -> (lanes,) to new values."""
        live, before = self.fetch((states.live, states.hparams))
        after = {name: np.where(live, values, before[name]) for name, values in edit(before).items()}
        padded = {name: np.asarray(values, np.float32)[self._places.lanes_at()] for name, values in after.items()}
        return states.replace(hparams=self.spread(padded))

    def place(self, states: Any) -> TrainState:
        """Copies states of `lanes` lanes from the host to the devices, and adds the padding."""
        padded = map_lanes(lambda leaf: np.asarray(leaf)[self._places.lanes_at()], states)
        return self._kill_padding(self.spread(padded))

    def spread(self, tree: Any) -> Any:
        """Shards a tree with a leading axis of `padded` lanes over the devices, like the states."""
        return shard_lanes(tree, self.mesh)

    def fetch_lane(self, states: TrainState, lane: int) -> TrainState:
        """Copies the state of one lane to the host, in the form of a solo run's state."""
        own, frozen = take_shared(states)
        place = int(self._places.of_lanes()[lane])
        return with_frozen(jax.tree.map(lambda leaf: np.asarray(leaf[place]), own), jax.device_get(frozen))

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
            return np.broadcast_to(np.asarray(values, dtype), (self.lanes,))[self._places.lanes_at()]

        _check_seeds(seeds)
        return broadcast(seeds, np.uint32), {name: broadcast(values, np.float32) for name, values in hparams.items()}

    def _pad(self, batches: Batches) -> Batches:
        """Returns the batches with those of the last lane for the padding, where each lane has its own."""
        return batches.pick(self._places.lanes_at())

    def _kill_padding(self, states: TrainState) -> TrainState:
        if self.padded == self.lanes:
            return states
        is_lane = np.isin(np.arange(self.padded), self._places.of_lanes())
        return states.replace(live=self.spread(np.asarray(states.live) & is_lane))


def _first_of(hparams: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values[0] for name, values in hparams.items()}


def _check_seeds(seeds: Any) -> None:
    """Raises ConfigError for seeds that are no integers of 32 bits: a conversion of an array would wrap them."""
    given = np.asarray(seeds)
    if given.dtype.kind not in "iu" or given.min() < 0 or given.max() > np.iinfo(np.uint32).max:
        raise ConfigError("seeds", seeds, "integers from 0 to 2**32 - 1")
