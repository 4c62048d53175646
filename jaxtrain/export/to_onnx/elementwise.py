"""Primitives on single numbers."""

import math
from collections.abc import Callable

import numpy as np

from jaxtrain.export.to_onnx.equation import Equation
from jaxtrain.export.to_onnx.graph import Graph
from jaxtrain.export.to_onnx.layout import elementwise, widen
from jaxtrain.export.to_onnx.values import Value

Function = Callable[..., Value]
"""(graph, equation, *operands) -> result."""

MOST_FACTORS = 4
"""The power up to which a number is multiplied by itself."""


def _same(operation: str) -> Function:
    """Returns the function of a primitive that is one operation, whose result has the type of its operands."""
    return lambda graph, equation, *operands: elementwise(graph, operation, *operands)


def _compare(operation: str) -> Function:
    """Returns the function of a comparison."""
    return lambda graph, equation, *operands: elementwise(graph, operation, *operands, dtype=np.bool_)


def _unequal(graph: Graph, equation: Equation, first: Value, second: Value) -> Value:
    equal = elementwise(graph, "Equal", first, second, dtype=np.bool_)
    return elementwise(graph, "Not", equal)


def _remainder(graph: Graph, equation: Equation, first: Value, second: Value) -> Value:
    return elementwise(graph, "Mod", first, second, fmod=1)


def _square(graph: Graph, equation: Equation, value: Value) -> Value:
    return elementwise(graph, "Mul", value, value)


def _inverse_root(graph: Graph, equation: Equation, value: Value) -> Value:
    return elementwise(graph, "Reciprocal", elementwise(graph, "Sqrt", value))


def _integer_power(graph: Graph, equation: Equation, value: Value) -> Value:
    exponent = equation.params["y"]
    if 1 <= abs(exponent) <= MOST_FACTORS:
        power = value
        for _ in range(abs(exponent) - 1):
            power = elementwise(graph, "Mul", power, value)
    else:
        power = elementwise(graph, "Pow", value, graph.constant(abs(exponent), value.dtype))
    return elementwise(graph, "Reciprocal", power) if exponent < 0 else power


def _power_of_two(graph: Graph, equation: Equation, value: Value) -> Value:
    return elementwise(graph, "Exp", elementwise(graph, "Mul", value, graph.constant(math.log(2.0), value.dtype)))


def _round(graph: Graph, equation: Equation, value: Value) -> Value:
    """Rounds halves to the even neighbour, or away from 0."""
    if int(equation.params["rounding_method"]) == 1:
        return elementwise(graph, "Round", value)
    half = graph.constant(0.5, value.dtype)
    raised = elementwise(graph, "Floor", elementwise(graph, "Add", elementwise(graph, "Abs", value), half))
    return elementwise(graph, "Mul", elementwise(graph, "Sign", value), raised)


def _is_finite(graph: Graph, equation: Equation, value: Value) -> Value:
    is_nan = elementwise(graph, "IsNaN", value, dtype=np.bool_)
    is_infinite = elementwise(graph, "IsInf", value, dtype=np.bool_)
    return elementwise(graph, "Not", elementwise(graph, "Or", is_nan, is_infinite))


def _clamp(graph: Graph, equation: Equation, low: Value, value: Value, high: Value) -> Value:
    return elementwise(graph, "Max", low, elementwise(graph, "Min", value, high))


def _complement_of_error(graph: Graph, equation: Equation, value: Value) -> Value:
    return elementwise(graph, "Sub", graph.constant(1, value.dtype), elementwise(graph, "Erf", value))


def _select(graph: Graph, equation: Equation, which: Value, *cases: Value) -> Value:
    """Chooses the case of a number or of a truth value for each place."""
    wide = [widen(graph, case) for case in cases]
    if which.dtype == np.bool_:
        return elementwise(graph, "Where", which, wide[1], wide[0], dtype=wide[0].dtype)
    chosen = wide[0]
    for place, case in enumerate(wide[1:], start=1):
        is_chosen = elementwise(graph, "Equal", which, graph.constant(place, which.dtype), dtype=np.bool_)
        chosen = elementwise(graph, "Where", is_chosen, case, chosen, dtype=case.dtype)
    return chosen


def _as_it_is(graph: Graph, equation: Equation, value: Value) -> Value:
    """Returns the operand: every result is brought to its type afterwards."""
    return value


def _shift(direction: str) -> Function:
    return lambda graph, equation, *operands: elementwise(graph, "BitShift", *operands, direction=direction)


UNARY = {
    **{"abs": "Abs", "neg": "Neg", "sign": "Sign", "floor": "Floor", "ceil": "Ceil", "exp": "Exp", "log": "Log"},
    **{"sqrt": "Sqrt", "logistic": "Sigmoid", "erf": "Erf", "tanh": "Tanh", "sin": "Sin", "cos": "Cos", "tan": "Tan"},
    **{"asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh"},
    **{"asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh"},
}
BINARY = {
    "add": "Add",
    "add_any": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "pow": "Pow",
}
COMPARISONS = {"eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"}

ARITHMETIC: dict[str, Function] = {
    **{name: _same(operation) for name, operation in (UNARY | BINARY).items()},
    **{name: _compare(operation) for name, operation in COMPARISONS.items()},
    "ne": _unequal,
    "rem": _remainder,
    "square": _square,
    "rsqrt": _inverse_root,
    "integer_pow": _integer_power,
    "exp2": _power_of_two,
    "round": _round,
    "is_finite": _is_finite,
    "clamp": _clamp,
    "erfc": _complement_of_error,
}
"""Primitive -> its function of operands that were brought to a type with which runtimes compute."""

TRUTHS: dict[str, Function] = {
    name: _same(op) for name, op in (("and", "And"), ("or", "Or"), ("xor", "Xor"), ("not", "Not"))
}
BITS: dict[str, Function] = {
    "and": _same("BitwiseAnd"),
    "or": _same("BitwiseOr"),
    "xor": _same("BitwiseXor"),
    "not": _same("BitwiseNot"),
    "shift_left": _shift("LEFT"),
    "shift_right_logical": _shift("RIGHT"),
}


def _of_bits(name: str) -> Function:
    """Returns the function of a primitive on truth values, or on the bits of integers."""
    return lambda graph, equation, *operands: (TRUTHS if operands[0].dtype == np.bool_ else BITS)[name](
        graph, equation, *operands
    )


IDENTITIES = ("convert_element_type", "copy", "copy_p", "stop_gradient", "reduce_precision", "sharding_constraint")

ANY_TYPE: dict[str, Function] = {
    **{name: _of_bits(name) for name in BITS},
    **dict.fromkeys(IDENTITIES, _as_it_is),
    "select_n": _select,
}
"""Primitive -> its function of operands of any type."""
