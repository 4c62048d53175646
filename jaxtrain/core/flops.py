"""Counts the floating-point operations of a function from its trace, through loops.

XLA's cost analysis counts the body of a loop once, however often it runs. Counts are those before optimisation: a
multiplication and an addition for each term of a product, and one for each number of any other operation.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core


def count_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Returns the FLOP of `function(*arguments)`; the arguments may be shapes, and nothing runs.

    Of branches the dearest counts. The body of a loop whose length is known only when it runs, `lax.while_loop`, counts
    once.
    """
    return _flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def _flops(jaxpr: core.Jaxpr) -> float:
    return sum(map(_flops_of_equation, jaxpr.eqns), start=0.0)


def _flops_of_equation(equation: core.JaxprEqn) -> float:
    count = _COUNTS.get(equation.primitive.name)
    if count is not None:
        return count(equation)
    if inner := list(_inner(equation.params)):
        return sum(map(_flops, inner), start=0.0)
    return _size(equation.outvars)


def _inner(params: Mapping[str, Any]) -> Iterator[core.Jaxpr]:
    """Yields the functions that an equation calls: those of `jit`, custom derivatives, loops and branches."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _scan(equation: core.JaxprEqn) -> float:
    return equation.params["length"] * _flops(equation.params["jaxpr"].jaxpr)


def _cond(equation: core.JaxprEqn) -> float:
    return max(_flops(branch.jaxpr) for branch in equation.params["branches"])


def _product(equation: core.JaxprEqn) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = _shape(equation.invars[0])
    return 2.0 * _size(equation.outvars) * math.prod(shape[axis] for axis in contracted)


def _convolution(equation: core.JaxprEqn) -> float:
    kernel = _shape(equation.invars[1])
    filters = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2.0 * _size(equation.outvars) * math.prod(kernel) / filters


def _reduction(equation: core.JaxprEqn) -> float:
    return _size(equation.invars)


def _nothing(equation: core.JaxprEqn) -> float:
    return 0.0


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _size(variables: Any) -> float:
    """Returns how many floating-point numbers the variables hold."""
    avals = [variable.aval for variable in variables]
    return float(sum(math.prod(aval.shape) for aval in avals if jnp.issubdtype(aval.dtype, jnp.inexact)))


_MOVES = (
    "bitcast_convert_type",
    "broadcast_in_dim",
    "concatenate",
    "convert_element_type",
    "copy",
    "dynamic_slice",
    "dynamic_update_slice",
    "gather",
    "pad",
    "reshape",
    "rev",
    "scatter",
    "select_n",
    "slice",
    "split",
    "squeeze",
    "stop_gradient",
    "transpose",
)
"""Operations that move numbers, and compute none."""

_REDUCTIONS = ("argmax", "argmin", "cumsum", "cumprod", "reduce_max", "reduce_min", "reduce_prod", "reduce_sum")

_COUNTS: dict[str, Callable[[core.JaxprEqn], float]] = {
    "scan": _scan,
    "cond": _cond,
    "dot_general": _product,
    "conv_general_dilated": _convolution,
    **dict.fromkeys(_REDUCTIONS, _reduction),
    **dict.fromkeys(_MOVES, _nothing),
}
