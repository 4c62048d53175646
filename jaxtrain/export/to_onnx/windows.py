"""Windows over spatial axes: padding, dilation and pooling."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxtrain.export.to_onnx.equation import Equation
from jaxtrain.export.to_onnx.graph import Graph, Spec
from jaxtrain.export.to_onnx.layout import elementwise, reshape, transpose
from jaxtrain.export.to_onnx.values import Dimension, NoFormError, Value, product

Pads = Sequence[tuple[int, int]]


def pad(graph: Graph, value: Value, pads: Pads, fill: Value | None = None) -> Value:
    """Adds numbers before and after each axis, or takes them off where pads are negative."""
    if not any(before or after for before, after in pads):
        return value
    shape = tuple(size + before + after for size, (before, after) in zip(value.shape, pads, strict=True))
    edges = graph.integers([before for before, _ in pads] + [after for _, after in pads])
    number = fill or graph.constant(0, value.dtype)
    return graph.add("Pad", value, edges, reshape(graph, number, ()), result=Spec(shape, value.dtype))


def pad_edges(graph: Graph, value: Value, pads: Pads) -> tuple[Value, list[int]]:
    """Returns a value (n, channels, ...) and the pads of a convolution; negative ones are taken off at once."""
    if any(before < 0 or after < 0 for before, after in pads):
        return pad(graph, value, [(0, 0), (0, 0), *pads]), [0] * (2 * len(pads))
    return value, [before for before, _ in pads] + [after for _, after in pads]


def insert_zeros(graph: Graph, value: Value, factors: Sequence[int]) -> Value:
    """Puts `factor` - 1 zeros between neighbours along each of the last axes."""
    begin = len(value.shape) - len(factors)
    for axis, factor in enumerate(factors, start=begin):
        value = spread(graph, value, axis, factor, None)
    return value


def spread(graph: Graph, value: Value, axis: int, factor: int, fill: Value | None) -> Value:
    """Puts `factor` - 1 numbers between neighbours along an axis."""
    if factor == 1:
        return value
    before = value.shape[:axis]
    size = value.shape[axis]
    after = value.shape[axis + 1 :]
    apart = reshape(graph, value, (*before, size, 1, *after))
    pads = [(0, factor - 1) if place == axis + 1 else (0, 0) for place in range(len(apart.shape))]
    joined = reshape(graph, pad(graph, apart, pads, fill), (*before, size * factor, *after))
    ends = [(0, 1 - factor) if place == axis else (0, 0) for place in range(len(joined.shape))]
    return pad(graph, joined, ends, fill)


def _pad(graph: Graph, equation: Equation, value: Value, fill: Value) -> Value:
    config = equation.params["padding_config"]
    for axis, (_, _, inner) in enumerate(config):
        value = spread(graph, value, axis, inner + 1, fill)
    return pad(graph, value, [(before, after) for before, after, _ in config], fill)


def _pool(operation: str, fill: float) -> Callable[..., Value]:
    """Returns the function of a reduction over windows; axes without a window are taken together."""

    def reduce(graph: Graph, equation: Equation, value: Value) -> Value:
        params = equation.params
        if any(factor != 1 for factor in params["base_dilation"]):
            raise NoFormError("dilated inputs of a window")
        padded = pad(graph, value, params["padding"], graph.constant(fill, value.dtype))
        windows = params["window_dimensions"]
        spatial = [axis for axis in range(len(windows)) if windows[axis] > 1 or params["window_strides"][axis] > 1]
        others = [axis for axis in range(len(windows)) if axis not in spatial]
        order = [*others, *spatial]
        moved = transpose(graph, padded, order)
        sizes: tuple[Dimension, ...] = moved.shape[len(others) :]
        stacked = reshape(graph, moved, (product(moved.shape[: len(others)]), 1, *sizes))
        chosen = {name: [params[key][axis] for axis in spatial] for name, key in KEYS.items()}
        pooled_sizes = tuple(equation.shapes[0][axis] for axis in spatial)
        result = Spec((*stacked.shape[:2], *pooled_sizes), value.dtype)
        pooled = POOLS[operation](graph, stacked, result, chosen)
        apart = reshape(graph, pooled, tuple(equation.shapes[0][axis] for axis in order))
        return transpose(graph, apart, [order.index(axis) for axis in range(len(order))])

    return reduce


KEYS = {"kernel_shape": "window_dimensions", "strides": "window_strides", "dilations": "window_dilation"}
"""Attribute of a pool -> parameter of a window."""


def _largest(graph: Graph, value: Value, result: Spec, attributes: Any) -> Value:
    return graph.add("MaxPool", value, result=result, **attributes)


def _smallest(graph: Graph, value: Value, result: Spec, attributes: Any) -> Value:
    return elementwise(graph, "Neg", _largest(graph, elementwise(graph, "Neg", value), result, attributes))


def _sum(graph: Graph, value: Value, result: Spec, attributes: Any) -> Value:
    if any(factor != 1 for factor in attributes["dilations"]):
        raise NoFormError("dilated windows of a sum")
    kept = {name: attributes[name] for name in ("kernel_shape", "strides")}
    mean = graph.add("AveragePool", value, result=result, **kept)
    return elementwise(graph, "Mul", mean, graph.constant(math.prod(kept["kernel_shape"]), value.dtype))


POOLS: dict[str, Callable[..., Value]] = {"largest": _largest, "smallest": _smallest, "sum": _sum}

WINDOWS: dict[str, Callable[..., Value]] = {
    "reduce_window_max": _pool("largest", -np.inf),
    "reduce_window_min": _pool("smallest", np.inf),
    "reduce_window_sum": _pool("sum", 0.0),
}
"""Primitive -> its function of floats."""

PADS = {"pad": _pad}
