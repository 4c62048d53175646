"""Devices: the same pure calls, compiled over a named mesh with `jit`, or through `pmap`.

State and data are whole on every device, and the rows of a batch are spread over the axis `"batch"`.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxtrain.errors import ConfigError
from jaxtrain.models.layers import batch_axis
from jaxtrain.state import Batch, Rules, TrainState, init_state
from jaxtrain.steps import CallOutput, Metrics, StepFunction, eval_call, train_call, train_step

AXIS = "batch"

Devices = Mesh
"""The devices of a run, as other modules name them: only this one knows what a mesh is."""

TrainCall = Callable[[TrainState, Batch, np.ndarray, int], tuple[TrainState, CallOutput]]
"""(state, data, indices (k, batch), steps) -> (state, what the call reports); the state that is given is used up."""


def device_mesh(devices: int | None) -> Mesh:
    """Makes a mesh of one axis over the first `devices` local devices; None takes them all."""
    local = jax.local_devices()
    if devices is not None and devices > len(local):
        raise ConfigError("parallel.mesh", devices, f"at most {len(local)}, the number of local devices")
    return jax.make_mesh((devices or len(local),), (AXIS,), axis_types=(AxisType.Auto,), devices=local[:devices])


def check_batch(key: str, batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Refuses a batch that does not divide over the devices and micro-batches: none is ever cut down."""
    parts = mesh.size * accumulate
    if batch_size % parts:
        what = f"a multiple of {parts}: {mesh.size} device{'s' if mesh.size > 1 else ''}"
        raise ConfigError(key, batch_size, what + (f", {accumulate} micro-batches" if accumulate > 1 else ""))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Places a tree of arrays whole on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def compiled_init(rules: Rules, mesh: Mesh) -> Callable[..., TrainState]:
    """Returns (key, batch, hparams) -> state, compiled and placed on the mesh."""
    return functools.partial(_jitted_init(mesh), rules=rules)


def compiled_train_call(rules: Rules, mesh: Mesh, backend: str, step: StepFunction = train_step) -> TrainCall:
    """Returns `train_call` compiled for the mesh, by `jit` (backend "mesh") or by `pmap`.

    Rules that are equal share one program within the process.
    """
    if backend == "pmap":
        mapped = _pmapped_train_call(rules, mesh, step)

        def spread_call(
            state: TrainState, data: Batch, indices: np.ndarray, steps: int
        ) -> tuple[TrainState, CallOutput]:
            return mapped(state, data, indices.reshape(len(indices), mesh.size, -1), np.int32(steps))

        return spread_call
    jitted, spread = _jitted_train_call(mesh), NamedSharding(mesh, PartitionSpec(None, AXIS))

    def call(state: TrainState, data: Batch, indices: np.ndarray, steps: int) -> tuple[TrainState, CallOutput]:
        return jitted(state, data, jax.device_put(indices, spread), np.int32(steps), rules=rules, step=step)

    return call


def compiled_eval_call(rules: Rules, mesh: Mesh) -> Callable[[TrainState, Batch, np.ndarray, np.ndarray], Metrics]:
    """Returns (state, data, indices, mask) -> metrics, compiled for the mesh."""
    jitted, spread = _jitted_eval_call(mesh), NamedSharding(mesh, PartitionSpec(None, AXIS))

    def call(state: TrainState, data: Batch, indices: np.ndarray, mask: np.ndarray) -> Metrics:
        return jitted(state, data, *jax.device_put((indices, mask), spread), rules=rules)

    return call


class PlannedMemory(NamedTuple):
    """Bytes that a program needs on each device, as the compiler plans them; `aliased`: outputs laid over arguments."""

    arguments: int
    temporaries: int
    outputs: int
    aliased: int

    @property
    def total(self) -> int:
        """All of them together."""
        return self.arguments + self.temporaries + self.outputs - self.aliased


def planned_memory(compiled: Any) -> PlannedMemory | None:
    """Returns what the compiler plans for a compiled program; None where the backend's compiler does not say."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    sizes = found.argument_size_in_bytes, found.temp_size_in_bytes, found.output_size_in_bytes
    return PlannedMemory(*sizes, found.alias_size_in_bytes)


def planned_train_call(
    rules: Rules, mesh: Mesh, backend: str, state: TrainState, data: Batch, capacity: int, batch: int
) -> Any:
    """Compiles `train_call` for the shapes of a state and data, as `compiled_train_call` would; nothing is placed."""
    state, data = whole_shapes((state, data), mesh)
    if backend == "pmap":
        shares = jax.ShapeDtypeStruct((capacity, mesh.size, batch // mesh.size), np.int32)
        return _pmapped_train_call(rules, mesh, train_step).lower(state, data, shares, np.int32(1)).compile()
    spread = NamedSharding(mesh, PartitionSpec(None, AXIS))
    indices = jax.ShapeDtypeStruct((capacity, batch), np.int32, sharding=spread)
    jitted = _jitted_train_call(mesh)
    return jitted.lower(state, data, indices, np.int32(1), rules=rules, step=train_step).compile()


def whole_shapes(tree: Any, mesh: Devices) -> Any:
    """Returns shapes and dtypes of a tree as `replicate` places it."""
    return _placed_shapes(tree, NamedSharding(mesh, PartitionSpec()))


def place_lanes(tree: Any, mesh: Devices) -> Any:
    """Cuts the leading axis of every leaf over the devices."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


def lane_shapes(tree: Any, mesh: Devices) -> Any:
    """Returns shapes and dtypes of lanes as `place_lanes` places them: to plan with them compiles the same program."""
    return _placed_shapes(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


def _placed_shapes(tree: Any, place: NamedSharding) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree)


def picked_lanes(tree: Any, order: np.ndarray, mesh: Devices) -> Any:
    """Takes rows of the leading axis of every leaf, in the order given, and cuts them over the devices."""
    return _jitted_pick(mesh)(tree, order)


def memory_limit(mesh: Devices) -> int:
    """Returns the bytes that a program may plan for on each device: what is free there, less a tenth."""
    statistics = mesh.devices.flat[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return int(0.9 * (statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)))
    return int(0.9 * _free_host_memory() / mesh.size)


def _free_host_memory() -> int:
    """Returns the bytes that the system can give: what it says is available, else all that there are."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(available, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no limit, or another system
        return available


def replaced_lane(tree: Any, lane: int, one: Any, mesh: Devices) -> Any:
    """Lays a single state over a lane; leaves of `one` have no lane axis."""
    return _jitted_lane(mesh)(tree, np.int32(lane), one)


def compiled_lanes(
    function: Callable[..., Any], mesh: Devices, *, donate: bool = False, **options: Any
) -> Callable[..., Any]:
    """Compiles (lanes, *shared) -> lanes: each device takes its share of the lanes, and what is shared whole.

    Options are static, and what is equal shares one program. `donate`: the lanes that are given are used up.
    """
    return _jitted_lanes(function, mesh, donate, tuple(sorted(options.items(), key=lambda item: item[0])))


@functools.lru_cache(maxsize=256)
def _jitted_lanes(function: Callable[..., Any], mesh: Mesh, donate: bool, options: tuple[tuple[str, Any], ...]) -> Any:
    def spread(lanes: Any, *shared: Any) -> Any:
        specs = (PartitionSpec(AXIS), *(PartitionSpec() for _ in shared))
        body = functools.partial(function, **dict(options))
        return jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(AXIS), check_vma=False)(
            lanes, *shared
        )

    return jax.jit(spread, donate_argnums=0 if donate else ())


@functools.cache
def _jitted_lane(mesh: Mesh) -> Any:
    spread = NamedSharding(mesh, PartitionSpec(AXIS))
    laid = lambda tree, lane, one: jax.tree.map(lambda leaf, new: leaf.at[lane].set(new), tree, one)  # noqa: E731
    return jax.jit(laid, out_shardings=spread)


@functools.cache
def _jitted_pick(mesh: Mesh) -> Any:
    spread = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.jit(lambda tree, order: jax.tree.map(lambda leaf: leaf[order], tree), out_shardings=spread)


@functools.cache
def _jitted_init(mesh: Mesh) -> Any:
    return jax.jit(init_state, static_argnames=("rules",), out_shardings=NamedSharding(mesh, PartitionSpec()))


@functools.cache
def _jitted_train_call(mesh: Mesh) -> Any:
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(train_call, static_argnames=("rules", "step"), donate_argnums=0, out_shardings=whole)


@functools.cache
def _jitted_eval_call(mesh: Mesh) -> Any:
    return jax.jit(eval_call, static_argnames=("rules",), out_shardings=NamedSharding(mesh, PartitionSpec()))


@functools.lru_cache(maxsize=64)
def _pmapped_train_call(rules: Rules, mesh: Mesh, step: StepFunction) -> Any:
    """Maps `train_call` over the devices: state and data go to each of them whole, the rows of a batch are spread."""

    def per_device(state: TrainState, data: Batch, indices: jax.Array, steps: Any) -> tuple[TrainState, CallOutput]:
        with batch_axis(AXIS):
            return train_call(state, data, indices, steps, rules=rules, step=step, axis_name=AXIS)

    devices = list(mesh.devices.flat)
    return jax.pmap(per_device, AXIS, in_axes=(None, None, 1, None), out_axes=None, devices=devices)
