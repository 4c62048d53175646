"""Primitives that reduce axes, accumulate along one, or sort it."""

from collections.abc import Callable, Sequence

import numpy as np

from jaxtrain.export.to_onnx.equation import Equation
from jaxtrain.export.to_onnx.graph import Graph, Spec
from jaxtrain.export.to_onnx.layout import cast, reshape, size_of
from jaxtrain.export.to_onnx.values import NoFormError, Value, is_static, product

Function = Callable[..., Value | list[Value]]

MANY = 256
"""Numbers from which on their sum in float32 is too coarse for what is divided by a small deviation."""

MANY_FEATURES = 4096
"""The same along one axis, whose sums are also those of norms over features, which float64 would slow down."""


def _reduce(operation: str) -> Function:
    """Returns the function of a reduction over axes, which are left out of the result."""
    return lambda graph, equation, value: _reduce_axes(graph, operation, value, equation.params["axes"])


def _reduce_axes(graph: Graph, operation: str, value: Value, axes: Sequence[int]) -> Value:
    if not axes:
        return value
    shape = tuple(size for axis, size in enumerate(value.shape) if axis not in axes)
    return graph.add(operation, value, graph.integers(list(axes)), result=Spec(shape, value.dtype), keepdims=0)


def _sum(graph: Graph, equation: Equation, value: Value) -> Value:
    """Sums many numbers in float64, such as the pixels of a picture.

    Runtimes add numbers one after another, so that rounding grows with their count, where XLA adds partial sums.
    """
    axes = equation.params["axes"]
    count = product([value.shape[axis] for axis in axes])
    is_long = is_static([count]) and count >= (MANY if len(axes) > 1 else MANY_FEATURES)
    exact = cast(graph, value, np.float64) if is_long and value.dtype == np.float32 else value
    return _reduce_axes(graph, "ReduceSum", exact, axes)


def _place_of(operation: str) -> Function:
    """Returns the function of the place of the first extreme number along an axis."""

    def find(graph: Graph, equation: Equation, value: Value) -> Value:
        (axis,) = equation.params["axes"]
        result = Spec(equation.shapes[0], np.dtype(np.int64))
        return graph.add(operation, value, result=result, axis=axis, keepdims=0, select_last_index=0)

    return find


def _accumulate(graph: Graph, equation: Equation, value: Value) -> Value:
    axis = graph.integers(equation.params["axis"])
    reverse = int(equation.params["reverse"])
    return graph.add("CumSum", value, axis, result=Spec(value.shape, value.dtype), reverse=reverse)


def _sort(graph: Graph, equation: Equation, *operands: Value) -> list[Value]:
    """Sorts along an axis by the first operand, equal numbers in their order; the others follow it."""
    if equation.params["num_keys"] != 1:
        raise NoFormError("several keys of a sort")
    axis = equation.params["dimension"]
    keys, *others = operands
    length = size_of(graph, keys.shape[axis])
    values, places = _largest(graph, keys, reshape(graph, length, (1,)), keys.shape, axis, largest=False)
    moved = [
        graph.add("GatherElements", other, places, result=Spec(other.shape, other.dtype), axis=axis) for other in others
    ]
    return [values, *moved]


def _top(graph: Graph, equation: Equation, value: Value) -> list[Value]:
    axis = equation.params.get("axis", -1) % len(value.shape)
    count = graph.integers([equation.params["k"]])
    return _largest(graph, value, count, equation.shapes[0], axis, largest=True)


def _largest(graph: Graph, value: Value, count: Value, shape: tuple, axis: int, *, largest: bool) -> list[Value]:
    """Returns the largest or smallest numbers along an axis, in order, and their places."""
    results = [Spec(tuple(shape), value.dtype), Spec(tuple(shape), np.dtype(np.int64))]
    return graph.add_several("TopK", value, count, results=results, axis=axis, largest=int(largest), sorted=1)


REDUCTIONS: dict[str, Function] = {
    "reduce_sum": _sum,
    "reduce_prod": _reduce("ReduceProd"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_and": _reduce("ReduceMin"),
    "reduce_or": _reduce("ReduceMax"),
    "argmax": _place_of("ArgMax"),
    "argmin": _place_of("ArgMin"),
    "cumsum": _accumulate,
    "sort": _sort,
    "top_k": _top,
}
"""Primitive -> its function of operands that were brought to a type with which runtimes compute."""
