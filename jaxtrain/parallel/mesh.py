"""Devices: the pure calls, compiled over a named mesh with `jit` or mapped over devices with `pmap`.

State and data are replicated on every device; the rows of each batch are sharded over the axis `"batch"`.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxtrain.config.registry import Values
from jaxtrain.core.batch_axis import batch_axis
from jaxtrain.core.batches import Batches, pieces_of
from jaxtrain.core.frozen import SharedByLanes, map_lanes
from jaxtrain.core.metric import Metrics
from jaxtrain.core.state import Batch, Rules, TrainState, init_state
from jaxtrain.core.steps import CallOutput, StepFunction, eval_call, predict_step, train_call, train_step
from jaxtrain.errors import ConfigError
from jaxtrain.parallel.shared_programs import shared_program

AXIS = "batch"
REPLICATED = PartitionSpec()
ROWS = PartitionSpec(None, AXIS)  # of (capacity, size): each batch in equal shares
LANES = PartitionSpec(AXIS)

Devices = Mesh
"""The devices of a run: the name for other modules, since only this one depends on meshes."""

TrainCall = Callable[[TrainState, Batches, int], tuple[TrainState, CallOutput]]
"""(state, batches, steps) -> (state, output); the given state is donated.

The data of the batches are on the mesh already, their rows come from the host.
"""


def device_mesh(devices: int | None) -> Mesh:
    """Makes a mesh of one axis over the first `devices` local devices, or over all of them for None."""
    local = jax.local_devices()
    if devices is not None and devices > len(local):
        raise ConfigError("parallel.mesh", devices, f"at most {len(local)}, the number of local devices")
    return jax.make_mesh((devices or len(local),), (AXIS,), axis_types=(AxisType.Auto,), devices=local[:devices])


def check_batch(key: str, batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises ConfigError unless a batch divides over devices and micro-batches: no batch is ever truncated."""
    parts = mesh.size * accumulate
    if batch_size % parts:
        expected = f"a multiple of {parts}, for {mesh.size} device{'s' if mesh.size > 1 else ''}"
        micro = f" with {accumulate} micro-batches each" if accumulate > 1 else ""
        raise ConfigError(key, batch_size, expected + micro)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies a tree of arrays to every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, REPLICATED))


def compile_init(rules: Rules, mesh: Mesh) -> Callable[..., TrainState]:
    """Returns `init_state` compiled as (key, batch, hparams) -> state, replicated on the mesh."""
    return shared_program(_jit_init, rules, mesh)


def lower_init(rules: Rules, mesh: Mesh, key: jax.Array, batch: Batch, hparams: Values) -> Any:
    """Lowers the program of `compile_init`, which its method `compile` compiles."""
    return shared_program(_jit_init, rules, mesh).lower(key, batch, hparams)


def compile_train_call(rules: Rules, mesh: Mesh, backend: str, step: StepFunction = train_step) -> TrainCall:
    """Returns `train_call` compiled for the mesh, with `jit` (backend "mesh") or `pmap`.

    Within a process, equal rules share one compiled program.
    """
    if backend == "pmap":
        mapped = shared_program(_pmap_train_call, rules, mesh, step)

        def call_pmapped(state: TrainState, batches: Batches, steps: int) -> tuple[TrainState, CallOutput]:
            shares = batches.rows.reshape(batches.capacity, mesh.size, -1)
            return mapped(state, batches.replace(rows=shares), np.int32(steps))

        return call_pmapped
    jitted = shared_program(_jit_train_call, rules, mesh, step)

    def call(state: TrainState, batches: Batches, steps: int) -> tuple[TrainState, CallOutput]:
        return jitted(state, _shard_rows(batches, mesh), np.int32(steps))

    return call


def compile_eval_call(rules: Rules, mesh: Mesh) -> Callable[[TrainState, Batches | Iterable[Batches]], Metrics]:
    """Returns `eval_call` compiled for the mesh as (state, batches) -> metrics.

    Batches may come in several pieces, whose metrics are added up in their order, as if they were one.
    """
    jitted = shared_program(_jit_eval_call, rules, mesh)

    def call(state: TrainState, batches: Batches | Iterable[Batches]) -> Metrics:
        total = None
        for piece in pieces_of(batches):
            total = jitted(state, _shard_rows(piece, mesh), total)
        assert total is not None
        return total

    return call


def compile_predict(rules: Rules, mesh: Mesh) -> Callable[[TrainState, Batches | Iterable[Batches]], Iterator[Any]]:
    """Returns (state, batches) -> the predictions of each batch in turn, on the host and without masked rows.

    Only one batch of predictions lies on the devices at a time.
    """
    jitted = shared_program(_jit_predict, rules, mesh)

    def call(state: TrainState, batches: Batches | Iterable[Batches]) -> Iterator[Any]:
        for piece in pieces_of(batches):
            for i in range(piece.capacity):
                batch = Batches(piece.data, piece.rows[i : i + 1], piece.mask[i : i + 1])
                predictions = jax.device_get(jitted(state, _shard_rows(batch, mesh)))
                yield jax.tree.map(lambda leaf, kept=piece.mask[i] > 0: leaf[kept], predictions)

    return call


def _shard_rows(batches: Batches, mesh: Mesh) -> Batches:
    """Shards the rows of each batch over the devices; the data stay replicated."""
    rows, mask = jax.device_put((batches.rows, batches.mask), NamedSharding(mesh, ROWS))
    return batches.replace(rows=rows, mask=mask)


def plan_train_call(
    rules: Rules, mesh: Mesh, backend: str, state: TrainState, batches: Batches, step: StepFunction = train_step
) -> Any:
    """Compiles the program of `compile_train_call` from the shapes of a state and batches; allocates nothing."""
    state = replicated_shapes(state, mesh)
    data = replicated_shapes(batches.data, mesh)
    if backend == "pmap":
        shape = (batches.capacity, mesh.size, batches.size // mesh.size)
        shares = Batches(data, jax.ShapeDtypeStruct(shape, np.int32))
        mapped = shared_program(_pmap_train_call, rules, mesh, step)
        return mapped.lower(state, shares, np.int32(1)).compile()
    shapes = Batches(data, _sharded_shapes(batches.rows, NamedSharding(mesh, ROWS)))
    jitted = shared_program(_jit_train_call, rules, mesh, step)
    return jitted.lower(state, shapes, np.int32(1)).compile()


def replicated_shapes(tree: Any, mesh: Devices) -> Any:
    """Returns shapes, dtypes and shardings of a tree after `replicate`."""
    return _sharded_shapes(tree, NamedSharding(mesh, REPLICATED))


def shard_lanes(tree: Any, mesh: Devices) -> Any:
    """Shards the leading axis of every leaf over the devices, and replicates what the lanes share."""
    return jax.device_put(tree, _lane_shardings(tree, mesh))


def _lane_shardings(tree: Any, mesh: Mesh) -> Any:
    lanes = map_lanes(lambda leaf: NamedSharding(mesh, LANES), tree)
    return jax.tree.map(
        lambda node: NamedSharding(mesh, REPLICATED) if isinstance(node, SharedByLanes) else node,
        lanes,
        is_leaf=lambda node: isinstance(node, SharedByLanes),
    )


def lane_shapes(tree: Any, mesh: Devices) -> Any:
    """Returns shapes, dtypes and shardings of lanes after `shard_lanes`, to compile the same program without arrays."""
    return _sharded_shapes(tree, NamedSharding(mesh, LANES))


def _sharded_shapes(tree: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def pick_lanes(tree: Any, order: np.ndarray, mesh: Devices) -> Any:
    """Returns the lanes at the indices `order`, sharded over the devices."""
    return _jitted_pick(mesh)(tree, order)


def replace_lane(tree: Any, lane: int, single: Any, mesh: Devices) -> Any:
    """Overwrites one lane with a single state, whose leaves have no lane axis."""
    return _jitted_replace(mesh)(tree, np.int32(lane), single)


def compile_lanes(
    function: Callable[..., Any], rules: Rules, mesh: Devices, *, donate: bool = False, **options: Any
) -> Callable[..., Any]:
    """Compiles function(lanes, *shared, rules=rules, **options) -> lanes: each device runs its share of the lanes.

    The shared arguments are replicated, but for the rows of batches where each lane has its own. The options are
    static; equal ones share one compiled program. With `donate`, the given lanes are donated.
    """
    sorted_options = tuple(sorted(options.items(), key=lambda item: item[0]))
    return shared_program(_jit_lanes, rules, mesh, function, donate, sorted_options)


def _jit_lanes(
    rules: Rules, mesh: Mesh, function: Callable[..., Any], donate: bool, options: tuple[tuple[str, Any], ...]
) -> Any:
    def spread(lanes: Any, *shared: Any) -> Any:
        body = functools.partial(function, rules=rules, **dict(options))
        in_specs = (LANES, *map(_spec, shared))
        sharded = jax.shard_map(body, mesh=mesh, in_specs=in_specs, out_specs=LANES, check_vma=False)
        return sharded(lanes, *shared)

    return jax.jit(spread, donate_argnums=0 if donate else ())


def _spec(shared: Any) -> Any:
    """Returns how an argument that lanes share is laid out over the devices."""
    if not isinstance(shared, Batches) or not shared.by_lane:
        return REPLICATED
    return Batches(data=REPLICATED, rows=LANES, mask=None if shared.mask is None else LANES)


@functools.cache
def _jitted_replace(mesh: Mesh) -> Any:
    def replace(tree: Any, lane: Any, single: Any) -> Any:
        return jax.tree.map(lambda leaf, new: leaf.at[lane].set(new), tree, single)

    return jax.jit(replace, out_shardings=NamedSharding(mesh, LANES))


@functools.cache
def _jitted_pick(mesh: Mesh) -> Any:
    def pick(tree: Any, order: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[order], tree)

    return jax.jit(pick, out_shardings=NamedSharding(mesh, LANES))


def _jit_init(rules: Rules, mesh: Mesh) -> Any:
    return jax.jit(functools.partial(init_state, rules=rules), out_shardings=NamedSharding(mesh, REPLICATED))


def _jit_train_call(rules: Rules, mesh: Mesh, step: StepFunction) -> Any:
    call = functools.partial(train_call, rules=rules, step=step)
    return jax.jit(call, donate_argnums=0, out_shardings=NamedSharding(mesh, REPLICATED))


def _jit_eval_call(rules: Rules, mesh: Mesh) -> Any:
    return jax.jit(functools.partial(eval_call, rules=rules), out_shardings=NamedSharding(mesh, REPLICATED))


def _jit_predict(rules: Rules, mesh: Mesh) -> Any:
    def predict(state: TrainState, batches: Batches) -> Any:
        return predict_step(state, batches.take(0)["inputs"], rules=rules)

    return jax.jit(predict, out_shardings=NamedSharding(mesh, REPLICATED))


def _pmap_train_call(rules: Rules, mesh: Mesh, step: StepFunction) -> Any:
    """Maps `train_call` over the devices: state and data are replicated, the rows of each batch are split."""

    def per_device(state: TrainState, batches: Batches, steps: Any) -> tuple[TrainState, CallOutput]:
        with batch_axis(AXIS):
            return train_call(state, batches, steps, rules=rules, step=step, axis_name=AXIS)

    in_axes: Any = (None, Batches(data=None, rows=1), None)
    return jax.pmap(per_device, AXIS, in_axes=in_axes, out_axes=None, devices=list(mesh.devices.flat))
