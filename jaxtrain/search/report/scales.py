"""Maps the values of a dimension to an axis: linear, logarithmic, or a position for each name."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxtrain.reports.figures import format_value
from jaxtrain.search.space import Dimension
from jaxtrain.search.trials import Outcome

BELOW = -0.14
"""Position of a value that a numeric axis cannot show: None, or 0 on a logarithmic axis."""


FEW = 8
"""Up to this many values of a grid, each is labelled."""


@dataclass(frozen=True)
class Scale:
    """The axis of a dimension, 0 to 1, over an interval of numbers or, if `names` is not empty, over names.

    names: each value's text; numbers: the values of a grid; misfits: texts of the values drawn below the axis, such as
    a config's own value of None.
    """

    key: str
    low: float = 0.0
    high: float = 1.0
    logarithmic: bool = False
    names: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    misfits: tuple[str, ...] = ()

    def place(self, value: Any) -> float:
        """Returns the position of a value."""
        if self.names:
            return _fraction(self.names.index(format_value(value)), 0, len(self.names) - 1)
        if not _fits(value, self.logarithmic):
            return BELOW
        if self.logarithmic:
            return _fraction(math.log(value), math.log(self.low), math.log(self.high))
        return _fraction(value, self.low, self.high)

    def ticks(self) -> list[tuple[float, str]]:
        """Returns (position, text) of each label."""
        if self.names:
            return [(self.place(name), name) for name in self.names]
        below = [(BELOW, " or ".join(self.misfits))] if self.misfits else []
        return below + [(self.place(value), format_value(value)) for value in self._labelled_values()]

    @property
    def limits(self) -> tuple[float, float]:
        """Limits of the axis in a picture."""
        margin = self.room if self.few else 0.04
        return (BELOW if self.misfits else 0.0) - margin, 1.0 + margin

    @property
    def few(self) -> bool:
        """Whether the axis has only a few positions, which trials share."""
        return bool(self.names) or 0 < len(self.numbers) <= FEW

    @property
    def room(self) -> float:
        """Half the distance between neighbouring labels."""
        places = sorted(place for place, _ in self.ticks())
        return float(np.diff(places).min()) / 2 if len(places) > 1 else 0.5

    def _labelled_values(self) -> list[float]:
        """Returns a grid's values if they are few, else round values between the ends, else the ends."""
        if self.few:
            return list(self.numbers)
        if self.logarithmic:
            first = math.ceil(math.log10(self.low) - 1e-9)
            last = math.floor(math.log10(self.high) + 1e-9)
            values = [float(f"1e{exponent}") for exponent in range(first, last + 1, 1 + (last - first) // 7)]
        else:
            values = _even_values(self.low, self.high)
        return values if len(values) > 1 else sorted({self.low, self.high})


def scale_of(dimension: Dimension, outcomes: Iterable[Outcome]) -> Scale:
    """Returns the axis of a dimension, which covers all values tried: the config's own may be outside the range."""
    tried = [outcome.point[dimension.key] for outcome in outcomes if dimension.key in outcome.point]
    given = dimension.choices or (dimension.low, dimension.high)
    if dimension.kind == "choice" or not all(map(_is_number, given)):
        return Scale(dimension.key, names=tuple(dict.fromkeys(map(format_value, (*given, *tried)))))
    logarithmic = dimension.is_logarithmic or (dimension.kind == "grid" and _is_geometric(given))
    fitting = [value for value in (*given, *tried) if _fits(value, logarithmic)]
    misfits = dict.fromkeys(format_value(value) for value in tried if not _fits(value, logarithmic))
    numbers = sorted(set(fitting)) if dimension.kind == "grid" else ()
    return Scale(dimension.key, min(fitting), max(fitting), logarithmic, (), tuple(numbers), tuple(misfits))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _fits(value: Any, logarithmic: bool) -> bool:
    return _is_number(value) and (value > 0 or not logarithmic)


def _fraction(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _is_geometric(values: Sequence[float]) -> bool:
    """Tells whether the ratios of neighbours are more alike than their differences."""
    if len(values) < 3 or min(values) <= 0:
        return False
    steps = np.diff(np.sort(values))
    ratios = np.diff(np.log(np.sort(values)))
    return bool(ratios.std() / ratios.mean() < steps.std() / steps.mean())


def _even_values(low: float, high: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    ticks = np.asarray(MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high))
    margin = 1e-9 * (high - low)
    return [float(value) for value in ticks if low - margin <= value <= high + margin]
