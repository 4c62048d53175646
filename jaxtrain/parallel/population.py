"""The population: many states stepped together as one program, over the same batches.

A lane is a run of its own, with its own hyperparameters and seed. Lanes are outside and steps inside: each device takes
its share of the lanes, without communication, and calls them `width` at a time. At width 1 a lane is its solo run to
the bit and a dead lane costs nothing; wider, lanes are vmapped, which suits a GPU, and rounding differs.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtrain.config.registry import Values
from jaxtrain.core.batches import Batches
from jaxtrain.core.state import Batch, Rules, TrainState, init_state
from jaxtrain.core.steps import CallOutput, Metrics, StepFunction, eval_call, train_call, train_step
from jaxtrain.errors import UsageError
from jaxtrain.parallel.memory import memory_limit, plan_memory
from jaxtrain.parallel.mesh import (
    Devices,
    compile_init,
    compile_lanes,
    compile_train_call,
    device_mesh,
    lane_shapes,
    pick_lanes,
    replicate,
    shard_lanes,
)


def lane_calls(
    states: TrainState,
    batches: Batches,
    steps: jax.Array,
    *,
    rules: Rules,
    step: StepFunction = train_step,
    width: int = 1,
) -> tuple[TrainState, CallOutput]:
    """Makes the same `train_call` in every lane, `width` at a time; leaves of `states` have a leading lane axis."""
    call = functools.partial(train_call, rules=rules, step=step)

    def chunk(states: TrainState, call: Callable[..., Any]) -> tuple[TrainState, CallOutput]:
        # Where no lane is alive there is nothing to step. Within a vmapped chunk the dead ones are carried along.
        return call(states, batches, jnp.where(states.live.any(), steps, 0))

    return _map_lanes(chunk, call, (None, None), states, width)


def lane_evals(states: TrainState, batches: Batches, *, rules: Rules, width: int = 1) -> Metrics:
    """Measures the batches in every lane, `width` lanes at a time; sums and counts get a leading lane axis."""
    call = functools.partial(eval_call, rules=rules)
    return _map_lanes(lambda states, call: call(states, batches), call, (None,), states, width)


def _map_lanes(
    chunk: Callable[[Any, Callable[..., Any]], Any],
    call: Callable[..., Any],
    shared: tuple[None, ...],
    lanes: Any,
    width: int,
) -> Any:
    """Applies `chunk(lanes, call)` to `width` lanes at a time: `call` is that of one lane, vmapped where wider."""
    if width == 1:
        return lax.map(lambda lane: chunk(lane, call), lanes)
    wide = jax.vmap(call, in_axes=(0, *shared))
    count = len(jax.tree.leaves(lanes)[0])
    if width >= count:
        return chunk(lanes, wide)
    chunks = jax.tree.map(lambda leaf: leaf.reshape(count // width, width, *leaf.shape[1:]), lanes)
    mapped = lax.map(lambda lanes: chunk(lanes, wide), chunks)
    return jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), mapped)


def lane_inits(lanes: tuple[jax.Array, Mapping[str, jax.Array]], batch: Batch, *, rules: Rules) -> TrainState:
    """Makes the states of (seeds (lanes,), hparams name -> (lanes,)), each as a solo run makes its own."""
    return lax.map(lambda lane: init_state(jax.random.key(lane[0]), batch, lane[1], rules=rules), lanes)


@dataclass(frozen=True)
class Population:
    """The programs of `lanes` runs on the devices: rules and step as in a solo run, `width` lanes at a time.

    States have a leading axis of `padded` lanes, a multiple of what the devices take at a time; those beyond `lanes`
    are dead copies, and are left out of every report. `room`: lanes that the program has at least, so that one which
    is not full is the same program.
    """

    rules: Rules
    mesh: Devices
    lanes: int
    width: int = 1
    step: StepFunction = train_step
    room: int = 0

    @property
    def padded(self) -> int:
        """Lanes of the states, padding included."""
        return self.mesh.size * -(-self._share // self.effective_width) * self.effective_width

    @property
    def effective_width(self) -> int:
        """Lanes that one device steps at a time: no more than its share."""
        return min(self.width, self._share)

    @property
    def _share(self) -> int:
        """Lanes of each device, before they are filled up to whole widths."""
        return -(-max(self.lanes, self.room) // self.mesh.size)

    def init(self, seeds: Any, hparams: Mapping[str, Any], example: Batch) -> TrainState:
        """Makes the states: seeds and hyperparameters are numbers, or sequences with one for each lane."""
        lanes = self._lanes(seeds, hparams)
        states = compile_lanes(lane_inits, self.mesh, rules=self.rules)(self.spread(lanes), example)
        return self._with_dead_padding(states)

    def call(self, states: TrainState, batches: Batches, steps: int) -> tuple[TrainState, CallOutput]:
        """Takes up to k steps in every lane that is alive; the states that are given are used up.

        What it reports holds the padding, too: `fetch` leaves it out once it is on the host.
        """
        return self._train_call(states, batches, np.int32(steps))

    def evaluate(self, states: TrainState, batches: Batches) -> Metrics:
        """Measures the batches in every lane; to be read through `fetch`."""
        options = {"rules": self.rules, "width": self.effective_width}
        return compile_lanes(lane_evals, self.mesh, **options)(states, batches)

    def fetch(self, tree: Any) -> Any:
        """Brings what a call or an evaluation reports to the host, without the padding."""
        return jax.tree.map(lambda leaf: leaf[: self.lanes], jax.device_get(tree))

    def gather(self, states: TrainState, lanes: Sequence[int]) -> tuple["Population", TrainState]:
        """Returns the population of these lanes alone, in this order, and its states: a narrower program."""
        narrower = replace(self, lanes=len(lanes), room=0)
        order = np.asarray(lanes)[narrower._order()]
        return narrower, narrower._with_dead_padding(pick_lanes(states, order, self.mesh))

    def with_lanes(self, lanes: int) -> "Population":
        """Returns the same program with no more than so many lanes in it."""
        return replace(self, lanes=lanes, room=self.padded)

    def copy(self, states: TrainState, source: Sequence[int], destination: Sequence[int]) -> TrainState:
        """Returns the states with whole lanes laid over others, hyperparameters and keys included."""
        order = np.arange(self.padded)
        order[np.asarray(destination)] = np.asarray(source)
        return pick_lanes(states, order, self.mesh)

    def edit(self, states: TrainState, edit: Callable[[Values], Values]) -> TrainState:
        """Returns the states with the hyperparameters of live lanes edited on the host, as name -> (lanes,)."""
        live, before = self.fetch((states.live, states.hparams))
        edited = {name: np.where(live, values, before[name]) for name, values in edit(before).items()}
        padded = {name: np.asarray(values, np.float32)[self._order()] for name, values in edited.items()}
        return states.replace(hparams=self.spread(padded))

    def place(self, states: Any) -> TrainState:
        """Places lanes that come from the host, without padding, on the devices."""
        padded = jax.tree.map(lambda leaf: np.asarray(leaf)[self._order()], states)
        return self._with_dead_padding(self.spread(padded))

    def spread(self, tree: Any) -> Any:
        """Cuts a tree with a leading axis of `padded` lanes over the devices, as the states lie."""
        return shard_lanes(tree, self.mesh)

    def fetch_lane(self, states: TrainState, lane: int) -> TrainState:
        """Returns the state of one lane, on the host, as a solo run has it."""
        return jax.tree.map(lambda leaf: np.asarray(leaf[lane]), states)

    def plan_bytes(self, hparams: Mapping[str, Any], batches: Batches) -> int:
        """Returns the bytes that a call needs on each device, as the compiler plans them; nothing is run.

        Data that lie on the devices already are left out; 0 where the compiler does not say.
        """
        planned = plan_memory(self.plan_call(hparams, batches))
        there = sum(leaf.nbytes for leaf in jax.tree.leaves(batches.data) if isinstance(leaf, jax.Array))
        return planned.total - there if planned else 0

    def plan_call(self, hparams: Mapping[str, Any], batches: Batches) -> Any:
        """Compiles `call` for the shapes of batches, as it is compiled when it runs; nothing is run."""
        lanes = self._lanes(0, hparams)
        init = compile_lanes(lane_inits, self.mesh, rules=self.rules)
        states = lane_shapes(jax.eval_shape(init, lanes, batches.example), self.mesh)
        return self._train_call.lower(states, batches, np.int32(1)).compile()

    @property
    def _train_call(self) -> Any:
        options = {"rules": self.rules, "step": self.step, "width": self.effective_width}
        return compile_lanes(lane_calls, self.mesh, donate=True, **options)

    def _lanes(self, seeds: Any, hparams: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Returns (seeds, hparams) with a value for every lane, padding included."""

        def spread(values: Any, dtype: Any) -> np.ndarray:
            return np.broadcast_to(np.asarray(values, dtype), (self.lanes,))[self._order()]

        return spread(seeds, np.uint32), {name: spread(values, np.float32) for name, values in hparams.items()}

    def _order(self) -> np.ndarray:
        """The lanes of the padded axis: the last one stands in for the padding."""
        return np.minimum(np.arange(self.padded), self.lanes - 1)

    def _with_dead_padding(self, states: TrainState) -> TrainState:
        if self.padded == self.lanes:
            return states
        alive = np.asarray(states.live) & (np.arange(self.padded) < self.lanes)
        return states.replace(live=self.spread(alive))


def preferred_width(lanes: int, width: int | None) -> int:
    """Returns how many of so many lanes a device steps at a time where the memory allows it: None chooses."""
    return width or (1 if jax.default_backend() == "cpu" else lanes)


def fit_width(population: Population, width: int | None, hparams: Mapping[str, Any], batches: Batches) -> Population:
    """Chooses how many lanes a device steps at a time, from the backend and the compiler's plan of the memory.

    One on a CPU, where mapped lanes are the faster program; elsewhere as many as fit, found by halving. A `width` that
    is given is taken, if it fits. UsageError where not even one fits.
    """
    wanted = preferred_width(population.lanes, width)
    limit = memory_limit(population.mesh)
    while True:
        candidate = replace(population, width=wanted)
        planned = candidate.plan_bytes(hparams, batches)
        if planned <= limit:
            return candidate
        if width is not None or wanted == 1:
            raise UsageError(
                f"lanes: given {population.lanes}, at width {wanted} {planned / 2**20:,.0f} MiB on each device; "
                f"allowed: {limit / 2**20:,.0f} MiB. Take fewer lanes, or a smaller model or batch"
            )
        wanted = max(1, min(wanted, candidate.effective_width) // 2)


def compare_with_solo(
    population: Population,
    seeds: Sequence[int],
    hparams: Mapping[str, Any],
    batches: Batches,
    steps: int,
    *,
    states: TrainState | None = None,
) -> np.ndarray:
    """Returns for each lane the relative L2 distance of its parameters from those of its solo run, (lanes,).

    Lanes and solo runs take the same `steps` from their own initial weights; `states` are lanes that have taken them.
    A solo run is on one device. At width 1 the distance is 0. A model of one's own can be checked before a search
    relies on it.
    """
    example = jax.device_get(batches.example)
    if states is None:
        states, _ = population.call(population.init(seeds, hparams, example), batches, steps)
    one, rules = device_mesh(1), population.rules
    init, call = compile_init(rules, one), compile_train_call(rules, one, "mesh", population.step)
    batches = batches.replace(data=replicate(jax.device_get(batches.data), one))
    floats = {name: np.broadcast_to(np.float32(value), (population.lanes,)) for name, value in hparams.items()}
    distances = []
    for lane, seed in enumerate(seeds):
        own = {name: values[lane] for name, values in floats.items()}
        alone, _ = call(init(jax.random.key(seed), example, own), batches, steps)
        distances.append(_distance(population.fetch_lane(states, lane).params, jax.device_get(alone.params)))
    return np.asarray(distances)


def _distance(params: Any, reference: Any) -> float:
    """The L2 norm of the difference of two trees, relative to that of the second."""
    difference = jax.tree.map(lambda a, b: np.sum((np.float64(a) - np.float64(b)) ** 2), params, reference)
    size = jax.tree.map(lambda b: np.sum(np.float64(b) ** 2), reference)
    return float(np.sqrt(sum(jax.tree.leaves(difference)) / sum(jax.tree.leaves(size))))
