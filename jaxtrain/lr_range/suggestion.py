"""The rate that a range test suggests: read off lanes of several lengths, and carried on to the length of the run.

The best rate falls as a run grows longer, by how much depends on the data: lanes of several lengths show it. All
positions are decades, log10 of the rate.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxtrain.lr_range.curves import Curve, average_neighbours
from jaxtrain.lr_range.lengths import LEAST
from jaxtrain.lr_range.rules import RULES, find_drop, near_minimum, unstable_rate

GOOD = 0.02
"""Part of the fall of the loss, above its minimum, up to which a rate counts as good."""

STEEPEST = -1.0
RISING = 0.2
"""The slopes, in decades of the rate for one of the length, that are believed: at -1 all lanes go the same distance."""

CARRIED = 0.9
"""The part of the slope by which the rate is carried on beyond the longest lanes."""

LEAST_MARGIN = 0.3
"""Decades of the interval on either side, to which a quarter of the good rates and the range over seeds are added.

It was measured (benchmarks/lr_suggestion.py): so much covers the best rate in nine of ten cases.
"""

RAMP_MARGIN = 10**0.5

MOST_DECADES = 2.0
"""Width of the interval, in decades, beyond which the suggestion is not reliable."""

SMALLEST_FALL = 0.02
"""The fall of the loss, as a part of that of the untrained model, below which nothing was learnt."""

SMALLEST_FALL_OF_A_RAMP = 0.1
"""The same for the smoothed loss of a ramp, whose batches differ from rate to rate."""


class Reading(NamedTuple):
    """The reading of the curves of a test.

    suggestion: the rate for the run, None if the loss does not fall; interval: the rates between which the best one
    lies, at a confidence of 90 %; best: the best rate of each length of lanes; falling: the rates between which the
    loss of the longest lanes falls; unstable: the lowest rate above these at which half of the fall is lost again, None
    if there is none; rules: name -> rate of other rules; edge: the edge of the range that the interval touches; doubt:
    why the suggestion is not reliable, empty if it is.
    """

    suggestion: float | None
    interval: tuple[float, float] | None
    best: tuple[float, ...]
    falling: tuple[float, float] | None
    unstable: float | None
    rules: dict[str, float]
    edge: Literal["low", "high"] | None
    doubt: str

    @property
    def reliable(self) -> bool:
        """Whether the suggestion may be used without a look at the picture."""
        return not self.doubt

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Reading":
        """Returns the reading that was saved as a dict."""
        return cls(**{name: _as_tuple(saved[name]) for name in cls._fields})


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def read_lanes(row: Sequence[Curve], untrained: np.ndarray, total_steps: int) -> Reading | None:
    """Reads the curves of lanes of ascending lengths, for a run of `total_steps`; returns None if all lanes diverged.

    `untrained` (seeds,) are losses of the initial weights, nan where they are not known: then the losses at the lowest
    rates of the shortest lanes stand for them.
    """
    shortest = row[0]
    longest = row[-1]
    if not any(np.isfinite(curve.median).any() for curve in row):
        return None
    start = _start(shortest, untrained)
    best = tuple(curve.lowest or float("nan") for curve in row)
    if not _can_be_read(longest.median, start):
        return _no_answer(longest.median, best)
    position, width = _read(row, [curve.median for curve in row], start, total_steps)
    seeds = [
        _read(row, losses, start, total_steps)[0]
        for losses in zip(*(curve.losses.T for curve in row), strict=True)
        if _can_be_read(losses[-1], start)
    ]
    spacing = float(np.max(np.diff(np.log10(longest.rates))))
    margin = max(LEAST_MARGIN + width / 4 + np.ptp([position, *seeds]), spacing)
    low = min([position - margin, *seeds])
    high = max([position + margin, *seeds])
    interval = (float(10**low), float(10**high))
    edge = _edge(interval, shortest.rates)
    falling, unstable = _falling_and_unstable(longest.rates, _heights(longest.median, start))
    if unstable is None and _can_be_read(shortest.median, start):  # which train rates above those of the longest
        above = _falling_and_unstable(shortest.rates, _heights(shortest.median, start))[1]
        unstable = above if above and above > longest.rates[-1] else None
    return Reading(
        suggestion=float(10**position),
        interval=interval,
        best=best,
        falling=(falling[0], max(falling[1], float(10**position))),
        unstable=unstable,
        rules=_rules(shortest),
        edge=edge,
        doubt=_doubt(interval, edge),
    )


def has_learnt(curve: Curve, untrained: np.ndarray) -> bool:
    """Tells whether some rate of a curve lowers the loss, so that the curve says where good rates are."""
    return _can_be_read(curve.median, _start(curve, untrained))


def _falling_and_unstable(rates: np.ndarray, losses: np.ndarray) -> tuple[tuple[float, float], float | None]:
    """Returns the rates between which smooth losses fall, and the lowest at which half of that is lost again."""
    top, bottom = find_drop(losses)
    return (float(rates[top]), float(rates[bottom])), unstable_rate(rates, losses, losses, bottom)


def _rules(curve: Curve) -> dict[str, float]:
    """Returns the rate of each other rule; empty for a curve that no rule can read."""
    median = curve.median
    if np.isfinite(median).sum() < LEAST:
        return {}
    return {name: rule(curve.rates, median) for name, rule in RULES.items()}


def read_ramp(curve: Curve) -> Reading | None:
    """Reads the curve of a ramp, smoothed; returns None if all lanes diverged at once.

    The interval is that of the suggestions over seeds, with a margin of half a decade: a ramp does not show how the
    best rate depends on the length of the run.
    """
    median = curve.median
    if not np.isfinite(median).any():
        return None
    start = _start(curve, np.array([np.nan]))
    smoothed = curve.smoothed
    best = (float(curve.rates[np.argmin(smoothed)]),)
    if np.isfinite(median).sum() < LEAST or start - smoothed.min() <= SMALLEST_FALL_OF_A_RAMP * abs(start):
        return _no_answer(median, best)
    seeds = [near_minimum(curve.rates, each) for each in curve.losses.T if np.isfinite(each).sum() >= LEAST]
    suggestion = near_minimum(curve.rates, median)
    interval = (min([suggestion, *seeds]) / RAMP_MARGIN, max([suggestion, *seeds]) * RAMP_MARGIN)
    edge = _edge(interval, curve.rates)
    falling, unstable = _falling_and_unstable(curve.rates, smoothed)
    return Reading(
        suggestion=suggestion,
        interval=interval,
        best=best,
        falling=falling,
        unstable=unstable,
        rules=_rules(curve),
        edge=edge,
        doubt=_doubt(interval, edge),
    )


def _start(shortest: Curve, untrained: np.ndarray) -> float:
    """Returns the loss from which the curves fall."""
    known = untrained[np.isfinite(untrained)]
    return float(np.median(known)) if len(known) else float(np.median(shortest.median[:3]))


def _can_be_read(losses: np.ndarray, start: float) -> bool:
    """Tells whether at least three rates have a finite loss, and the lowest is a fall that counts as learning."""
    finite = losses[np.isfinite(losses)]
    return len(finite) >= LEAST and start - finite.min() > SMALLEST_FALL * abs(start)


def _no_answer(losses: np.ndarray, best: tuple[float, ...]) -> Reading:
    """Returns the reading of curves without an answer, and at which edge there may be one."""
    if np.isfinite(losses).sum() < LEAST:
        return Reading(None, None, best, None, None, {}, "low", "too few rates have a finite loss: lower lr_range.stop")
    return Reading(None, None, best, None, None, {}, "high", "no rate lowers the loss")


def _read(row: Sequence[Curve], losses: Sequence[np.ndarray], start: float, total_steps: int) -> tuple[float, float]:
    """Returns the decade of the best rate for the run, and the width of the good rates of the longest lanes.

    A line through the middles of the good rates over the log length gives the slope; from the longest lanes on, the
    position follows it.
    """
    read = [i for i, each in enumerate(losses) if _can_be_read(each, start)]  # shorter lanes may not have learnt yet
    good = [_good(row[i].rates, losses[i], start) for i in read]
    middles = [(low + high) / 2 for low, high in good]
    lengths = np.log10([row[i].steps for i in read])
    slope = np.polyfit(lengths, middles, 1)[0] if len(read) > 1 else 0.0
    slope = float(np.clip(slope, STEEPEST, RISING))
    return middles[-1] + CARRIED * slope * (np.log10(total_steps) - lengths[-1]), good[-1][1] - good[-1][0]


def _good(rates: np.ndarray, losses: np.ndarray, start: float) -> tuple[float, float]:
    """Returns the decades between which the loss is within GOOD of its lowest, around the lowest one."""
    heights = _heights(losses, start) - GOOD
    decades = np.log10(rates)
    low = high = lowest = int(np.argmin(heights))
    while low > 0 and heights[low - 1] <= 0:
        low -= 1
    while high < len(heights) - 1 and heights[high + 1] <= 0:
        high += 1
    if heights[lowest] > 0:  # smoothing has raised the lowest
        return decades[lowest], decades[lowest]
    below = np.interp(0.0, heights[[low, low - 1]], decades[[low, low - 1]]) if low > 0 else decades[0]
    above = (
        np.interp(0.0, heights[[high, high + 1]], decades[[high, high + 1]]) if high + 1 < len(rates) else decades[-1]
    )
    return float(below), float(above)


def _heights(losses: np.ndarray, start: float) -> np.ndarray:
    """Returns the losses above their lowest, as parts of the fall from `start`, each averaged with its neighbours."""
    averaged = average_neighbours(losses, start)
    fall = max(start - averaged.min(), 1e-9 * max(1.0, abs(start)))  # averages of a single low rate may lie above
    return (averaged - averaged.min()) / fall


def _edge(interval: tuple[float, float], rates: np.ndarray) -> Literal["low", "high"] | None:
    """Returns the edge of the range that an interval touches: that which it passes further, if both."""
    below = np.log10(rates[0] / interval[0])
    above = np.log10(interval[1] / rates[-1])
    if max(below, above) < 0:
        return None
    return "low" if below > above else "high"


def _doubt(interval: tuple[float, float], edge: str | None) -> str:
    """Says why a suggestion is not reliable; empty if it is."""
    if edge:
        return f"the best rate may lie beyond the {edge} end of the range"
    decades = np.log10(interval[1] / interval[0])
    return f"the best rate is known only within {decades:.1f} decades" if decades > MOST_DECADES else ""
