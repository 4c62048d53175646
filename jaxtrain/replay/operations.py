"""A function as the list of its operations, which can be run again with a look at each of their values.

Compiled functions and derivatives are entered, so their operations stand in the list; loops and branches are one
operation each. Each has the layers and the line of code that JAX knows, and the arrays of the state that it takes.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.extend import core

from jaxtrain.core.metric_names import NORMS
from jaxtrain.core.trees import named_leaves
from jaxtrain.training.debugging.watch import INLINED, Place, bind, inner_jaxpr, place_of

FORWARDED = (
    *("reshape", "transpose", "broadcast_in_dim", "convert_element_type", "squeeze", "copy", "stop_gradient"),
    *("reshard", "expand_dims", "rev"),
)
"""Operations whose result is their operand in another form."""


class Constant(NamedTuple):
    """An operand that the program holds itself."""

    value: Any


Operand = int | Constant
"""The number of a value, or a constant."""


class Operation(NamedTuple):
    """An operation: JAX's equation, its operands, the numbers of its results, and its layers and line of code.

    direction: the part of a training step that it belongs to, "forward pass", "backward pass" or "update".
    """

    equation: Any
    operands: tuple[Operand, ...]
    results: tuple[int, ...]
    place: Place
    direction: str = "update"

    @property
    def name(self) -> str:
        """The primitive of JAX."""
        return self.equation.primitive.name

    @property
    def path(self) -> str:
        """The path of its module, where the library of the model names it; else empty."""
        return re.sub(r"\w+\(|\)", "", self.place.layers).strip("/")

    @property
    def line(self) -> str:
        """The file and the line of code, such as "mlp.py:35"; empty where it is unknown."""
        frame = self.place.frame
        return f"{Path(frame.file).name}:{frame.line}" if frame else ""


@dataclass(frozen=True)
class Program:
    """The operations of a function of named arrays.

    Attributes:
        operations: in the order in which they run.
        inputs: number of a value -> path of the argument, such as "params/Dense_0/kernel".
        outputs: path of the result -> operand.
        origins: number of a value -> path of the argument whose form alone it changes.
    """

    operations: Sequence[Operation]
    inputs: dict[int, str]
    outputs: dict[str, Operand]
    origins: dict[int, str]

    def run(self, leaves: Sequence[Any], look: Callable[[Operation, list[Any], list[Any]], None]) -> None:
        """Runs the operations on the leaves of the arguments; `look` gets each with its operands and results."""
        values = dict(zip(self.inputs, leaves, strict=True))
        with jax.numpy_dtype_promotion("standard"):
            for operation in self.operations:
                operands = [o.value if isinstance(o, Constant) else values[o] for o in operation.operands]
                results = bind(operation.equation, operands)
                look(operation, operands, results)
                values.update(zip(operation.results, results, strict=True))


def read_program(function: Callable[..., Any], **arguments: Any) -> Program:
    """Traces a function of trees by name; paths begin with the name of the argument, but those of `state` do not."""
    closed, shapes = jax.make_jaxpr(lambda arguments: function(**arguments), return_shape=True)(arguments)
    reader = _Reader()
    numbers = [reader.number() for _ in closed.jaxpr.invars]
    outputs = reader.read(closed.jaxpr, closed.consts, numbers, Place())
    inputs = dict(zip(numbers, (path.removeprefix("state/") for path, _ in named_leaves(arguments)), strict=True))
    named = dict(zip((path for path, _ in named_leaves(shapes)), outputs, strict=True))
    operations = _with_directions(reader.operations, [o for path, o in named.items() if _is_of_forward_pass(path)])
    return Program(operations, inputs, named, _origins(operations, inputs))


def _is_of_forward_pass(path: str) -> bool:
    """Tells whether a result of a training step, (state, metrics), comes from its forward pass."""
    return path.startswith(("1/", "0/model_state/")) and not path.startswith(f"1/{NORMS}")


def _with_directions(operations: Sequence[Operation], results: Sequence[Operand]) -> list[Operation]:
    """Returns the operations with their directions: JAX marks what it differentiates, and what it transposes.

    What it computes in the forward pass for derivatives alone, and no result needs, belongs to the backward pass.
    """
    needed = {operand for operand in results if not isinstance(operand, Constant)}
    directed: list[Operation] = []
    for operation in reversed(operations):
        layers = operation.place.layers
        is_needed = not needed.isdisjoint(operation.results)
        if is_needed:
            needed |= {operand for operand in operation.operands if not isinstance(operand, Constant)}
        direction = "update"
        if "jvp(" in layers:
            direction = "forward pass" if is_needed and "transpose(" not in layers else "backward pass"
        directed.append(operation._replace(direction=direction))
    return directed[::-1]


class _Reader:
    """Reads operations, and numbers their values."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._count = 0

    def number(self) -> int:
        """Returns a number that no other value has."""
        self._count += 1
        return self._count

    def read(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Operand], place: Place) -> list[Operand]:
        """Appends the operations of a jaxpr that is called at a place; returns its outputs."""
        known: dict[Any, Operand] = dict(zip(jaxpr.constvars, map(Constant, consts), strict=True))
        known |= dict(zip(jaxpr.invars, inputs, strict=True))

        def operand(atom: Any) -> Operand:
            return Constant(atom.val) if isinstance(atom, core.Literal) else known[atom]

        for equation in jaxpr.eqns:
            operands = tuple(map(operand, equation.invars))
            here = place_of(equation, place)
            if equation.primitive.name in INLINED:
                results: Sequence[Operand] = self.read(*inner_jaxpr(equation), operands, here)
            else:
                numbers = tuple(self.number() for _ in equation.outvars)
                self.operations.append(Operation(equation, operands, numbers, here))
                results = numbers
            known.update(zip(equation.outvars, results, strict=True))
        return list(map(operand, jaxpr.outvars))


def _origins(operations: Sequence[Operation], inputs: dict[int, str]) -> dict[int, str]:
    origins = dict(inputs)
    for operation in operations:
        (first, *_) = operation.operands or (Constant(None),)
        if operation.name in FORWARDED and isinstance(first, int) and first in origins:
            origins[operation.results[0]] = origins[first]
    return origins
