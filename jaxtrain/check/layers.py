"""Measures the layers of any function: its traced program is run, and each product and rectifier is looked at.

A layer is a product with weights (a matrix product or a convolution), a rectifier, or a tanh or sigmoid. Layers are
named by the path of the module where the library says it, else by the line of the code. Bodies of compiled loops
are run and not looked into.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jax_core
from jax.extend import source_info_util

PRODUCTS = ("dot_general", "conv_general_dilated")
SQUASHERS = {"tanh": (-1.0, 1.0), "logistic": (0.0, 1.0)}
"""Primitive -> its limits."""

AT_LIMIT = 0.01
"""The distance from a limit, relative to that between both, within which a tanh or sigmoid hardly has a slope."""

CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint")


class Layer(NamedTuple):
    """Numbers on one layer for a batch.

    kind: "product", "rectifier" or "squasher"; deviation, largest: of its outputs; input_deviation: of what it gets;
    dead: of a rectifier the share of units, along the last axis, that are 0 for the whole batch though what they get
    varies, of a tanh or sigmoid the share of outputs at its limits; finite: whether all outputs are.
    """

    name: str
    kind: str
    deviation: float
    largest: float
    input_mean: float
    input_deviation: float
    dead: float
    finite: bool


class _Place(NamedTuple):
    name: str
    kind: str


def look_at_layers(function: Callable[..., Any], *arguments: Any) -> list[Layer]:
    """Runs a function once, compiled, and returns its layers in the order in which they are computed."""
    closed = jax.make_jaxpr(function)(*arguments)
    places: list[_Place] = []

    def run(*flat: Any) -> list[Any]:
        places.clear()
        found: list[Any] = []
        _run(closed.jaxpr, closed.consts, flat, "", places, found)
        return found

    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    with jax.numpy_dtype_promotion("standard"):
        found = jax.device_get(jax.jit(run, compiler_options=options)(*jax.tree.leaves(arguments)))
    layers = [
        Layer(place.name, place.kind, *map(float, numbers[:-1]), finite=bool(numbers[-1]))
        for place, numbers in zip(places, found, strict=True)
    ]
    # What rectifies after the last product belongs to the loss: the logarithm of a sigmoid does.
    last = max((i for i, layer in enumerate(layers) if layer.kind == "product"), default=-1)
    return layers[: last + 1]


def _run(
    jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any], path: str, places: list[_Place], found: list[Any]
) -> list[Any]:
    """Computes a jaxpr, appends numbers on its layers, and returns its outputs."""
    known: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    known |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, jax_core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        given = [read(atom) for atom in equation.invars]
        here = _join(path, str(equation.source_info.name_stack))
        inner = _called(equation)
        if inner is not None:
            results = _run(inner.jaxpr, inner.consts, given, here, places, found)
        else:
            made = equation.primitive.bind(*given, **equation.params)
            results = made if equation.primitive.multiple_results else [made]
            kind = _kind(equation)
            if kind:
                places.append(_Place(_name(here, equation, kind, places), kind))
                limits = SQUASHERS.get(equation.primitive.name)
                found.append(_numbers(kind, given, results[0], limits))
        known |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _called(equation: Any) -> Any:
    """Returns the jaxpr that an equation calls once, with its constants; None for any other equation."""
    if equation.primitive.name not in CALLS:
        return None
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = equation.params.get(key)
        if inner is not None:
            return inner if isinstance(inner, jax_core.ClosedJaxpr) else jax_core.ClosedJaxpr(inner, [])
    return None


def _kind(equation: Any) -> str | None:
    name = equation.primitive.name
    if name in PRODUCTS:
        return "product"
    if name in SQUASHERS:
        return "squasher"
    is_rectifier = name == "max" and any(
        isinstance(atom, jax_core.Literal) and np.ndim(atom.val) == 0 and atom.val == 0 for atom in equation.invars
    )
    return "rectifier" if is_rectifier else None


def _numbers(
    kind: str, given: Sequence[Any], output: Any, limits: tuple[float, float] | None = None
) -> tuple[Any, ...]:
    """Returns the numbers of `Layer`, without name and kind, as scalars of the program."""
    operand = given[0] if kind == "product" else next(value for value in given if jnp.ndim(value))
    taken = jnp.asarray(operand, jnp.float32)
    values = jnp.asarray(output, jnp.float32)
    dead = jnp.zeros(())
    if kind == "rectifier" and values.ndim >= 2:
        axes = tuple(range(values.ndim - 1))
        varies = jnp.ptp(taken, axis=axes) > 0
        dead = ((values == 0).all(axis=axes) & varies).mean()
    if limits:
        low, high = limits
        near = AT_LIMIT * (high - low)
        dead = ((values < low + near) | (values > high - near)).mean(dtype=jnp.float32)
    finite = jnp.isfinite(values).all()
    return values.std(), jnp.abs(values).max(), taken.mean(), taken.std(), dead, finite


def _join(path: str, stack: str) -> str:
    """Joins the path of an equation to that of the one that calls it, without marks such as jvp(MLP)."""
    bare = re.sub(r"\w+\(|\)", "", stack)
    return "/".join(part for part in (path, bare) if part)


def _name(path: str, equation: Any, kind: str, before: list[_Place]) -> str:
    """Names a layer by its path, else by the line of the code that made it; others by the product before them."""
    products = [place.name for place in before if place.kind == "product"]
    if kind != "product" and products:
        return f"the {'rectifier' if kind == 'rectifier' else equation.primitive.name} after {products[-1]}"
    line = source_info_util.summarize(equation.source_info)
    return path or line.rpartition("/")[2] or equation.primitive.name
