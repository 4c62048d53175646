"""The ranges to search next where the best trial lies at the edge of one."""

import math
from collections.abc import Sequence

from jaxtrain.config.resolve import accepts
from jaxtrain.reports.figures import format_value
from jaxtrain.search.report.scales import scale_of
from jaxtrain.search.space import Dimension, Point, Space
from jaxtrain.search.trials import Outcome

EDGE = 0.05
"""The part of an axis that is its edge."""

REACHES = (0.5, 0.25, 0.1, 0.05, 0.01)
"""Lengths of the range by which the next one may go beyond the value: the first that the config accepts."""


def next_ranges(space: Space, best: Outcome) -> list[str]:
    """Returns a sentence for each numeric range at whose edge the best trial lies, unless nothing beyond is allowed."""
    lines = []
    for dimension in space.dimensions:
        ends = _numeric_ends(dimension)
        value = best.point.get(dimension.key)
        if ends is None or not isinstance(value, int | float) or isinstance(value, bool):
            continue
        reach = _next(space, dimension, best.point, ends)
        if reach is not None:
            low, high = map(format_value, reach)
            where = f"at the edge of its range, {format_value(ends[0])} to {format_value(ends[1])}"
            lines.append(f"{dimension.key} = {format_value(value)} lies {where}: search {low} to {high} next.")
    return lines


def _numeric_ends(dimension: Dimension) -> tuple[float, float] | None:
    """Returns the lowest and the highest value; None for names and for a single value."""
    values: Sequence[float] = dimension.choices or (dimension.low, dimension.high)
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if dimension.kind == "choice" or not numeric or min(values) == max(values):
        return None
    return min(values), max(values)


def _next(space: Space, dimension: Dimension, point: Point, ends: tuple[float, float]) -> tuple[float, float] | None:
    """Returns the range to search next; None if the value is not at an edge, or no value beyond it is accepted."""
    value = point[dimension.key]
    scale = scale_of(dimension, [])
    logarithmic = scale.logarithmic and value > 0
    low, high, at = (math.log(number) if logarithmic else float(number) for number in (*ends, value))
    if not low <= at <= high or low + EDGE * (high - low) < at < high - EDGE * (high - low):
        return None  # not at an edge, as values of the config's own that lie outside
    sign = 1.0 if at > (low + high) / 2 else -1.0
    for reach in REACHES:
        far = at + sign * reach * (high - low)
        near = at - sign * 0.5 * (high - low)
        last, first = (_as_value(number, logarithmic, dimension, value) for number in (far, near))
        if last != value and accepts(space.config, {**point, dimension.key: last}):
            return min(first, last), max(first, last)
    return None


def _as_value(number: float, logarithmic: bool, dimension: Dimension, value: float) -> float:
    """Returns a number as one would write it: with three digits, or as an integer where the range has integers."""
    plain = math.exp(number) if logarithmic else number
    whole = dimension.is_integer or (
        bool(dimension.choices) and all(isinstance(choice, int) for choice in dimension.choices)
    )
    return round(plain) if whole else float(f"{plain:.3g}")
