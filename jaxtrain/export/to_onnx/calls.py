"""Primitives that hold programs of their own: calls, loops, branches."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxtrain.export.to_onnx.equation import Equation
from jaxtrain.export.to_onnx.graph import Graph, Spec, describe_value
from jaxtrain.export.to_onnx.layout import cast, concatenate, elementwise, expand, reshape
from jaxtrain.export.to_onnx.values import NoFormError, Value

Function = Callable[..., list[Value]]

LONGEST_SCAN = 1024
"""Steps up to which a loop over rows is written out."""

SHORT = 16
"""Steps up to which a loop that repeats its body without rows is written out, too."""


def _call(graph: Graph, equation: Equation, *operands: Value) -> list[Value]:
    """Puts the called program in the place of the call."""
    (program,) = (equation.params[name] for name in ("jaxpr", "call_jaxpr") if name in equation.params)
    return equation.inline(graph, program, operands)


def _scan(graph: Graph, equation: Equation, *operands: Value) -> list[Value]:
    """Writes the steps of a loop one after another; rows of known values become values of their own.

    One of many steps that has no rows, such as `fori_loop`, becomes a loop of ONNX.
    """
    params = equation.params
    length = params["length"]
    has_rows = len(operands) + len(equation.shapes) > params["num_consts"] + 2 * params["num_carry"]
    if isinstance(length, int) and length > SHORT and not has_rows:
        return _repeat(graph, equation, *operands)
    if not isinstance(length, int) or length > LONGEST_SCAN:
        raise NoFormError(f"a loop of {length} steps, more than {LONGEST_SCAN},")
    constants = operands[: params["num_consts"]]
    carry = list(operands[len(constants) : len(constants) + params["num_carry"]])
    series = operands[len(constants) + len(carry) :]
    steps = reversed(range(length)) if params["reverse"] else range(length)
    rows: dict[int, list[Value]] = {}
    for step in steps:
        given = [_row(graph, values, step) for values in series]
        results = equation.inline(graph, params["jaxpr"], [*constants, *carry, *given])
        carry = results[: len(carry)]
        rows[step] = results[len(carry) :]
    shapes = equation.shapes[len(carry) :]
    stacks = [_stack(graph, [rows[step][i] for step in range(length)], shape) for i, shape in enumerate(shapes)]
    return [*carry, *stacks]


def _row(graph: Graph, values: Value, step: int) -> Value:
    result = Spec(values.shape[1:], values.dtype)
    return graph.add("Gather", values, graph.integers(step), result=result, axis=0)


def _stack(graph: Graph, rows: Sequence[Value], shape: Sequence[Any]) -> Value:
    full = [reshape(graph, expand(graph, row, tuple(shape[1:])), (1, *shape[1:])) for row in rows]
    return concatenate(graph, full, 0)


def _branch(graph: Graph, equation: Equation, index: Value, *operands: Value) -> list[Value]:
    """Takes the branch of a known index; else all of them, of whose results one is chosen."""
    branches = equation.params["branches"]
    if index.content is not None:
        return equation.inline(graph, branches[int(np.clip(index.content, 0, len(branches) - 1))], operands)
    results = [equation.inline(graph, branch, operands) for branch in branches]
    place = cast(graph, index, np.int64)
    chosen = results[0]
    for number, others in enumerate(results[1:], start=1):
        is_chosen = elementwise(graph, "GreaterOrEqual", place, graph.integers(number), dtype=np.bool_)
        chosen = [
            elementwise(graph, "Where", is_chosen, other, held, dtype=held.dtype)
            for other, held in zip(others, chosen, strict=True)
        ]
    return chosen


def _platform(graph: Graph, equation: Equation) -> list[Value]:
    """Returns the place of the form for any platform, else of the first."""
    platforms = list(equation.params["platforms"])
    return [graph.constant(platforms.index(None) if None in platforms else 0, np.int32)]


def _repeat(graph: Graph, equation: Equation, *operands: Value) -> list[Value]:
    """Becomes a loop of ONNX with a known number of steps, whose body sees the values outside it."""
    params = equation.params
    constants = operands[: params["num_consts"]]
    body = Graph(graph)
    body.input("iteration", (), np.int64)
    goes_on = body.input("goes_on", (), np.bool_)
    specs = [Spec(tuple(shape), dtype) for shape, dtype in zip(equation.shapes, equation.dtypes, strict=True)]
    held = [body.input("held", *spec) for spec in specs]
    after = equation.inline(body, params["jaxpr"], [*constants, *held])
    outputs = [goes_on, *(expand(body, value, spec.shape) for value, spec in zip(after, specs, strict=True))]
    return _loop(graph, body, outputs, (graph.integers(params["length"]), None), operands[len(constants) :], specs)


def _loop(
    graph: Graph,
    body: Graph,
    outputs: Sequence[Value],
    ends: tuple[Value | None, Value | None],
    begin: Sequence[Value],
    specs: Sequence[Spec],
) -> list[Value]:
    """Adds a loop; `ends` are its number of steps and whether it has a first one, None for no such end."""
    named = [body.output(value) for value in outputs]
    content = body.finish("body", [describe_value(value.name, value) for value in named])
    return graph.add_several("Loop", *ends, *begin, results=specs, at_once=False, body=content)


def _while(graph: Graph, equation: Equation, *operands: Value) -> list[Value]:
    """Becomes a loop of ONNX, whose body sees the values outside it."""
    params = equation.params
    of_condition = operands[: params["cond_nconsts"]]
    of_body = operands[len(of_condition) : len(of_condition) + params["body_nconsts"]]
    begin = operands[len(of_condition) + len(of_body) :]
    (goes_on,) = equation.inline(graph, params["cond_jaxpr"], [*of_condition, *begin])
    body = Graph(graph)
    body.input("iteration", (), np.int64)
    body.input("goes_on", (), np.bool_)
    specs = [Spec(tuple(shape), dtype) for shape, dtype in zip(equation.shapes, equation.dtypes, strict=True)]
    held = [body.input("held", *spec) for spec in specs]
    after = equation.inline(body, params["body_jaxpr"], [*of_body, *held])
    after = [expand(body, value, spec.shape) for value, spec in zip(after, specs, strict=True)]
    (again,) = equation.inline(body, params["cond_jaxpr"], [*of_condition, *after])
    return _loop(graph, body, (reshape(body, again, ()), *after), (None, goes_on), begin, specs)


def _barrier(graph: Graph, equation: Equation, *operands: Value) -> list[Value]:
    return list(operands)


INLINED = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "remat",
    "remat2",
    "checkpoint",
)

CALLS: dict[str, Function] = {
    **dict.fromkeys(INLINED, _call),
    "cond": _branch,
    "platform_index": _platform,
    "optimization_barrier": _barrier,
}
"""Primitive -> its function of operands that may stand for repeated ones."""

LOOPS: dict[str, Function] = {"scan": _scan, "while": _while}
"""Primitive -> its function of operands in full."""
