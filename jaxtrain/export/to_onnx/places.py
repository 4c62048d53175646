"""Primitives that move numbers: shapes, axes, parts, joins."""

from collections.abc import Callable

import numpy as np

from jaxtrain.export.to_onnx.equation import Equation
from jaxtrain.export.to_onnx.graph import Graph, Spec
from jaxtrain.export.to_onnx.layout import (
    END,
    cast,
    concatenate,
    cut,
    elementwise,
    iota,
    reshape,
    size_of,
    transpose,
)
from jaxtrain.export.to_onnx.values import Dimension, Value

Function = Callable[..., Value | list[Value]]


def _shape(graph: Graph, equation: Equation, value: Value) -> Value:
    """Changes the shape; a weight that only gets axes of length 1 before its own stands for the result as it is."""
    shape = equation.spec.shape
    before = len(shape) - len(value.shape)
    if value.is_known and shape == (1,) * before + value.shape:
        return value
    return reshape(graph, value, shape)


def _transpose(graph: Graph, equation: Equation, value: Value) -> Value:
    return transpose(graph, value, equation.params["permutation"])


def _broadcast(graph: Graph, equation: Equation, value: Value) -> Value:
    """Inserts axes of length 1, along which the value stands for a repeated one; before the others none is needed."""
    axes = equation.params["broadcast_dimensions"]
    rank = len(equation.shapes[0])
    if list(axes) == list(range(rank - len(axes), rank)):
        return value
    kept = dict(zip(axes, (1,) * (len(axes) - len(value.shape)) + tuple(value.shape), strict=True))
    return reshape(graph, value, tuple(kept.get(axis, 1) for axis in range(rank)))


def _iota(graph: Graph, equation: Equation) -> Value:
    axis = equation.params["dimension"]
    shape = equation.spec.shape
    counted = iota(graph, shape[axis], equation.spec.dtype)
    return reshape(graph, counted, tuple(size if place == axis else 1 for place, size in enumerate(shape)))


def _concatenate(graph: Graph, equation: Equation, *values: Value) -> Value:
    return concatenate(graph, values, equation.params["dimension"])


def _slice(graph: Graph, equation: Equation, value: Value) -> Value:
    params = equation.params
    steps = params["strides"] or (1,) * len(value.shape)
    shape = equation.spec.shape
    axes = [a for a, size in enumerate(value.shape) if size != shape[a] or params["start_indices"][a] != 0]
    if not axes:
        return value
    starts, ends = (graph.sizes([params[key][axis] for axis in axes]) for key in ("start_indices", "limit_indices"))
    strides = graph.integers([steps[axis] for axis in axes])
    return graph.add("Slice", value, starts, ends, graph.integers(axes), strides, result=Spec(shape, value.dtype))


def _reverse(graph: Graph, equation: Equation, value: Value) -> Value:
    axes = list(equation.params["dimensions"])
    back = [graph.integers([number] * len(axes)) for number in (-1, -END, -1)]
    starts, ends, strides = back
    return graph.add("Slice", value, starts, ends, graph.integers(axes), strides, result=Spec(value.shape, value.dtype))


def _split(graph: Graph, equation: Equation, value: Value) -> list[Value]:
    axis = equation.params["axis"]
    parts = []
    begin = 0
    for size, shape in zip(equation.params["sizes"], equation.shapes, strict=True):
        ends = (graph.sizes([begin]), graph.sizes([begin + size]))
        parts.append(cut(graph, value, [axis], *ends, tuple(shape)))
        begin += size
    return parts


def _dynamic_slice(graph: Graph, equation: Equation, value: Value, *starts: Value) -> Value:
    """Cuts a part of fixed sizes at places that are computed, moved so that all of it lies inside."""
    sizes = equation.spec.shape
    axes = [axis for axis in range(len(sizes)) if sizes[axis] != value.shape[axis]]
    if not axes:
        return value
    begins = [_start(graph, starts[axis], value.shape[axis] - sizes[axis]) for axis in axes]
    first = concatenate(graph, begins, 0)
    lengths = graph.sizes([sizes[axis] for axis in axes])
    return cut(graph, value, axes, first, elementwise(graph, "Add", first, lengths), sizes)


def _start(graph: Graph, start: Value, last: Dimension) -> Value:
    """Returns a start as int64 of shape (1,), at least 0 and at most `last`."""
    wide = reshape(graph, cast(graph, start, np.int64), (1,))
    return elementwise(graph, "Max", graph.integers([0]), elementwise(graph, "Min", wide, graph.sizes([last])))


def _size(graph: Graph, equation: Equation) -> Value:
    return size_of(graph, equation.params["dim"], equation.spec.dtype)


def _empty(graph: Graph, equation: Equation) -> Value:
    """Returns zeros for numbers that are written before they are read."""
    return graph.constant(np.zeros((1,) * len(equation.shapes[0])), equation.spec.dtype)


def _tile(graph: Graph, equation: Equation, value: Value) -> Value:
    return graph.add("Tile", value, graph.sizes(equation.params["reps"]), result=Spec(equation.spec.shape, value.dtype))


def _stack(graph: Graph, equation: Equation, *values: Value) -> Value:
    axis = equation.params["axis"]
    rows = [reshape(graph, value, (*value.shape[:axis], 1, *value.shape[axis:])) for value in values]
    return concatenate(graph, rows, axis)


PLACES: dict[str, Function] = {
    "reshape": _shape,
    "squeeze": _shape,
    "expand_dims": _shape,
    "transpose": _transpose,
    "iota": _iota,
    "concatenate": _concatenate,
    "slice": _slice,
    "rev": _reverse,
    "split": _split,
    "stack": _stack,
    "dynamic_slice": _dynamic_slice,
    "dim_as_value": _size,
    "tile": _tile,
    "empty": _empty,
    "empty2": _empty,
}
"""Primitive -> its function of operands as they are."""

REPETITIONS: dict[str, Function] = {"broadcast_in_dim": _broadcast}
"""Primitive -> its function of an operand that may stand for a repeated one."""
