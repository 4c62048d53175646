"""Primitives that read and write numbers at computed places."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxtrain.export.to_onnx.equation import Equation
from jaxtrain.export.to_onnx.graph import Graph, Spec
from jaxtrain.export.to_onnx.layout import cast, cut, elementwise, reshape, transpose
from jaxtrain.export.to_onnx.values import NoFormError, Shape, Value, is_static
from jaxtrain.export.to_onnx.windows import pad

Mode = jax.lax.GatherScatterMode


class Starts(NamedTuple):
    """Places (batch..., k) where parts begin, moved inside, and whether they were inside (batch...)."""

    places: Value
    inside: Value


def _gather(graph: Graph, equation: Equation, operand: Value, indices: Value) -> Value:
    """Takes parts of an operand that begin at places along some of its axes."""
    params = equation.params
    sizes = params["slice_sizes"]
    layout = params["dimension_numbers"]
    indexed = layout.start_index_map
    operand = _narrow(graph, operand, sizes, indexed)
    starts = _starts(graph, indices, [operand.shape[axis] - sizes[axis] for axis in indexed])
    take = _take_one if len(indices.shape) == 1 else _take
    result = reshape(graph, take(graph, operand, starts, equation), equation.spec.shape)
    if params["mode"] != Mode.FILL_OR_DROP or _is_true(starts.inside):
        return result
    return _fill(graph, equation, result, starts.inside)


def _narrow(graph: Graph, operand: Value, sizes: Shape, indexed: Sequence[int]) -> Value:
    """Cuts axes along which all parts begin at 0."""
    axes = [a for a in range(len(sizes)) if a not in indexed and sizes[a] != operand.shape[a] and sizes[a] != 1]
    if not axes:
        return operand
    shape = tuple(sizes[axis] if axis in axes else size for axis, size in enumerate(operand.shape))
    ends = graph.sizes([sizes[axis] for axis in axes])
    return cut(graph, operand, axes, graph.integers([0] * len(axes)), ends, shape)


def _starts(graph: Graph, indices: Value, last: Sequence) -> Starts:
    """Moves places inside; `last` are the greatest of each column."""
    wide = cast(graph, indices, np.int64)
    greatest = graph.sizes(last)
    zero = graph.integers(0)
    places = elementwise(graph, "Max", zero, elementwise(graph, "Min", wide, greatest))
    same = cast(graph, elementwise(graph, "Equal", wide, places, dtype=np.bool_), np.int32)
    result = Spec(wide.shape[:-1], np.dtype(np.int32))
    inside = graph.add("ReduceMin", same, graph.integers([-1]), result=result, keepdims=0)
    return Starts(places, cast(graph, inside, np.bool_))


def _is_true(value: Value) -> bool:
    return value.content is not None and bool(np.all(value.content))


def _take_one(graph: Graph, operand: Value, starts: Starts, equation: Equation) -> Value:
    """Cuts the only part."""
    axes = equation.params["dimension_numbers"].start_index_map
    sizes = equation.params["slice_sizes"]
    lengths = graph.sizes([sizes[axis] for axis in axes])
    ends = elementwise(graph, "Add", starts.places, lengths)
    shape = tuple(sizes[axis] if axis in axes else size for axis, size in enumerate(operand.shape))
    return cut(graph, operand, axes, starts.places, ends, shape)


def _take(graph: Graph, operand: Value, starts: Starts, equation: Equation) -> Value:
    """Takes parts by places of single numbers, with axes in the order of the result; axes of length 1 may lack."""
    layout = equation.params["dimension_numbers"]
    sizes = equation.params["slice_sizes"]
    indexed = layout.start_index_map
    paired = layout.operand_batching_dims
    spans = [axis for axis in indexed if sizes[axis] != 1]
    rest = [axis for axis in range(len(operand.shape)) if axis not in indexed and axis not in paired]
    batch = range(len(starts.places.shape) - 1)
    first = list(layout.start_indices_batching_dims)
    rows = [*first, *(axis for axis in batch if axis not in first)]
    places = transpose(graph, starts.places, [*rows, len(rows)])
    places = _spread(graph, places, tuple(sizes[axis] for axis in indexed))
    source = transpose(graph, operand, [*paired, *indexed, *rest])
    shape = (*places.shape[:-1], *(operand.shape[axis] for axis in rest))
    taken = graph.add("GatherND", source, places, result=Spec(shape, operand.dtype), batch_dims=len(paired))
    parts = iter(a for a in range(len(operand.shape)) if a not in layout.collapsed_slice_dims and a not in paired)
    examples = iter(batch)
    offsets = layout.offset_dims
    wanted = [
        ("part", next(parts)) if axis in offsets else ("batch", next(examples))
        for axis in range(len(equation.shapes[0]))
    ]
    held = [*(("batch", axis) for axis in rows), *(("part", axis) for axis in [*spans, *rest])]
    collapsed = [label for label in held if label not in wanted]  # of length 1
    order = [held.index(label) for label in [*(label for label in wanted if label in held), *collapsed]]
    return transpose(graph, taken, order)


def _spread(graph: Graph, places: Value, sizes: Shape) -> Value:
    """Returns the places (batch..., sizes > 1..., k) of all numbers of parts that begin at (batch..., k)."""
    spans = [size for size in sizes if size != 1]
    if not spans:
        return places
    if not is_static(spans):
        raise NoFormError("parts as long as the number of examples")
    grid = np.moveaxis(np.indices([int(size) for size in sizes]), 0, -1).reshape(*spans, len(sizes))
    apart = reshape(graph, places, (*places.shape[:-1], *(1,) * len(spans), len(sizes)))
    return elementwise(graph, "Add", apart, graph.integers(grid))


def _fill(graph: Graph, equation: Equation, result: Value, inside: Value) -> Value:
    """Puts the fill value where a part lay outside."""
    offsets = equation.params["dimension_numbers"].offset_dims
    lengths = iter(inside.shape)
    shape = tuple(1 if axis in offsets else next(lengths) for axis in range(len(result.shape)))
    fill = graph.constant(_fill_value(equation), result.dtype)
    return elementwise(graph, "Where", reshape(graph, inside, shape), result, fill, dtype=result.dtype)


def _fill_value(equation: Equation) -> float | int:
    given = equation.params["fill_value"]
    dtype = equation.spec.dtype
    if given is not None or dtype.kind in "fb":
        return np.nan if given is None and dtype.kind == "f" else given or 0
    return np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max


def _scatter(reduction: str) -> Callable[..., Value]:
    """Returns the function that writes parts into an operand; parts that lie outside are left out."""

    def write(graph: Graph, equation: Equation, operand: Value, indices: Value, updates: Value) -> Value:
        layout = equation.params["dimension_numbers"]
        if layout.operand_batching_dims:
            raise NoFormError("paired axes of a scatter")
        indexed = layout.scatter_dims_to_operand_dims
        kept = [axis for axis in range(len(operand.shape)) if axis not in layout.inserted_window_dims]
        sizes = dict(zip(kept, (updates.shape[axis] for axis in layout.update_window_dims), strict=True))
        rest = [axis for axis in range(len(operand.shape)) if axis not in indexed]
        if any(sizes.get(axis) != operand.shape[axis] for axis in rest):
            raise NoFormError("parts of a scatter that are shorter than an axis")
        spans = [sizes.get(axis, 1) for axis in indexed]
        starts = _starts(graph, indices, [operand.shape[a] - size for a, size in zip(indexed, spans, strict=True)])
        places = _spread(graph, starts.places, tuple(spans))
        target = transpose(graph, operand, [*indexed, *rest])
        written = _in_order(graph, equation, updates, places, dict(zip(kept, layout.update_window_dims, strict=True)))
        result = _write(graph, target, places, written, starts.inside, equation, reduction)
        order = [*indexed, *rest]
        return transpose(graph, result, [order.index(axis) for axis in range(len(order))])

    return write


def _in_order(graph: Graph, equation: Equation, updates: Value, places: Value, windows: dict[int, int]) -> Value:
    """Returns updates with the axes (batch..., spans..., rest...)."""
    indexed = equation.params["dimension_numbers"].scatter_dims_to_operand_dims
    batch = [axis for axis in range(len(updates.shape)) if axis not in windows.values()]
    spans = [windows[axis] for axis in indexed if axis in windows]
    rest = [place for axis, place in windows.items() if axis not in indexed]
    moved = transpose(graph, updates, [*batch, *spans, *rest])
    return reshape(graph, moved, (*places.shape[:-1], *(updates.shape[axis] for axis in rest)))


def _write(
    graph: Graph, target: Value, places: Value, updates: Value, inside: Value, equation: Equation, reduction: str
) -> Value:
    """Writes updates; those that lie outside go to a row that is appended and cut off again."""
    drops = equation.params["mode"] == Mode.FILL_OR_DROP and not _is_true(inside)
    length = target.shape[0]
    if drops:
        extra = [(0, 1)] + [(0, 0)] * (len(target.shape) - 1)
        target = pad(graph, target, extra)
        ones = (1,) * (len(places.shape) - len(inside.shape))
        is_inside = reshape(graph, inside, (*inside.shape, *ones))
        outside = graph.sizes([length, *[0] * (places.shape[-1] - 1)])
        places = elementwise(graph, "Where", is_inside, places, outside, dtype=np.int64)
    result = Spec(target.shape, target.dtype)
    written = graph.add("ScatterND", target, places, updates, result=result, reduction=reduction)
    if not drops:
        return written
    return cut(graph, written, [0], graph.integers([0]), graph.sizes([length]), (length, *target.shape[1:]))


INDEXING: dict[str, Callable[..., Value]] = {"gather": _gather, "scatter": _scatter("none")}
"""Primitive -> its function of an operand, integers and, to write, updates."""

ACCUMULATIONS = {
    "scatter-add": _scatter("add"),
    "scatter-mul": _scatter("mul"),
    "scatter-min": _scatter("min"),
    "scatter-max": _scatter("max"),
}
"""Primitive -> its function of an operand and updates that were brought to a type with which runtimes compute."""
