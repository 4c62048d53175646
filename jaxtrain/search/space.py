"""The search space: the entries of the config that vary, their ranges, and the config of each point."""

import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    "int": "('int', low, high) with low at most high, both ends included",
    "int_step": "('int_step', low, high, step) with high a whole number of steps above low, both ends included",
    "log_int": "('log_int', low, high) with low above 0, both ends included, or with a count of 2 to "
    f"{MOST_VALUES:,}, ('log_int', low, high, 8)",
    "choice": "('choice', (a, b, ...))",
    "grid": "('grid', (a, b, ...))",
}


@dataclass(frozen=True)
class Dimension:
    """One entry of the space: an interval from `low` to `high`, or the values in `choices`.

    An "int" has the integers at `step` from each other, a "log_int" all of them. The values of a "grid" are ordered,
    those of a "choice" are not. A range with a count, and one of a single value, becomes a grid.
    """

    key: str
    kind: Literal["uniform", "log_uniform", "int", "log_int", "choice", "grid"]
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Any, ...] = ()
    step: int = 1

    @property
    def is_integer(self) -> bool:
        """Whether the dimension is an interval of integers."""
        return self.kind in ("int", "log_int")

    @property
    def is_logarithmic(self) -> bool:
        """Whether the dimension is an interval whose logarithm is sampled uniformly."""
        return self.kind in ("log_uniform", "log_int")

    @property
    def ends(self) -> tuple[Any, ...]:
        """Boundary values: if the config accepts these, it accepts the whole range."""
        if self.choices:
            return self.choices
        return (int(self.low), int(self.high)) if self.is_integer else (self.low, self.high)

    @property
    def values(self) -> Sequence[Any] | None:
        """All values, or None for an interval of floats."""
        return range(int(self.low), int(self.high) + 1, self.step) if self.is_integer else self.choices or None

    def contains(self, value: Any) -> bool:
        """Tells whether a value is one of the dimension's; 1 equals 1.0 but not True."""
        if self.choices:
            return same(value) in map(same, self.choices)
        allowed = int if self.is_integer else int | float
        if not isinstance(value, allowed) or isinstance(value, bool) or not self.low <= value <= self.high:
            return False
        return not self.is_integer or (value - int(self.low)) % self.step == 0

    def at(self, fraction: float) -> Any:
        """Returns the value at this fraction, 0 to 1, of the dimension."""
        if self.kind == "uniform":
            return self.low + fraction * (self.high - self.low)
        if self.kind == "log_uniform":
            if fraction in (0.0, 1.0):  # exactly as given: exp and log would round
                return self.high if fraction else self.low
            return _between_logarithms(self.low, self.high, fraction)
        if self.kind == "log_int":  # the ends reach half a step further, as each integer between them does
            near = round(_between_logarithms(self.low - 0.5, self.high + 0.5, fraction))
            return min(max(near, int(self.low)), int(self.high))
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

    def contains(self, point: Point) -> bool:
        """Tells whether a point is one of the space's."""
        members = {dimension.key: point.get(dimension.key) for dimension in self.member_dimensions}
        if not all(dimension.contains(point.get(dimension.key)) for dimension in self.member_dimensions):
            return False
        active = self._active(members)
        return point.keys() == members.keys() | {d.key for d in active} and all(
            d.contains(point[d.key]) for d in active
        )

    @property
    def is_finite(self) -> bool:
        """Whether the space has a limited number of points: it has no range of floats."""
        return all(dimension.values is not None for dimension in self.dimensions)

    @property
    def can_repeat(self) -> bool:
        """Whether two draws may be equal: under some choice of members, no range of floats is active."""
        if self.is_finite or not self.member_dimensions:
            return self.is_finite
        return any(all(dimension.values is not None for dimension in active) for _, active in self.combinations())

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
        return sum(count_points(active) for _, active in self.combinations())

    def points(self) -> Iterator[Point]:
        """Yields every point of a finite space; the last dimension varies fastest."""
        for members, active in self.combinations():
            for values in itertools.product(*(dimension.values or () for dimension in active)):
                yield members | {d.key: value for d, value in zip(active, values, strict=True)}

    def ends(self) -> Iterator[tuple[Point, Dimension, Any]]:
        """Yields (chosen members, active dimension, one of its boundary values), the member dimensions first."""
        for members, active in self.combinations():
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

    def combinations(self) -> Iterator[tuple[Point, Sequence[Dimension]]]:
        """Yields each choice of members, with the other dimensions that are active under it."""
        for names in itertools.product(*(dimension.choices for dimension in self.member_dimensions)):
            members = {d.key: name for d, name in zip(self.member_dimensions, names, strict=True)}
            yield members, self._active(members)


def count_points(dimensions: Iterable[Dimension]) -> int:
    """Counts the combinations of the values of dimensions, none of which is a range of floats."""
    return math.prod(_length(dimension.values or ()) for dimension in dimensions)


def identify(point: Point) -> tuple[Any, ...]:
    """Returns what two points have in common if and only if they are equal: 1 equals 1.0 but not True."""
    return tuple((key, same(value)) for key, value in sorted(point.items()))


def same(value: Any) -> Any:
    """Returns a hashable stand-in that equals that of another value if and only if both values train the same."""
    if isinstance(value, tuple | list):
        return (tuple, *map(same, value))
    if isinstance(value, int | float):
        return (bool if isinstance(value, bool) else float, value)
    return (type(value), value if isinstance(value, str) else repr(value))


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
        if not (len(rest) == 1 and isinstance(rest[0], tuple) and rest[0]):
            raise ConfigError(path, entry, FORMS[kind])
        return Dimension(key, kind, choices=_different(rest[0]))
    refused = ConfigError(path, entry, FORMS[kind])
    return _int_step(key, entry, path) if kind == "int_step" else _range(key, kind, rest, refused)


def _range(key: str, kind: Any, rest: list[Any], refused: ConfigError) -> Dimension:
    """Reads an interval, which becomes a grid if a count is given, or if it holds a single value."""
    whole = kind in ("int", "log_int")
    numbers = all(
        type(number) in ((int,) if whole else (int, float)) and abs(number) <= sys.float_info.max for number in rest
    )
    if not (numbers and len(rest) in ((2,) if kind == "int" else (2, 3))):
        raise refused
    low, high, *count = rest
    if low > high or (kind in ("log_uniform", "log_int") and low <= 0):
        raise refused
    if count and not (type(count[0]) is int and 2 <= count[0] <= MOST_VALUES):
        raise refused
    interval = Dimension(key, kind, low, high)
    if low == high:
        return Dimension(key, "grid", choices=(low,))
    if not count:
        return interval
    return Dimension(key, "grid", choices=_different(_evenly(interval, count[0])))


def _evenly(interval: Dimension, count: int) -> tuple[Any, ...]:
    """Returns values at equal distances, or ratios in a logarithmic interval, from its low to its high end."""
    between = (i / (count - 1) for i in range(1, count - 1))
    if interval.kind == "log_int":
        inner = [round(_between_logarithms(interval.low, interval.high, fraction)) for fraction in between]
    else:  # as one would write them: 0.001, not 0.0010000000000000002, so that they equal the config's own
        inner = [float(f"{interval.at(fraction):.12g}") for fraction in between]
    return (interval.low, *inner, interval.high)


def _int_step(key: str, entry: tuple[Any, ...], path: str) -> Dimension:
    """Reads integers at a distance from each other."""
    numbers = entry[1:]
    if len(numbers) != 3 or any(type(number) is not int for number in numbers):
        raise ConfigError(path, entry, FORMS["int_step"])
    low, high, step = numbers
    if low > high or step < 1:
        raise ConfigError(path, entry, FORMS["int_step"])
    if beyond := (high - low) % step:
        ends = sorted({max(low, high - beyond), high - beyond + step})
        raise ConfigError(path, entry, FORMS["int_step"], f"Take {' or '.join(map(str, ends))} as high")
    return Dimension(key, "grid", choices=(low,)) if low == high else Dimension(key, "int", low, high, step=step)


def _between_logarithms(low: float, high: float, fraction: float) -> float:
    return math.exp(math.log(low) * (1.0 - fraction) + math.log(high) * fraction)


def _length(values: Sequence[Any]) -> int:
    """Returns the number of values; `len` fails for ranges beyond sys.maxsize."""
    return -(-(values.stop - values.start) // values.step) if isinstance(values, range) else len(values)


def _different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the first of all equal values; 1 equals 1.0 but not True."""
    first: dict[Any, Any] = {}
    for value in values:
        first.setdefault(same(value), value)
    return tuple(first.values())


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
