"""A knob: one keyword argument of a member as a key of the config, with its type and constraints."""

import ast
import inspect
import math
import re
import struct
import sys
import types
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin

from jaxtrain.errors import ConfigError, Words, nearest

MISSING: Any = inspect.Parameter.empty
"""Marks a knob without a default, which must be given."""


LARGEST = 3.4028234663852886e38
"""The largest finite float32; every float enters the program as float32."""


LARGEST_INTEGER = 2**63 - 1
"""The largest integer that a knob takes: sizes, counts and seeds of programs have 64 bits."""

MOST_NESTED = 20
"""The deepest nesting of a value: Python and JAX walk values by recursion, and deep ones overflow their stacks."""

MOST_ITEMS = 10_000
"""The most items of a tuple."""


class Text(str):
    """A value as typed on the command line; the knob that it sets converts it to its own type."""


class Constraint(Protocol):
    """A constraint that an annotation adds to a type, as in `Annotated[float, Bounds(0, 1)]`."""

    def accepts(self, value: Any) -> bool:
        """Returns whether a value of the right type is allowed."""
        ...


@dataclass(frozen=True)
class Bounds:
    """An interval of allowed numbers; `open_low` and `open_high` exclude its ends."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def accepts(self, value: Any) -> bool:
        """Returns whether a number, or each of a tuple, is in the interval; accepts other types (`Fraction | str`)."""
        if isinstance(value, tuple):
            return all(map(self.accepts, value))
        if not isinstance(value, int | float):
            return True
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    @property
    def excluded(self) -> tuple[float, ...]:
        """The ends that are not allowed."""
        return (*([self.low] if self.open_low else []), *([self.high] if self.open_high else []))

    def __str__(self) -> str:
        """Describes the interval in words."""
        low = f"{'above' if self.open_low else 'at least'} {self.low}" if self.low > -math.inf else ""
        high = f"{'below' if self.open_high else 'at most'} {self.high}" if self.high < math.inf else ""
        return " and ".join(filter(None, (low, high)))


@dataclass(frozen=True)
class OncePerRun:
    """Marks a float that cannot follow a schedule, since the optimizer reads it once or builds its state on it."""

    def accepts(self, value: float) -> bool:
        """Accepts any number: the mark limits when a value may change, not the value."""
        return True

    def __str__(self) -> str:
        """Describes the mark in words."""
        return "one number for the whole run"


@dataclass(frozen=True)
class RegularExpression:
    """A string that Python's `re` can compile."""

    def accepts(self, value: Any) -> bool:
        """Returns whether a string compiles; accepts other types."""
        try:
            return not isinstance(value, str) or bool(re.compile(value))
        except re.error:
            return False

    def __str__(self) -> str:
        """Describes the constraint in words."""
        return "a regular expression"


@dataclass(frozen=True)
class NotEmpty:
    """A tuple with at least one element, or a text that is not blank."""

    def accepts(self, value: Any) -> bool:
        """Returns whether a tuple has an element, and a text more than spaces; accepts other types."""
        return bool(value.strip()) if isinstance(value, str) else value != ()

    def __str__(self) -> str:
        """Describes the constraint in words."""
        return "not empty"


@dataclass(frozen=True)
class ServerUri:
    """The address of a server, or "file"; a password has its place in a variable, since a run saves its config."""

    def accepts(self, value: Any) -> bool:
        """Returns whether a string is such an address; accepts other types."""
        if not isinstance(value, str) or value == "file":
            return True
        try:
            parts = urllib.parse.urlsplit(value)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is no number, or brackets without their pair
            return False
        return (
            valid and value.isprintable() and " " not in value and not (parts.username or parts.query or parts.fragment)
        )

    def __str__(self) -> str:
        """Describes the constraint in words."""
        return "http://HOST:PORT or https://HOST without a password, or 'file'"


@dataclass(frozen=True)
class AtMost:
    """A tuple with a limited number of elements."""

    count: int

    def accepts(self, value: Any) -> bool:
        """Returns whether a tuple is short enough; accepts other types."""
        return not isinstance(value, tuple) or len(value) <= self.count

    def __str__(self) -> str:
        """Describes the constraint in words."""
        return f"at most {self.count} of them"


MOST_LAYERS = 256
"""The most widths of a model: XLA takes minutes beyond, and its memory and stack grow with the layers."""

Positive = Annotated[float, Bounds(0, open_low=True)]
NonNegative = Annotated[float, Bounds(0)]
Fraction = Annotated[float, Bounds(0, 1)]
Probability = Annotated[float, Bounds(0, 1, open_high=True)]
Count = Annotated[int, Bounds(1)]
Widths = Annotated[tuple[int, ...], Bounds(1), AtMost(MOST_LAYERS)]
Name = Annotated[str, NotEmpty()]
Pattern = Annotated[str, RegularExpression(), NotEmpty()]
ServerAddress = Annotated[str, ServerUri()]


@dataclass(frozen=True)
class Knob:
    """Name, types, constraints, choices and default of one keyword argument.

    `types` is empty if neither the annotation nor the default gives a type: then any value is accepted unchanged.
    """

    name: str
    types: tuple[type, ...]
    constraints: tuple[Constraint, ...] = ()
    choices: tuple[Any, ...] = ()
    element: type | None = None
    default: Any = MISSING

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        tuples = f"a tuple of {self.element.__name__}" if self.element else "a tuple"
        names = {type(None): "None", bool: "True or False", tuple: tuples}
        listed = [", ".join(map(repr, self.choices))] if self.choices else []
        kinds = [names.get(kind, kind.__name__) for kind in self.types if kind not in map(type, self.choices)]
        return ", ".join([" or ".join(listed + kinds) or "any value", *map(str, self.constraints)])

    @property
    def once_per_run(self) -> bool:
        """Whether the value is fixed for the whole run and cannot follow a schedule."""
        return any(isinstance(constraint, OncePerRun) for constraint in self.constraints)

    def is_traced(self, value: Any) -> bool:
        """Whether this value is a hyperparameter: a float that enters the compiled program as an input."""
        return isinstance(value, float)

    def check(self, key: str, value: Any) -> Any:
        """Converts the value to the knob's type; raises ConfigError with key, value and the allowed values."""
        converted = self._convert(_to_python(value))
        if isinstance(converted, tuple) and len(converted) > MOST_ITEMS:
            raise ConfigError(key, Words(f"a tuple of {len(converted):,} items"), f"at most {MOST_ITEMS:,} of them")
        if isinstance(converted, float) and not abs(converted) <= LARGEST:
            raise ConfigError(key, value, self.allowed, "Give a finite number that float32 can hold")
        if _has_float(converted) and converted != self.default:  # a saved config may contain the default of a signature
            raise ConfigError(
                key, value, self.allowed, "Leave floats out of tuples: they cannot be hyperparameters there"
            )
        if converted is MISSING or not self._accepts(converted):
            raise ConfigError(key, value, self.allowed, self._hint(value))
        if isinstance(converted, float) and self._rounds_to_end(converted):
            hint = f"Move it away from that end: in float32, in which runs compute, it is {_as_float32(converted)}"
            raise ConfigError(key, value, self.allowed, hint)
        return converted

    def _rounds_to_end(self, value: float) -> bool:
        """Tells whether a number is an excluded end once it is rounded: an averaging of 1.0 would never move."""
        bounds = [constraint for constraint in self.constraints if isinstance(constraint, Bounds)]
        return any(end == _as_float32(value) for interval in bounds for end in interval.excluded)

    def _hint(self, value: Any) -> str:
        """Suggests what was probably meant: the nearest choice, a tuple of one element, or a number that is no slip."""
        if _is_too_large(_literal(value) if isinstance(value, Text) else value):
            return "Give an integer that 64 bits can hold"
        if self.types == (tuple,) and isinstance(_literal(value) if isinstance(value, Text) else value, str | int):
            return f"Write a tuple of one as ({_literal(Text(value))!r},)"
        return nearest(str(value), map(str, self.choices))

    def _accepts(self, value: Any) -> bool:
        if value is None:
            return not self.types or type(None) in self.types
        if type(value) in map(type, self.choices):
            return value in self.choices
        return all(constraint.accepts(value) for constraint in self.constraints)

    def _convert(self, value: Any) -> Any:
        """Converts a value to one of the knob's types; returns MISSING if it fits none."""
        if isinstance(value, Text):
            typed = self._convert(_literal(value))
            return str(value) if typed is MISSING and str in self.types else typed
        if type(value) is int and float in self.types and int not in self.types:
            return float(value) if abs(value) <= LARGEST else MISSING
        if type(value) is float and value.is_integer() and int in self.types and float not in self.types:
            value = int(value)
        if _is_too_large(value):
            return MISSING
        if not self.types or type(value) in self.types:
            return self._convert_elements(value) if isinstance(value, tuple) else value
        return MISSING

    def _convert_elements(self, value: tuple[Any, ...]) -> Any:
        """Returns the tuple, or MISSING if an element has another type than the annotation's."""
        if self.element is None or all(type(item) is self.element for item in value):
            return value
        return MISSING


def knob_of(parameter: inspect.Parameter, function: Callable[..., Any]) -> Knob:
    """Makes the knob of one parameter, typed by its annotation where that is understood, else by its default.

    Annotations of other libraries are often strings with undefined names, or unions with schedules. Then the type of
    the default is used, and an argument called `learning_rate` is a float.
    """
    annotation, constraints = _unwrap(_evaluate(parameter.annotation, function))
    types_, choices, element = _parse_types(annotation)
    default = _to_python(parameter.default)
    if not types_ and isinstance(default, bool | int | float | str | tuple):
        types_ = (type(default),)
    if not types_ and parameter.name == "learning_rate":
        types_ = (float,)
    if types_ and default is None and type(None) not in types_:
        types_ = (*types_, type(None))
    if float in types_ and type(default) is int:
        default = float(default)
    return Knob(parameter.name, types_, constraints, choices, element, default)


def as_python(value: Any) -> Any:
    """Converts a value that has no knob: typed text is a Python literal, lists become tuples, also inside mappings."""
    if isinstance(value, Mapping):
        return {key: as_python(inner) for key, inner in value.items()}
    return _literal(value) if isinstance(value, Text) else _to_python(value)


def is_config_value(default: Any) -> bool:
    """Returns whether a config can hold a default: whether it survives being saved as JSON and read again."""
    default = _to_python(default)
    if isinstance(default, tuple):
        return all(map(is_config_value, default))
    return default is MISSING or default is None or type(default) in (bool, int, float, str)


def _evaluate(annotation: Any, function: Callable[..., Any]) -> Any:
    """Evaluates an annotation that is a string; returns MISSING if one of its names is undefined."""
    if not isinstance(annotation, str):
        return annotation
    original = inspect.unwrap(function)
    try:
        names = original.__globals__ if inspect.isfunction(original) else vars(sys.modules[original.__module__])
        return eval(annotation, names)
    except Exception:
        return MISSING


def _unwrap(annotation: Any) -> tuple[Any, tuple[Constraint, ...]]:
    """Splits `Annotated[type, constraint, ...]`, also inside `... | None`, into the type and its constraints."""
    if get_origin(annotation) is Annotated:
        annotated, *constraints = get_args(annotation)
        inner, more = _unwrap(annotated)
        return inner, (*more, *constraints)
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [_unwrap(part) for part in get_args(annotation)]
        constraints = tuple(constraint for _, inner in parts for constraint in inner)
        return Union[tuple(inner for inner, _ in parts)], constraints  # noqa: UP007
    return annotation, ()


def _parse_types(annotation: Any) -> tuple[tuple[type, ...], tuple[Any, ...], type | None]:
    """Returns (types, choices, element type of a tuple); no types if a config cannot hold the annotated type."""
    kinds: list[type] = []
    choices: tuple[Any, ...] = ()
    element: type | None = None
    for part in get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,):
        if get_origin(part) is Literal:
            choices += get_args(part)
            kinds += {type(choice) for choice in get_args(part)}
        elif get_origin(part) in (tuple, list) or part in (tuple, list):
            element = next((kind for kind in get_args(part) if kind in (int, str, bool)), None)
            kinds.append(tuple)
        elif part in (bool, int, float, str, type(None)):
            kinds.append(part)
        else:
            return (), (), None
    return tuple(dict.fromkeys(kinds)), choices, element


def _to_python(value: Any) -> Any:
    """Converts lists to tuples, and scalars of NumPy and JAX to Python numbers, without importing either library."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return tuple(map(_to_python, value)) if isinstance(value, list | tuple) else value


def _literal(text: str) -> Any:
    """Parses a Python literal; returns the text itself if it is not one, or is nested too deep."""
    try:
        value = ast.literal_eval(str(text))
        return str(text) if is_too_deep(value) else _to_python(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}.get(text.lower(), str(text))


def _as_float32(value: float) -> float:
    """Rounds a number as the compiled program does: 0.99999999999 becomes 1.0, and 1e-60 becomes 0.0."""
    return struct.unpack("f", struct.pack("f", value))[0]


def _is_too_large(value: Any) -> bool:
    items = value if isinstance(value, tuple) else (value,)
    return any(type(item) is int and abs(item) > LARGEST_INTEGER for item in items)


def is_too_deep(value: Any, levels: int = MOST_NESTED) -> bool:
    """Returns whether lists, tuples and mappings are nested deeper than `levels`, as those in themselves are."""
    inner = [value]
    for _ in range(levels):
        nested = [item for item in inner if isinstance(item, list | tuple | Mapping)]
        items = [part for item in nested for part in (item.values() if isinstance(item, Mapping) else item)]
        inner = list({id(part): part for part in items}.values())  # once each, or a value in itself would double
        if not inner:
            return False
    return any(isinstance(item, list | tuple | Mapping) for item in inner)


def _has_float(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(item, float) or _has_float(item) for item in value)
