"""The search space: the entries of the config that vary, their ranges, and the config of each point."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtrain.config.defaults import FAMILIES, Config, flatten
from jaxtrain.config.resolve import resolve_config
from jaxtrain.config.section_traits import SAME_DATA, SHARED_BY_TRIALS
from jaxtrain.errors import ConfigError, Words, unknown

Point = dict[str, Any]
"""Key of the config -> value, for the dimensions that are active at this point.

A dimension is active if the config has its key: `momentum`, for example, only under optimizers that take it.
"""

MOST_VALUES = 10_000  # the largest count of a range

FORMS = {
    "uniform": f"('uniform', low, high) or with a count of 2 to {MOST_VALUES:,}, ('uniform', low, high, 8)",
    "log_uniform": "('log_uniform', low, high) with low above 0, or with a count of 2 to "
    f"{MOST_VALUES:,}, ('log_uniform', low, high, 8)",
    "int": "('int', low, high), both ends included",
    "choice": "('choice', (a, b, ...))",
    "grid": "('grid', (a, b, ...))",
}


@dataclass(frozen=True)
class Dimension:
    """One entry of the space: an interval from `low` to `high`, of integers with "int", or the values in `choices`.

    The values of a "grid" are ordered, those of a "choice" are not. A range with a count becomes a grid.
    """

    key: str
    kind: Literal["uniform", "log_uniform", "int", "choice", "grid"]
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Any, ...] = ()

    @property
    def ends(self) -> tuple[Any, ...]:
        """Boundary values: if the config accepts these, it accepts the whole range."""
        if self.choices:
            return self.choices
        return (int(self.low), int(self.high)) if self.kind == "int" else (self.low, self.high)

    @property
    def values(self) -> Sequence[Any] | None:
        """All values, or None for an interval of floats."""
        return range(int(self.low), int(self.high) + 1) if self.kind == "int" else self.choices or None

    def at(self, fraction: float) -> Any:
        """Returns the value at this fraction, 0 to 1, of the dimension."""
        if self.kind == "uniform":
            return self.low + fraction * (self.high - self.low)
        if self.kind == "log_uniform":
            if fraction in (0.0, 1.0):  # exactly as given: exp and log would round
                return self.high if fraction else self.low
            return math.exp(math.log(self.low) * (1.0 - fraction) + math.log(self.high) * fraction)
        values = self.values
        assert values is not None
        return values[min(int(fraction * _length(values)), _length(values) - 1)]


@dataclass(frozen=True)
class Trial:
    """A numbered point of the space, and its resolved config."""

    number: int
    point: Point
    config: Config


@dataclass(frozen=True)
class Space:
    """The dimensions of a search over a config, sorted so that those that choose a member come first."""

    config: Config
    dimensions: tuple[Dimension, ...]
    _names: dict[tuple[Any, ...], frozenset[str]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def own(self) -> Point:
        """The config's own values."""
        flat = flatten(self.config)
        return {dimension.key: flat[dimension.key] for dimension in self.dimensions if dimension.key in flat}

    def suggest(self, choose: Callable[[Dimension], Any]) -> Point:
        """Makes a point; `choose` is called for the value of each active dimension."""
        members = {dimension.key: choose(dimension) for dimension in self.member_dimensions}
        return members | {dimension.key: choose(dimension) for dimension in self._active(members)}

    def trial(self, number: int, point: Point) -> Trial:
        """Makes the trial of a point."""
        return Trial(number, point, resolve_config(self.config, point).config)

    def finite(self) -> tuple[Dimension, ...]:
        """Returns the dimensions; raises ConfigError for a range without a count."""
        for dimension in self.dimensions:
            if dimension.values is None:
                given = (dimension.kind, dimension.low, dimension.high)
                hint = "Say how many values the grid takes from the range"
                expected = f"a count of its values, as in {(*given, 8)}"
                raise ConfigError(f"search.space.{dimension.key}", given, expected, hint)
        return self.dimensions

    def size(self) -> int:
        """Counts the points of a finite space."""
        self.finite()
        return sum(math.prod(_length(d.values or ()) for d in active) for _, active in self._combinations())

    def points(self) -> Iterator[Point]:
        """Yields every point of a finite space; the last dimension varies fastest."""
        for members, active in self._combinations():
            for values in itertools.product(*(dimension.values or () for dimension in active)):
                yield members | {d.key: value for d, value in zip(active, values, strict=True)}

    def ends(self) -> Iterator[tuple[Point, Dimension, Any]]:
        """Yields (chosen members, active dimension, one of its boundary values), the member dimensions first."""
        for members, active in self._combinations():
            yield from ((members, dimension, members[dimension.key]) for dimension in self.member_dimensions)
            for dimension in active:
                yield from ((members, dimension, value) for value in dimension.ends)

    @property
    def member_dimensions(self) -> tuple[Dimension, ...]:
        """The dimensions that choose a member, such as `optimizer.name`."""
        return tuple(dimension for dimension in self.dimensions if _chooses_member(dimension.key))

    def _active(self, members: Point) -> list[Dimension]:
        """Returns the other dimensions that are active under a choice of members: those whose key the config has."""
        key = tuple(members.values())
        if key not in self._names:
            self._names[key] = frozenset(flatten(resolve_config(self.config, members).config))
        return [d for d in self.dimensions if d.key not in members and d.key in self._names[key]]

    def _combinations(self) -> Iterator[tuple[Point, Sequence[Dimension]]]:
        """Yields each choice of members, with the other dimensions that are active under it."""
        for names in itertools.product(*(dimension.choices for dimension in self.member_dimensions)):
            members = {d.key: name for d, name in zip(self.member_dimensions, names, strict=True)}
            yield members, self._active(members)


def read_space(config: Config) -> Space:
    """Reads `search.space` of a resolved config; raises ConfigError, naming the entry, for one that is invalid."""
    entries = flatten(config["search"]["space"])
    if not entries:
        hint = "Write one as in search.space.optimizer.learning_rate = ('log_uniform', 1e-5, 1e-1)"
        raise ConfigError("search.space", Words("nothing"), "at least one key of the config and its range", hint)
    dimensions = [_dimension(_full_key(config, key), entry, f"search.space.{key}") for key, entry in entries.items()]
    space = Space(config, tuple(sorted(dimensions, key=lambda d: (not _chooses_member(d.key), d.key))))
    for dimension in space.dimensions:
        _check_place(dimension.key, config)
    _check_values(space)
    return space


def _chooses_member(key: str) -> bool:
    return key.endswith(".name") and key.partition(".")[0] in FAMILIES


def _full_key(config: Config, key: str) -> str:
    """Appends `.name` to a key of a member's section, as in `search.space.optimizer = ("choice", ("sgd", "adam"))`."""
    entry: Any = config
    for name in key.split("."):
        entry = entry.get(name) if isinstance(entry, Mapping) else None
    return f"{key}.name" if isinstance(entry, Mapping) and "name" in entry else key


def _dimension(key: str, entry: Any, path: str) -> Dimension:
    """Reads one entry, (kind, *arguments)."""
    if not (isinstance(entry, tuple) and entry and isinstance(entry[0], str)):
        raise ConfigError(path, entry, "; ".join(FORMS.values()))
    kind, *rest = entry
    if kind not in FORMS:
        raise unknown(path, kind, FORMS)
    if kind in ("choice", "grid"):
        if not (len(rest) == 1 and isinstance(rest[0], tuple) and rest[0] and _all_different(rest[0])):
            raise ConfigError(path, entry, f"{FORMS[kind]} of different values")
        return Dimension(key, kind, choices=rest[0])
    return _range(key, kind, rest, ConfigError(path, entry, FORMS[kind]))


def _range(key: str, kind: Any, rest: list[Any], refused: ConfigError) -> Dimension:
    """Reads an interval, which becomes a grid if a count is given."""
    whole = kind == "int"
    numbers = all(type(number) in ((int,) if whole else (int, float)) and math.isfinite(number) for number in rest)
    if not (numbers and len(rest) in ((2,) if whole else (2, 3))):
        raise refused
    low, high, *count = rest
    if low >= high or (kind == "log_uniform" and low <= 0):
        raise refused
    if count and not (type(count[0]) is int and 2 <= count[0] <= MOST_VALUES):
        raise refused
    interval = Dimension(key, kind, low, high)
    if not count:
        return interval
    return Dimension(key, "grid", choices=tuple(interval.at(i / (count[0] - 1)) for i in range(count[0])))


def _length(values: Sequence[Any]) -> int:
    """Returns the number of values; `len` fails for ranges beyond sys.maxsize."""
    return values.stop - values.start if isinstance(values, range) else len(values)


def _all_different(values: tuple[Any, ...]) -> bool:
    return len({repr(value) for value in values}) == len(values)


def _check_place(key: str, config: Config) -> None:
    """Rejects entries that have no effect on a trial, and entries that make trials incomparable."""
    section = key.partition(".")[0]
    reason = ""
    if section in SHARED_BY_TRIALS:
        reason = f"{section} belongs to the whole search"
    elif key in ("seed", "train.seeds"):
        reason = "each trial is trained with search.seeds seeds"
    elif section == "eval":
        reason = "trials are compared by their evaluations"
    elif key in SAME_DATA:
        reason = "trials are compared on the same data"
    elif (section == "loss" or key == "task.class_balance") and config["eval"]["metric"] == "loss":
        reason = "it changes the loss, by which trials are compared unless eval.metric is another metric"
    if reason:
        expected = "a key that changes a run and leaves trials comparable"
        raise ConfigError(f"search.space.{key}", Words("a range"), expected, f"Leave it out: {reason}")


def _check_values(space: Space) -> None:
    """Rejects a key that no config of the space has, and a value that the config does not accept."""
    for member in space.member_dimensions:
        for name in member.choices:
            _check_accepted(space, {}, member, name)
    seen: set[str] = set()
    for members, dimension, value in space.ends():
        seen.add(dimension.key)
        _check_accepted(space, members, dimension, value)
    for dimension in space.dimensions:
        if not _chooses_member(dimension.key) and dimension.key not in seen:
            _check_accepted(space, {}, dimension, dimension.ends[0])
            raise unknown(f"search.space.{dimension.key}", dimension.key, flatten(space.config))


def _check_accepted(space: Space, members: Point, dimension: Dimension, value: Any) -> None:
    try:
        resolve_config(space.config, members | {dimension.key: value})
    except ConfigError as error:
        raise ConfigError(f"search.space.{dimension.key}", error.got, error.expected, error.hint) from error
