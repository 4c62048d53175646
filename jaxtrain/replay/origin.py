"""The origin of numbers that are not finite in a step: the first operation that gave one, and its operands.

The values of the step that are not finite are followed back from its results to the operation that made the first of
them. Infinities that are constants of the program, such as those of a mask, are wanted, and followed no further.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.trees import is_float
from jaxtrain.replay.operations import Constant, Operand, Operation, Program
from jaxtrain.training.debugging.watch import Checks, Frame, Site, bind, watch

LOOPS = ("scan", "while", "cond")


class Range(NamedTuple):
    """An operand or a result of an operation: its name where it is an array of the state or the batch, and its values.

    low and high are those of its finite values; not_finite counts the others.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    zeros: float
    not_finite: int


@dataclass(frozen=True)
class Origin:
    """The operation by which a step left the finite numbers; an `operation` of "" is an array that came so.

    rows: the places in the batch whose values it made not finite, where its result has a row for each.
    """

    operation: str
    direction: str
    layer: str
    frame: Frame | None
    operands: Sequence[Range]
    result: Range
    rows: Sequence[int]


class Flags(NamedTuple):
    """Whether a value holds what is not a number, and infinities."""

    nan: bool
    infinite: bool


def locate_origin(program: Program, leaves: Sequence[Any], results: Sequence[str]) -> int | None:
    """Runs a program with flags of all its float values; returns the one by which it left the finite numbers.

    It is judged by the results at these paths; None if all of them are finite.
    """
    flagged: list[int] = []

    def run(leaves: Sequence[Any]) -> Any:
        flagged.clear()
        flags: list[Any] = []

        def note(number: int, value: Any) -> None:
            if is_float(value):
                flagged.append(number)
                flags.append(jnp.stack([jnp.isnan(value).any(), jnp.isinf(value).any()]))

        def look(operation: Operation, operands: list[Any], results: list[Any]) -> None:
            del operands
            for number, value in zip(operation.results, results, strict=True):
                note(number, value)

        for number, leaf in zip(program.inputs, leaves, strict=True):
            note(number, jnp.asarray(leaf))
        program.run(leaves, look)
        return jnp.stack(flags)

    found = np.asarray(compiled(run)(leaves))
    flags = {number: Flags(*map(bool, own)) for number, own in zip(flagged, found, strict=True)}
    return find_origin(program, flags, [program.outputs[path] for path in results])


def find_origin(program: Program, flags: Mapping[int, Flags], results: Sequence[Operand]) -> int | None:
    """Returns the number of the value by which a program left the finite numbers, the first of several.

    It is that of an input where this is not finite itself; None if all `results` are finite.
    """
    maker = {number: i for i, operation in enumerate(program.operations) for number in operation.results}
    wanted = _wanted(program, flags)
    found: set[int] = set()
    seen: set[int] = set()
    waiting = [number for number in results if _is_bad(flags, number)]
    while waiting:
        number = waiting.pop()
        assert not isinstance(number, Constant)
        if number in seen:
            continue
        seen.add(number)
        before = _to_follow(program.operations[maker[number]], flags, wanted) if number in maker else []
        found |= set() if before else {number}
        waiting += before
    return min(found, key=lambda number: maker.get(number, -1), default=None)


def _is_bad(flags: Mapping[int, Flags], operand: Operand) -> bool:
    return not isinstance(operand, Constant) and any(flags.get(operand, (False, False)))


def _to_follow(operation: Operation, flags: Mapping[int, Flags], wanted: set[int]) -> list[int]:
    """Returns the operands that explain a result that is not finite: those that are no number, else infinite ones."""
    bad = [o for o in operation.operands if not isinstance(o, Constant) and _is_bad(flags, o) and o not in wanted]
    return [o for o in bad if flags[o].nan] or bad


def _wanted(program: Program, flags: Mapping[int, Flags]) -> set[int]:
    """Returns the values whose infinities come from constants of the program alone."""
    wanted: set[int] = set()

    def is_infinite_by_wish(operand: Operand) -> bool:
        if isinstance(operand, Constant):
            return _has_infinity(operand.value)
        return operand in wanted

    for operation in program.operations:
        bad = [o for o in operation.operands if _is_bad(flags, o) or is_infinite_by_wish(o)]
        if bad and all(map(is_infinite_by_wish, bad)):
            wanted |= {n for n in operation.results if n in flags and flags[n] == Flags(nan=False, infinite=True)}
    return wanted


def _has_infinity(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact) and bool(jnp.isinf(value).any())


def describe_origin(program: Program, leaves: Sequence[Any], layers: Sequence[str], number: int, rows: int) -> Origin:
    """Runs the program up to the operation that made a value, and describes it with what it got.

    Of a loop or a branch it is the first operation within it that gives what is not finite of finite operands.
    """
    if number in program.inputs:
        own = dict(zip(program.inputs, leaves, strict=True))[number]
        return Origin("", "", "", None, (), _range(program.inputs[number], own), ())
    index = next(i for i, operation in enumerate(program.operations) if number in operation.results)
    operation = program.operations[index]
    operands, results = _values_at(program, leaves, index)
    result = results[operation.results.index(number)]
    names = [program.origins.get(o, "") if not isinstance(o, Constant) else "a constant" for o in operation.operands]
    origin = Origin(
        operation.name,
        operation.direction,
        layers[index],
        operation.place.frame,
        [_range(*pair) for pair in zip(names, operands, strict=True) if is_float(pair[1])],
        _range("", result),
        _rows_of(result, rows),
    )
    return _within(origin, operation, operands) if operation.name in LOOPS else origin


def _values_at(program: Program, leaves: Sequence[Any], index: int) -> tuple[list[Any], list[Any]]:
    """Returns operands and results of an operation."""
    cut = replace(program, operations=program.operations[: index + 1])

    def run(leaves: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        last: list[Any] = []

        def look(operation: Operation, operands: list[Any], results: list[Any]) -> None:
            del operation
            last[:] = [[jnp.asarray(o) for o in operands], results]

        cut.run(leaves, look)
        return last[0], last[1]

    return compiled(run)(leaves)


def _within(origin: Origin, operation: Operation, operands: Sequence[Any]) -> Origin:
    """Returns the origin within a loop or a branch; the loop itself where no operation of it stands out."""

    def run(*operands: Any) -> tuple[Any, ...]:
        return tuple(bind(operation.equation, operands))

    sites: list[Site] = []
    _, code = compiled(watch(run, sites, _leaves_finite))(*operands)
    if not int(code):
        return origin
    site = sites[int(code) - 1]
    noted: list[tuple[list[Any], list[Any]]] = []
    again: list[Site] = []
    jax.block_until_ready(compiled(watch(run, again, _noting(again, int(code), noted)))(*operands))
    jax.effects_barrier()
    got, gave = noted[0]
    inner = re.sub(r"\w+\(|\)", "", site.layers).strip("/")
    return replace(
        origin,
        operation=site.operation,
        layer="/".join(filter(None, (origin.layer, inner))),
        frame=site.frame or origin.frame,
        operands=[_range("", value) for value in got if is_float(value)],
        result=next(_range("", value) for value in gave if not np.isfinite(value).all()),
        rows=(),
    )


def _leaves_finite(equation: Any, inputs: list[Any], values: list[Any]) -> Iterator[tuple[str, Any]]:
    """Yields whether an operation gives what is not finite of finite operands."""
    del equation
    if made := [value for value in values if is_float(value)]:
        yield (
            "what is not finite",
            _any_bad(made) & ~_any_bad([value for value in inputs if is_float(jnp.asarray(value))]),
        )


def _any_bad(values: Sequence[Any]) -> Any:
    return jnp.stack([jnp.zeros((), bool), *(~jnp.isfinite(value).all() for value in values)]).any()


def _noting(sites: list[Site], chosen: int, noted: list[tuple[list[Any], list[Any]]]) -> Checks:
    """Returns the checks of `_leaves_finite`; what the chosen site got and gave is noted when it goes wrong."""

    def note(is_wrong: Any, inputs: list[Any], values: list[Any]) -> None:
        if is_wrong:
            noted.append((list(map(np.array, inputs)), list(map(np.array, values))))

    def checks(equation: Any, inputs: list[Any], values: list[Any]) -> Iterator[tuple[str, Any]]:
        for wrong, is_wrong in _leaves_finite(equation, inputs, values):
            if len(sites) + 1 == chosen:
                jax.debug.callback(note, is_wrong, inputs, values)
            yield wrong, is_wrong

    return checks


def _range(name: str, value: Any) -> Range:
    values = np.asarray(jax.device_get(jnp.asarray(value).astype(jnp.float32)))
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (np.nan, np.nan)
    zeros = float((values == 0).mean()) if values.size else 0.0
    return Range(name, values.shape, str(jnp.asarray(value).dtype), low, high, zeros, int(values.size - finite.size))


def _rows_of(result: Any, rows: int) -> list[int]:
    """Returns the places in the batch where a result is not finite; empty unless it has a row for each."""
    values = np.asarray(jax.device_get(jnp.asarray(result).astype(jnp.float32)))
    if values.ndim == 0 or len(values) != rows:
        return []
    return np.flatnonzero(~np.isfinite(values.reshape(rows, -1)).all(axis=1)).tolist()


def compiled(function: Callable[..., Any]) -> Any:
    """Compiles a function that runs once, lightly optimised on a CPU."""
    return jax.jit(function, compiler_options=LIGHT if jax.default_backend() == "cpu" else None)


LIGHT = {"xla_backend_optimization_level": 0}
