"""A knob: one keyword argument of a member, as the config sees it, with what it may be."""

import ast
import inspect
import math
import re
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin

from jaxtrain.errors import ConfigError, nearest

MISSING: Any = inspect.Parameter.empty
"""The default of a knob that has none: it must be given."""


LARGEST = 3.4028234663852886e38
"""The largest number of float32, in which every float enters the program."""


class Text(str):
    """A value as it was typed on the command line; the knob that receives it decides what it means."""


class Constraint(Protocol):
    """What an annotation may add to a type: `Annotated[float, Bounds(0, 1)]`."""

    def accepts(self, value: Any) -> bool:
        """Tells whether a value of the right type may be used."""
        ...


@dataclass(frozen=True)
class Bounds:
    """The interval in which a number must lie; `open_low` and `open_high` leave its ends out."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def accepts(self, value: Any) -> bool:
        """Tells whether a number, or all of a tuple, lies in the interval; no number (`Fraction | str`) may pass."""
        if isinstance(value, tuple):
            return all(map(self.accepts, value))
        if not isinstance(value, int | float):
            return True
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        """Writes the interval in words."""
        low = f"{'above' if self.open_low else 'at least'} {self.low}" if self.low > -math.inf else ""
        high = f"{'below' if self.open_high else 'at most'} {self.high}" if self.high < math.inf else ""
        return " and ".join(filter(None, (low, high)))


@dataclass(frozen=True)
class OncePerRun:
    """Marks a float that no schedule can move: read when the optimizer's state is made, or built into what it holds."""

    def accepts(self, value: float) -> bool:
        """Accepts any number: the mark limits how often a value may change, not what it is."""
        return True

    def __str__(self) -> str:
        """Says what the mark means."""
        return "one number for the whole run"


@dataclass(frozen=True)
class RegularExpression:
    """A text that Python's `re` can compile."""

    def accepts(self, value: Any) -> bool:
        """Tells whether a text can be compiled; what is no text may pass."""
        try:
            return not isinstance(value, str) or bool(re.compile(value))
        except re.error:
            return False

    def __str__(self) -> str:
        """Says what is wanted."""
        return "a regular expression"


@dataclass(frozen=True)
class NotEmpty:
    """A tuple that holds something."""

    def accepts(self, value: Any) -> bool:
        """Tells whether there is something in a tuple; what is none may pass."""
        return value != ()

    def __str__(self) -> str:
        """Says what is wanted."""
        return "not empty"


Positive = Annotated[float, Bounds(0, open_low=True)]
NonNegative = Annotated[float, Bounds(0)]
Fraction = Annotated[float, Bounds(0, 1)]
Probability = Annotated[float, Bounds(0, 1, open_high=True)]
Count = Annotated[int, Bounds(1)]
Widths = Annotated[tuple[int, ...], Bounds(1)]
Pattern = Annotated[str, RegularExpression()]


@dataclass(frozen=True)
class Knob:
    """Name, types, constraints, choices and default of one keyword argument.

    `types` is empty where neither annotation nor default says what it is: then any value is taken as it comes.
    """

    name: str
    types: tuple[type, ...]
    constraints: tuple[Constraint, ...] = ()
    choices: tuple[Any, ...] = ()
    element: type | None = None
    default: Any = MISSING

    @property
    def allowed(self) -> str:
        """What may be given, in words."""
        tuples = f"a tuple of {self.element.__name__}" if self.element else "a tuple"
        names = {type(None): "None", bool: "True or False", tuple: tuples}
        listed = [", ".join(map(repr, self.choices))] if self.choices else []
        kinds = [names.get(kind, kind.__name__) for kind in self.types if kind not in map(type, self.choices)]
        return ", ".join([" or ".join(listed + kinds) or "any value", *map(str, self.constraints)])

    @property
    def once_per_run(self) -> bool:
        """Whether no schedule can move the value."""
        return any(isinstance(constraint, OncePerRun) for constraint in self.constraints)

    def is_traced(self, value: Any) -> bool:
        """Whether this value is a hyperparameter: a float that enters the compiled program as an input."""
        return isinstance(value, float)

    def check(self, key: str, value: Any) -> Any:
        """Returns the value in the knob's own type, or raises ConfigError with key, value and what is allowed."""
        converted = self._convert(_plain(value))
        if isinstance(converted, float) and not abs(converted) <= LARGEST:
            raise ConfigError(key, value, self.allowed, "Give a finite number that float32 can hold")
        if _has_float(converted) and converted != self.default:  # a saved config gives back what a signature holds
            raise ConfigError(
                key, value, self.allowed, "Leave floats out of tuples: they cannot be hyperparameters there"
            )
        if converted is MISSING or not self._accepts(converted):
            raise ConfigError(key, value, self.allowed, self._hint(value))
        return converted

    def _hint(self, value: Any) -> str:
        """Says what was probably meant: the nearest choice, or a tuple of one."""
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
        """Brings a value to one of the knob's types; MISSING where it fits none."""
        if isinstance(value, Text):
            typed = self._convert(_literal(value))
            return str(value) if typed is MISSING and str in self.types else typed
        if not self.types or type(value) in self.types:
            return self._convert_elements(value) if isinstance(value, tuple) else value
        if float in self.types and type(value) is int:
            return float(value)
        if int in self.types and type(value) is float and value.is_integer():
            return int(value)
        return MISSING

    def _convert_elements(self, value: tuple[Any, ...]) -> Any:
        """Refuses a tuple with an element of another type than the annotation's."""
        if self.element is None or all(type(item) is self.element for item in value):
            return value
        return MISSING


def knob_of(parameter: inspect.Parameter, function: Callable[..., Any]) -> Knob:
    """Reads one parameter: its annotation where it is understood, else the type of its default.

    Annotations of other libraries are often strings that name what is not there, or unions with schedules. Then the
    default decides, and an argument called `learning_rate` is a float.
    """
    annotation, constraints = _unwrapped(_evaluated(parameter.annotation, function))
    types_, choices, element = _types(annotation)
    default = _plain(parameter.default)
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
    """Reads a value that no knob describes: what was typed as a Python literal, lists as tuples, in mappings too."""
    if isinstance(value, Mapping):
        return {key: as_python(inner) for key, inner in value.items()}
    return _literal(value) if isinstance(value, Text) else _plain(value)


def holds(default: Any) -> bool:
    """Tells whether a config can hold a default, so that JSON gives it back."""
    default = _plain(default)
    if isinstance(default, tuple):
        return all(map(holds, default))
    return default is MISSING or default is None or type(default) in (bool, int, float, str)


def _evaluated(annotation: Any, function: Callable[..., Any]) -> Any:
    """Evaluates an annotation that is a string where its names exist, and drops it where they do not."""
    if not isinstance(annotation, str):
        return annotation
    plain = inspect.unwrap(function)
    try:
        names = plain.__globals__ if inspect.isfunction(plain) else vars(sys.modules[plain.__module__])
        return eval(annotation, names)
    except Exception:
        return MISSING


def _unwrapped(annotation: Any) -> tuple[Any, tuple[Constraint, ...]]:
    """Splits `Annotated[type, constraint, ...]`, also inside `... | None`, into the plain type and the constraints."""
    if get_origin(annotation) is Annotated:
        plain, *constraints = get_args(annotation)
        inner, more = _unwrapped(plain)
        return inner, (*more, *constraints)
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [_unwrapped(part) for part in get_args(annotation)]
        return Union[tuple(plain for plain, _ in parts)], tuple(c for _, found in parts for c in found)  # noqa: UP007
    return annotation, ()


def _types(annotation: Any) -> tuple[tuple[type, ...], tuple[Any, ...], type | None]:
    """Returns (types, choices, element type of a tuple); no types where the annotation is none that a config holds."""
    found: list[type] = []
    choices: tuple[Any, ...] = ()
    element: type | None = None
    for part in get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,):
        if get_origin(part) is Literal:
            choices += get_args(part)
            found += {type(choice) for choice in get_args(part)}
        elif get_origin(part) in (tuple, list) or part in (tuple, list):
            element = next((kind for kind in get_args(part) if kind in (int, str, bool)), None)
            found.append(tuple)
        elif part in (bool, int, float, str, type(None)):
            found.append(part)
        else:
            return (), (), None
    return tuple(dict.fromkeys(found)), choices, element


def _plain(value: Any) -> Any:
    """Turns lists into tuples, and the scalars of NumPy and JAX into Python's own, without importing either."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _literal(text: str) -> Any:
    """Reads a Python literal; the text itself where it is none."""
    try:
        return _plain(ast.literal_eval(str(text)))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}.get(text.lower(), str(text))


def _has_float(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(item, float) or _has_float(item) for item in value)
