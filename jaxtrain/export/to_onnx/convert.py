"""Walks a jaxpr, and adds the form of each of its equations to a graph."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
from jax._src import source_info_util
from jax.extend import core
from jax.interpreters import partial_eval

from jaxtrain.errors import JaxtrainError, UsageError, Words, first_line
from jaxtrain.export.to_onnx.calls import CALLS, LOOPS
from jaxtrain.export.to_onnx.decompositions import DECOMPOSITIONS
from jaxtrain.export.to_onnx.elementwise import ANY_TYPE, ARITHMETIC
from jaxtrain.export.to_onnx.equation import Equation
from jaxtrain.export.to_onnx.graph import Graph
from jaxtrain.export.to_onnx.indexing import ACCUMULATIONS, INDEXING
from jaxtrain.export.to_onnx.layout import cast, expand, widen
from jaxtrain.export.to_onnx.places import PLACES, REPETITIONS
from jaxtrain.export.to_onnx.products import PRODUCTS
from jaxtrain.export.to_onnx.reductions import REDUCTIONS
from jaxtrain.export.to_onnx.values import NoFormError, Value, held_dtype
from jaxtrain.export.to_onnx.windows import PADS, WINDOWS


class Form(NamedTuple):
    """The function of a primitive, and what its operands must be.

    `computes`: of a type with which runtimes compute. `in_full`: of their own shape, not standing for repeated numbers.
    """

    convert: Callable[..., Value | list[Value]]
    computes: bool
    in_full: bool


FORMS: Mapping[str, Form] = {
    **{name: Form(function, True, False) for name, function in ARITHMETIC.items()},
    **{name: Form(function, False, False) for name, function in (ANY_TYPE | CALLS | REPETITIONS).items()},
    **{name: Form(f, True, True) for name, f in (REDUCTIONS | PRODUCTS | WINDOWS | ACCUMULATIONS).items()},
    **{name: Form(function, False, True) for name, function in (PLACES | PADS | INDEXING | LOOPS).items()},
}
"""Primitive of JAX -> its form."""


def without_unused(program: core.ClosedJaxpr) -> core.ClosedJaxpr:
    """Leaves out what no result needs, such as random keys of layers that are random in training alone."""
    used = [True] * len(program.jaxpr.outvars)
    jaxpr, _ = partial_eval.dce_jaxpr(program.jaxpr, used, instantiate=True)
    return core.ClosedJaxpr(jaxpr, program.consts)


def inline(graph: Graph, program: Any, operands: Sequence[Value], layer: str = "") -> list[Value]:
    """Adds a program, closed or without constants, to a graph; returns its results, which may stand for repeated ones.

    Raises UsageError for a primitive without a form, which it names with its layer.
    """
    jaxpr = getattr(program, "jaxpr", program)
    constants = dict(zip(jaxpr.constvars, getattr(program, "consts", ()), strict=True))
    known = dict(zip(jaxpr.invars, operands, strict=True))

    def read(variable: Any) -> Value:
        dtype = variable.aval.dtype
        if isinstance(variable, core.Literal):
            return graph.constant(variable.val, held_dtype(dtype))
        if variable not in known:
            known[variable] = graph.constant(constants[variable], held_dtype(dtype))
        return known[variable]

    for equation in jaxpr.eqns:
        known.update(zip(equation.outvars, _add(graph, equation, read, layer), strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _add(graph: Graph, equation: Any, read: Callable[[Any], Value], outer: str) -> Sequence[Value]:
    """Adds an equation; returns its results."""
    own = str(equation.source_info.name_stack)
    layer = "/".join(filter(None, (outer, own)))
    graph.layer = layer
    graph.place = source_info_util.summarize(equation.source_info) or graph.place
    name = equation.primitive.name
    try:
        return _results(graph, equation, [*map(read, equation.invars)], layer)
    except JaxtrainError:  # of an equation inside this one
        raise
    except NoFormError as error:
        raise _refusal(graph, layer, f"{name!r} ({error})" if str(error) else repr(name)) from error
    except Exception as error:  # of JAX, NumPy or ONNX, for parameters that nobody thought of
        raise _refusal(graph, layer, f"{name!r}, which failed ({first_line(error)})") from error


def _results(graph: Graph, equation: Any, operands: Sequence[Value], layer: str) -> Sequence[Value]:
    shapes = [tuple(variable.aval.shape) for variable in equation.outvars]
    dtypes = [held_dtype(variable.aval.dtype) for variable in equation.outvars]
    if all(0 in shape for shape in shapes):
        return [Value("nothing", shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    name = equation.primitive.name
    if name in DECOMPOSITIONS:
        arguments = [jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype) for variable in equation.invars]
        function = partial(DECOMPOSITIONS[name], **equation.params)
        return inline(graph, jax.make_jaxpr(function)(*arguments), operands, layer)
    if name not in FORMS:
        raise NoFormError
    form = FORMS[name]
    if form.in_full:
        operands = [expand(graph, value, v.aval.shape) for value, v in zip(operands, equation.invars, strict=True)]
    if form.computes:
        operands = [widen(graph, value) for value in operands]
    described = Equation(equation.params, shapes, dtypes, partial(inline, layer=layer))
    results = form.convert(graph, described, *operands)
    several = results if isinstance(results, list) else [results]
    return [cast(graph, value, dtype) for value, dtype in zip(several, dtypes, strict=True)]


def _refusal(graph: Graph, layer: str, what: str) -> UsageError:
    where = " at ".join(filter(None, (layer, graph.place)))
    got = Words(f"onnx for a model with {what} in {where or 'an unknown place'}")
    return UsageError("--format", got, "operations that ONNX has", "Leave onnx out, or use another layer")
