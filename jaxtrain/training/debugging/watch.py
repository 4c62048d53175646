"""Watches every operation of a function: not-a-numbers, indices out of bounds, divisions by zero.

The function is traced to JAX's list of operations, which is run again with checks between them. Loops, branches and
compiled functions are entered; a loop keeps the number of the first operation that went wrong among its values.
"""

import functools
import re
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

INLINED = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2", "custom_jvp_call", "custom_vjp_call")
"""Operations that only call a function, which is entered."""

LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
"""The folders of code of others, such as JAX."""


class Frame(NamedTuple):
    """A line of code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """Returns it as editors read it."""
        return f"{self.file}:{self.line} in {self.function}"


class Site(NamedTuple):
    """A check of an operation: what goes wrong there, the operation, its layers as JAX names them, its line of code."""

    wrong: str
    operation: str
    layers: str
    frame: Frame | None

    def __str__(self) -> str:
        """Describes what went wrong and where."""
        names = re.sub(r"(transpose|jvp|vmap)\(|\)", "", self.layers).strip("/")
        layers = f", in {names}" if names else ""
        line = f", at {self.frame}" if self.frame else ""
        return f"{self.wrong} in the operation {self.operation!r} of the {self.direction}{layers}{line}"

    @property
    def direction(self) -> str:
        """The pass that the operation belongs to: JAX transposes the operations of a gradient."""
        return "backward pass" if "transpose(" in self.layers else "forward pass or the update"


class Place(NamedTuple):
    """The line and the layers of an operation, or of the call that is entered; none at first."""

    frame: Frame | None = None
    layers: str = ""


NONE = np.int32(0)
"""The number of no check."""


class _Watched(NamedTuple):
    """Values of operations that were run, and the number of the first that went wrong, 0 for none."""

    values: list[Any]
    code: Any


def what_goes_wrong(equation: Any, inputs: list[Any], values: list[Any]) -> Iterable[tuple[str, Any]]:
    """Yields what may be wrong with an operation, and whether it is, bool ()."""
    yield from _checks_of_inputs(equation, inputs)
    floats = [value for value in values if jnp.issubdtype(value.dtype, jnp.inexact)]
    if floats:
        yield "not a number", jnp.stack([jnp.isnan(value).any() for value in floats]).any()


Checks = Callable[[Any, list[Any], list[Any]], Iterable[tuple[str, Any]]]
"""(equation, inputs, results) -> what may be wrong, and whether it is, like `what_goes_wrong`."""


def watch(
    function: Callable[..., Any], sites: list[Site], checks: Checks = what_goes_wrong
) -> Callable[..., tuple[Any, jax.Array]]:
    """Returns the function with a second output: the number, int32 from 1, of the first of `sites` that went wrong.

    It is 0 if nothing did. Each check that is traced is appended to `sites`.
    """

    def watched(*arguments: Any) -> tuple[Any, jax.Array]:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        outputs = _Run(sites, checks).body(closed, jax.tree.leaves(arguments), Place())
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs.values), outputs.code

    return watched


class _Run:
    """Runs operations with checks."""

    def __init__(self, sites: list[Site], checks: Checks) -> None:
        self._sites = sites
        self._checks = checks

    def body(self, closed: Any, inputs: Sequence[Any], place: Place) -> _Watched:
        """Runs the operations of a function, a branch or a loop; `place` is where it was called."""
        codes: list[jax.Array] = []
        values = self._jaxpr(closed.jaxpr, closed.consts, inputs, place, codes)
        return _Watched(values, _first(codes))

    def _jaxpr(
        self, jaxpr: Any, consts: Iterable[Any], inputs: Iterable[Any], place: Place, codes: list[jax.Array]
    ) -> list[Any]:
        """Runs a list of operations; appends to `codes` the number of each check that went wrong, 0 for the others."""
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, core.Literal) else values[atom]

        for equation in jaxpr.eqns:
            outputs = self._equation(equation, [read(atom) for atom in equation.invars], place, codes)
            values.update(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: Any, inputs: list[Any], place: Place, codes: list[jax.Array]) -> list[Any]:
        name = equation.primitive.name
        if name in INLINED:
            return self._jaxpr(*inner_jaxpr(equation), inputs, place_of(equation, place), codes)
        if name in ("scan", "while", "cond"):
            outputs = getattr(self, f"_{name}")(equation.params, inputs, place_of(equation, place))
            codes.append(outputs.code)
            return outputs.values
        values = bind(equation, inputs)
        for wrong, is_wrong in self._checks(equation, inputs, values):
            codes.append(self._check(is_wrong, wrong, equation, place))
        return values

    def _check(self, is_wrong: Any, wrong: str, equation: Any, place: Place) -> jax.Array:
        frame, layers = place_of(equation, place)
        self._sites.append(Site(wrong, equation.primitive.name, layers, frame))
        return jnp.where(is_wrong, np.int32(len(self._sites)), np.int32(0))

    def _scan(self, params: Any, inputs: list[Any], place: Place) -> _Watched:
        consts = inputs[: params["num_consts"]]
        carried = inputs[len(consts) : len(consts) + params["num_carry"]]

        def body(carry: Any, rows: Any) -> Any:
            code, *carried = carry
            outputs = self.body(params["jaxpr"], [*consts, *carried, *rows], place)
            return (_first([code, outputs.code]), *outputs.values[: len(carried)]), outputs.values[len(carried) :]

        rows = inputs[len(consts) + len(carried) :]
        options = {name: params[name] for name in ("length", "reverse", "unroll")}
        (code, *carried), stacked = lax.scan(body, (NONE, *carried), rows, **options)
        return _Watched([*carried, *stacked], code)

    def _while(self, params: Any, inputs: list[Any], place: Place) -> _Watched:
        of_condition = inputs[: params["cond_nconsts"]]
        of_body = inputs[len(of_condition) : len(of_condition) + params["body_nconsts"]]
        condition = core.jaxpr_as_fun(params["cond_jaxpr"])

        def body(carry: Any) -> Any:
            code, *carried = carry
            outputs = self.body(params["body_jaxpr"], [*of_body, *carried], place)
            return (_first([code, outputs.code]), *outputs.values)

        carried = inputs[len(of_condition) + len(of_body) :]
        code, *carried = lax.while_loop(lambda carry: condition(*of_condition, *carry[1:])[0], body, (NONE, *carried))
        return _Watched(carried, code)

    def _cond(self, params: Any, inputs: list[Any], place: Place) -> _Watched:
        index, *operands = inputs
        if params.get("branches_platforms"):
            chosen = _of_this_platform(params["branches_platforms"])
            return self.body(params["branches"][chosen], operands, place)

        def enter(closed: Any) -> Callable[..., Any]:
            return lambda *inputs: tuple(self.body(closed, inputs, place))

        return _Watched(*lax.switch(index, [enter(branch) for branch in params["branches"]], *operands))


def _first(codes: Sequence[Any]) -> Any:
    """Returns the first of the numbers that is not 0, or 0.

    A chain of comparisons, one behind each check, would keep XLA compiling for minutes where there are thousands.
    """
    if not codes:
        return NONE
    numbers = jnp.stack(codes)
    return numbers[jnp.argmax(numbers != 0)]


def _of_this_platform(platforms: Sequence[Sequence[str] | None]) -> int:
    """Returns the number of the branch for this platform; of a branch for all others the platforms are None.

    XLA would compile all branches of a switch, also those of other platforms.
    """
    return next(i for i, names in enumerate(platforms) if names is None or jax.default_backend() in names)


def _checks_of_inputs(equation: Any, inputs: list[Any]) -> Iterable[tuple[str, Any]]:
    """Yields what may be wrong with the inputs of an operation, and whether it is, bool ()."""
    name = equation.primitive.name
    if name in ("div", "rem"):
        yield "division by zero", jnp.equal(inputs[1], jnp.zeros((), inputs[1].dtype)).any()
    if name == "integer_pow" and equation.params["y"] < 0:
        yield "division by zero", jnp.equal(inputs[0], jnp.zeros((), inputs[0].dtype)).any()
    if bounds := _bounds(equation, inputs):
        indices, highest = bounds
        yield "an index out of bounds", ((indices < 0) | (indices > highest)).any()


def _bounds(equation: Any, inputs: list[Any]) -> tuple[Any, np.ndarray] | None:
    """Returns the indices of an operation, (..., axes), and the highest one that each axis allows; None without."""
    name = equation.primitive.name
    if not (name in ("gather", "dynamic_slice", "dynamic_update_slice") or name.startswith("scatter")):
        return None
    shape = np.array(equation.invars[0].aval.shape, np.int64)
    if name.startswith("dynamic"):
        first = 1 if name == "dynamic_slice" else 2
        sizes = equation.params["slice_sizes"] if first == 1 else equation.invars[1].aval.shape
        if not inputs[first:]:
            return None
        return jnp.stack([lax.convert_element_type(i, jnp.int32) for i in inputs[first:]]), _int32(shape - sizes)
    if equation.params["mode"] == lax.GatherScatterMode.CLIP:  # asked for
        return None
    numbers = equation.params["dimension_numbers"]
    if name == "gather":
        axes = np.array(numbers.start_index_map, np.int64)
        sizes = np.array(equation.params["slice_sizes"], np.int64)
    else:
        axes = np.array(numbers.scatter_dims_to_operand_dims, np.int64)
        sizes = np.ones(len(shape), np.int64)
        inserted = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
        window = [axis for axis in range(len(shape)) if axis not in inserted]
        sizes[window] = [equation.invars[2].aval.shape[axis] for axis in numbers.update_window_dims]
    indices = inputs[1]
    return (indices, _int32((shape - sizes)[axes], indices.ndim)) if len(axes) else None


def _int32(values: np.ndarray, rank: int = 1) -> np.ndarray:
    """Returns int32 values along the last of `rank` axes."""
    return values.astype(np.int32).reshape((1,) * (rank - 1) + (-1,))


def bind(equation: Any, inputs: Sequence[Any]) -> list[Any]:
    """Runs an operation; returns its results."""
    bound = equation.primitive.get_bind_params(equation.params)
    functions, params = ((), bound) if isinstance(bound, dict) else bound  # a pair before JAX 0.10
    values = equation.primitive.bind(*functions, *inputs, **params)
    return list(values) if equation.primitive.multiple_results else [values]


def inner_jaxpr(equation: Any) -> tuple[Any, Sequence[Any]]:
    """Returns the jaxpr of the function that an operation calls, and its constants."""
    inner = next(equation.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in equation.params)
    return (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())


def place_of(equation: Any, call: Place) -> Place:
    """Returns the layers of an operation, and its line: the innermost one that is no library's, or that of the call.

    JAX keeps compiled functions with their own lines alone, so one of a library, such as `jnp.where`, has none.
    """
    traceback = equation.source_info.traceback
    frames = [Frame(f.file_name, f.line_num, f.function_name) for f in traceback.frames] if traceback else []
    own = [frame for frame in frames if not _is_of_library(frame.file)]
    layers = "/".join(part for part in (call.layers, str(equation.source_info.name_stack)) if part)
    return Place(own[0] if own else call.frame, layers)


@functools.cache
def _is_of_library(file: str) -> bool:
    return file.startswith(("<", *LIBRARIES)) and Path(__file__).parents[2] not in Path(file).parents
