"""Names the layers of a program, and finds the value that each layer of its forward pass gives."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain.replay.operations import FORWARDED, Constant, Operation, Program

PARAMETERS = ("params/", "frozen/")


class Measure(NamedTuple):
    """Numbers on an array, over its finite values: mean, standard deviation, largest magnitude, share of zeros.

    not_finite: how many values are not; first: the place of the first of them in the flat array, -1 for none.
    """

    mean: Any
    deviation: Any
    largest: Any
    zeros: Any
    not_finite: Any
    first: Any


class Activation(NamedTuple):
    """An output of a layer: its name, line of code, the place of its operation, the number of the value."""

    layer: str
    line: str
    place: int
    result: int


def measure(array: Any) -> Measure:
    """Measures an array, in float32; of a traced one the numbers are traced."""
    values = jnp.asarray(array).astype(jnp.float32).ravel()
    finite = jnp.isfinite(values)
    kept = jnp.where(finite, values, 0.0)
    largest = jnp.abs(kept).max(initial=0.0)
    scaled = kept / jnp.where(largest > 0, largest, 1.0)  # sums and squares of large numbers would overflow
    count = jnp.maximum(finite.sum(), 1).astype(jnp.float32)
    mean = scaled.sum() / count
    deviation = jnp.sqrt(jnp.where(finite, jnp.square(scaled - mean), 0.0).sum() / count)
    first = jnp.where(finite.all(), -1, jnp.argmin(finite))
    zeros = (values == 0).mean()
    return Measure(largest * mean, largest * deviation, largest, zeros, (~finite).sum(), first)


def as_numbers(measured: Measure) -> Measure:
    """Returns the numbers of a measure on the host."""
    host = jax.device_get(measured)
    return Measure(*map(float, host[:4]), not_finite=int(host.not_finite), first=int(host.first))


def name_layers(program: Program) -> list[str]:
    """Returns the name of the layer of each operation; empty where it is unknown.

    It is the path of the module, where the model's library names it. Else it is the module of the array of parameters
    that the operation takes, or that an operation before it took last; in the backward pass that of the same line. An
    operation of the update has the path of its array.
    """
    names: list[str] = []
    by_line: dict[str, set[str]] = {}
    last = ""
    for operation in program.operations:
        taken = _taken(program, operation)
        if operation.direction == "forward pass":
            last = operation.path or _module(taken) or last
            by_line.setdefault(operation.line, set()).add(last)
            names.append(last)
        elif operation.direction == "backward pass":
            known = by_line.get(operation.line, set())
            names.append(operation.path or _module(taken) or (next(iter(known)) if len(known) == 1 else ""))
        else:
            names.append(taken)
    return names


def _taken(program: Program, operation: Operation) -> str:
    """Returns the path of the first array of parameters, or of the optimizer's, that an operation takes."""
    paths = [program.origins[o] for o in operation.operands if not isinstance(o, Constant) and o in program.origins]
    return next((path for path in paths if path.startswith((*PARAMETERS, "opt_state/"))), "")


def _module(path: str) -> str:
    """Returns the module of an array of parameters: its path without the last name, unless that is a number."""
    if not path.startswith(PARAMETERS):
        return ""
    inner = path.partition("/")[2]
    module, _, name = inner.rpartition("/")
    return inner if not module or name.isdigit() else module


def find_activations(program: Program, names: list[str], rows: int) -> list[Activation]:
    """Returns what each layer gives: the last value (rows, ...) of it that another layer of the forward pass takes.

    Operations that follow each other belong together while they are of one layer and line of code. What comes after the
    last parameter belongs to the loss.
    """
    forward = [i for i, operation in enumerate(program.operations) if operation.direction == "forward pass"]
    groups = _group(program, names, forward)
    maker = {number: groups[i] for i in forward for number in program.operations[i].results}
    leaving = {
        number
        for i in forward
        for number in program.operations[i].operands
        if not isinstance(number, Constant) and maker.get(number, groups[i]) != groups[i]
    }
    computing = {groups[i] for i in forward if program.operations[i].name not in FORWARDED}
    last = max((groups[i] for i in forward if _module(_taken(program, program.operations[i]))), default=-1)
    found: dict[int, Activation] = {}
    for i in forward:
        operation = program.operations[i]
        for number, variable in zip(operation.results, operation.equation.outvars, strict=True):
            is_given = number in leaving and groups[i] in computing and groups[i] <= last
            if is_given and _is_activation(variable.aval, rows):
                found[groups[i]] = Activation(names[i], operation.line, i, number)
    return list(found.values())


def _group(program: Program, names: list[str], places: list[int]) -> dict[int, int]:
    """Numbers the groups of operations that follow each other and are of one layer and line of code."""
    runs = itertools.groupby(places, key=lambda place: (names[place], program.operations[place].line))
    return {place: number for number, (_, run) in enumerate(runs) for place in run}


def _is_activation(shape: Any, rows: int) -> bool:
    return len(shape.shape) >= 2 and shape.shape[0] == rows and jnp.issubdtype(shape.dtype, jnp.floating)
