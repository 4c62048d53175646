"""Operations of a graph that many primitives are made of: shapes, types, places of numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import helper

from jaxtrain.export.to_onnx.graph import Graph, Spec
from jaxtrain.export.to_onnx.values import Dimension, Shape, Value, broadcast_shapes, is_static, product

END = np.iinfo(np.int64).max
"""The end of an axis, however long."""

COMPUTED = {
    **dict.fromkeys(("bool", "int8", "int16", "uint8", "uint16"), np.dtype(np.int32)),
    **dict.fromkeys(("uint32", "uint64"), np.dtype(np.int64)),
}
"""Type -> a wider one with which runtimes compute; a result that is brought back wraps around as JAX's does."""


def elementwise(graph: Graph, operation: str, *operands: Value, dtype: Any = None, **attributes: Any) -> Value:
    """Adds an operation on single numbers; the type is that of the first operand, unless given."""
    shape = broadcast_shapes([operand.shape for operand in operands])
    return graph.add(operation, *operands, result=Spec(shape, dtype or operands[0].dtype), **attributes)


def cast(graph: Graph, value: Value, dtype: Any) -> Value:
    """Converts to another type; floats become integers towards 0."""
    if value.dtype == dtype:
        return value
    spec = Spec(value.shape, np.dtype(dtype))
    return graph.add("Cast", value, result=spec, to=helper.np_dtype_to_tensor_dtype(spec.dtype))


def widen(graph: Graph, value: Value) -> Value:
    """Converts to a type with which runtimes compute: they move all types, but add and compare few."""
    return cast(graph, value, COMPUTED.get(value.dtype.name, value.dtype))


def reshape(graph: Graph, value: Value, shape: Shape) -> Value:
    """Returns the same numbers in another shape."""
    if tuple(value.shape) == tuple(shape):
        return value
    symbolic = [place for place, dimension in enumerate(shape) if not is_static([dimension])]
    if len(symbolic) == 1:
        target = graph.integers([-1 if place == symbolic[0] else int(size) for place, size in enumerate(shape)])
    else:
        target = graph.sizes(shape)
    return graph.add("Reshape", value, target, result=Spec(tuple(shape), value.dtype))


def transpose(graph: Graph, value: Value, order: Sequence[int]) -> Value:
    """Puts axes into another order."""
    if list(order) == list(range(len(order))):
        return value
    shape = tuple(value.shape[axis] for axis in order)
    return graph.add("Transpose", value, result=Spec(shape, value.dtype), perm=list(order))


def expand(graph: Graph, value: Value, shape: Shape) -> Value:
    """Repeats a value along axes of length 1 to a shape of at least its rank."""
    if tuple(value.shape) == tuple(shape):
        return value
    return graph.add("Expand", value, graph.sizes(shape), result=Spec(tuple(shape), value.dtype))


def concatenate(graph: Graph, values: Sequence[Value], axis: int) -> Value:
    """Joins values along an axis; those without numbers add nothing."""
    parts = [value for value in values if not value.is_empty]
    if len(parts) == 1:
        return parts[0]
    length: Dimension = sum(part.shape[axis] for part in parts)
    shape = (*parts[0].shape[:axis], length, *parts[0].shape[axis + 1 :])
    return graph.add("Concat", *parts, result=Spec(shape, parts[0].dtype), axis=axis)


def cut(graph: Graph, value: Value, axes: Sequence[int], starts: Value, ends: Value, shape: Shape) -> Value:
    """Returns the numbers from `starts` to `ends`, int64, along axes."""
    given = graph.integers(list(axes))
    return graph.add("Slice", value, starts, ends, given, result=Spec(tuple(shape), value.dtype))


def scalar_of(graph: Graph, value: Value, dtype: Any) -> Value:
    """Converts a value of one number to a scalar of a type."""
    return cast(graph, reshape(graph, value, ()), dtype)


def size_of(graph: Graph, dimension: Dimension, dtype: Any = np.int64) -> Value:
    """Returns a dimension as a scalar."""
    return scalar_of(graph, graph.sizes([dimension]), dtype)


def iota(graph: Graph, length: Dimension, dtype: Any) -> Value:
    """Returns 0, 1, ... up to a length."""
    if is_static([length]):
        return graph.constant(np.arange(int(length)), dtype)
    ends = (graph.integers(0), size_of(graph, length), graph.integers(1))
    counted = graph.add("Range", *ends, result=Spec((length,), np.dtype(np.int64)))
    return cast(graph, counted, dtype)


def collapse(graph: Graph, value: Value, groups: Sequence[int]) -> Value:
    """Joins consecutive axes: each number of `groups` says how many become one."""
    shape = []
    begin = 0
    for count in groups:
        shape.append(product(value.shape[begin : begin + count]))
        begin += count
    return reshape(graph, value, tuple(shape))
