"""Products of matrices, and convolutions."""

from collections.abc import Sequence

from jaxtrain.export.to_onnx.equation import Equation
from jaxtrain.export.to_onnx.graph import Graph, Spec
from jaxtrain.export.to_onnx.layout import collapse, reshape, transpose
from jaxtrain.export.to_onnx.values import NoFormError, Value
from jaxtrain.export.to_onnx.windows import insert_zeros, pad_edges


def _multiply(graph: Graph, equation: Equation, left: Value, right: Value) -> Value:
    """Products over any axes, as one of matrices; axes of both operands that are paired come first."""
    (left_summed, right_summed), (left_paired, right_paired) = equation.params["dimension_numbers"]
    left_free = _others(left, [*left_summed, *left_paired])
    right_free = _others(right, [*right_summed, *right_paired])
    columns = transpose(graph, right, [*right_paired, *right_summed, *right_free])
    rows = transpose(graph, left, [*left_paired, *left_free, *left_summed])
    ones = [1] * len(left_paired)
    columns = collapse(graph, columns, [*ones, len(right_summed), len(right_free)])
    # Free axes of the left operand stay as they are, unless a pair of axes comes before them.
    free = [len(left_free)] if left_paired else [1] * len(left_free)
    rows = collapse(graph, rows, [*ones, *free, len(left_summed)])
    shape = (*rows.shape[:-1], columns.shape[-1])
    return reshape(graph, graph.add("MatMul", rows, columns, result=Spec(shape, left.dtype)), equation.spec.shape)


def _others(value: Value, axes: Sequence[int]) -> list[int]:
    return [axis for axis in range(len(value.shape)) if axis not in axes]


def _convolve(graph: Graph, equation: Equation, inputs: Value, kernel: Value) -> Value:
    """A convolution over any number of axes, with strides, padding, dilations and groups."""
    params = equation.params
    if params["batch_group_count"] != 1:
        raise NoFormError("groups of examples of a convolution")
    layout = params["dimension_numbers"]
    inputs = transpose(graph, inputs, layout.lhs_spec)
    kernel = transpose(graph, kernel, layout.rhs_spec)
    inputs = insert_zeros(graph, inputs, params["lhs_dilation"])
    inputs, pads = pad_edges(graph, inputs, params["padding"])
    spatial = layout.out_spec
    shape = tuple(equation.shapes[0][axis] for axis in spatial)
    convolved = graph.add(
        "Conv",
        inputs,
        kernel,
        result=Spec(shape, inputs.dtype),
        kernel_shape=[int(size) for size in kernel.shape[2:]],
        strides=list(params["window_strides"]),
        pads=pads,
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
    )
    back = [spatial.index(axis) for axis in range(len(spatial))]
    return transpose(graph, convolved, back)


PRODUCTS = {"dot_general": _multiply, "conv_general_dilated": _convolve}
"""Primitive -> its function of operands of the type of the result."""
