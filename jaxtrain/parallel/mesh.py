"""Devices: the same pure calls, compiled over a named mesh with `jit`, or through `pmap`.

State and data are whole on every device, and the rows of a batch are spread over the axis `"batch"`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxtrain.core.batch_axis import batch_axis
from jaxtrain.core.batches import Batches
from jaxtrain.core.state import Rules, TrainState, init_state
from jaxtrain.core.steps import CallOutput, Metrics, StepFunction, eval_call, train_call, train_step
from jaxtrain.errors import ConfigError

AXIS = "batch"

Devices = Mesh
"""The devices of a run, as other modules name them: only this one knows what a mesh is."""

TrainCall = Callable[[TrainState, Batches, int], tuple[TrainState, CallOutput]]
"""(state, batches, steps) -> (state, what the call reports); the state that is given is used up.

Data of the batches lie on the mesh already; rows come from the host.
"""


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


def compile_init(rules: Rules, mesh: Mesh) -> Callable[..., TrainState]:
    """Returns (key, batch, hparams) -> state, compiled and placed on the mesh."""
    return functools.partial(_jitted_init(mesh), rules=rules)


def compile_train_call(rules: Rules, mesh: Mesh, backend: str, step: StepFunction = train_step) -> TrainCall:
    """Returns `train_call` compiled for the mesh, by `jit` (backend "mesh") or by `pmap`.

    Rules that are equal share one program within the process.
    """
    if backend == "pmap":
        mapped = _pmapped_train_call(rules, mesh, step)

        def spread_call(state: TrainState, batches: Batches, steps: int) -> tuple[TrainState, CallOutput]:
            shares = batches.rows.reshape(batches.capacity, mesh.size, -1)
            return mapped(state, batches.replace(rows=shares), np.int32(steps))

        return spread_call
    jitted = _jitted_train_call(mesh)

    def call(state: TrainState, batches: Batches, steps: int) -> tuple[TrainState, CallOutput]:
        return jitted(state, _spread_rows(batches, mesh), np.int32(steps), rules=rules, step=step)

    return call


def compile_eval_call(rules: Rules, mesh: Mesh) -> Callable[[TrainState, Batches], Metrics]:
    """Returns (state, batches) -> metrics, compiled for the mesh."""
    jitted = _jitted_eval_call(mesh)

    def call(state: TrainState, batches: Batches) -> Metrics:
        return jitted(state, _spread_rows(batches, mesh), rules=rules)

    return call


def _spread_rows(batches: Batches, mesh: Mesh) -> Batches:
    """Spreads the rows of each batch over the devices; the data lie there whole."""
    spread = NamedSharding(mesh, PartitionSpec(None, AXIS))
    rows, mask = jax.device_put((batches.rows, batches.mask), spread)
    return batches.replace(rows=rows, mask=mask)


def plan_train_call(rules: Rules, mesh: Mesh, backend: str, state: TrainState, batches: Batches) -> Any:
    """Compiles `train_call` for the shapes of a state and batches, as `compile_train_call` would; places nothing."""
    state = replicated_shapes(state, mesh)
    data = replicated_shapes(batches.data, mesh)
    if backend == "pmap":
        shape = (batches.capacity, mesh.size, batches.size // mesh.size)
        shares = Batches(data, jax.ShapeDtypeStruct(shape, np.int32))
        return _pmapped_train_call(rules, mesh, train_step).lower(state, shares, np.int32(1)).compile()
    spread = NamedSharding(mesh, PartitionSpec(None, AXIS))
    placed = Batches(data, _placed_shapes(batches.rows, spread))
    return _jitted_train_call(mesh).lower(state, placed, np.int32(1), rules=rules, step=train_step).compile()


def replicated_shapes(tree: Any, mesh: Devices) -> Any:
    """Returns shapes and dtypes of a tree as `replicate` places it."""
    return _placed_shapes(tree, NamedSharding(mesh, PartitionSpec()))


def shard_lanes(tree: Any, mesh: Devices) -> Any:
    """Cuts the leading axis of every leaf over the devices."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


def lane_shapes(tree: Any, mesh: Devices) -> Any:
    """Returns shapes and dtypes of lanes as `shard_lanes` places them: to plan with them compiles the same program."""
    return _placed_shapes(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


def _placed_shapes(tree: Any, place: NamedSharding) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree)


def pick_lanes(tree: Any, order: np.ndarray, mesh: Devices) -> Any:
    """Takes rows of the leading axis of every leaf, in the order given, and cuts them over the devices."""
    return _jitted_pick(mesh)(tree, order)


def replace_lane(tree: Any, lane: int, one: Any, mesh: Devices) -> Any:
    """Lays a single state over a lane; leaves of `one` have no lane axis."""
    return _jitted_lane(mesh)(tree, np.int32(lane), one)


def compile_lanes(
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

    def per_device(state: TrainState, batches: Batches, steps: Any) -> tuple[TrainState, CallOutput]:
        with batch_axis(AXIS):
            return train_call(state, batches, steps, rules=rules, step=step, axis_name=AXIS)

    in_axes: Any = (None, Batches(data=None, rows=1), None)
    return jax.pmap(per_device, AXIS, in_axes=in_axes, out_axes=None, devices=list(mesh.devices.flat))
