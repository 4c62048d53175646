"""The learning-rate range test: lanes of several lengths at many rates, and the rate that they suggest for the run."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from jaxtrain.errors import ConfigError
from jaxtrain.lr_range.curves import Curve
from jaxtrain.lr_range.lengths import rates_around
from jaxtrain.lr_range.result import LRRangeResult, lowest_row
from jaxtrain.lr_range.suggestion import Reading, has_learnt, read_lanes, read_ramp
from jaxtrain.lr_range.sweep import LaneSweep, Points, Setup, sweep_ramp

WIDENED = 2.0
"""Decades by which the range is widened, once, where the interval of the suggestion touches its edge."""

CLOSEST = 0.1
FARTHEST = 0.5
"""Limits of the decades between the rates that are added."""


def sweep_rates(
    setup: Setup,
    points: Points,
    lengths: Sequence[int],
    total_steps: int,
    *,
    method: Literal["lanes", "ramp"] = "lanes",
    say: Callable[[str], None] = print,
) -> LRRangeResult:
    """Trains lanes at all points and suggests a rate for a run of `total_steps`; changes nothing of the caller's.

    Method "lanes": at each of the ascending `lengths` each rate trains a lane of its own from the same initial weights,
    through a whole schedule; the longer ones only at rates around the answer of the shortest. Where the answer touches
    the edge of the range, the range is widened once. Method "ramp": one lane per seed trains while the rate rises with
    each step, and `lengths` are ignored.

    Args:
        setup: what all lanes share.
        points: the rates, the seeds and a second float.
        lengths: steps of the lanes, ascending.
        total_steps: steps of the run that the suggestion is for.
        method: "lanes" or "ramp".
        say: is called with lines on the progress.

    Raises:
        ConfigError: fewer than five rates, rates that do not ascend, or floats that the hyperparameters lack.
        UsageError: lanes that do not fit in memory.
    """
    points.check(setup.hparams)
    if method not in ("lanes", "ramp"):
        raise ConfigError("method", method, "'lanes' or 'ramp'")
    if not len(lengths) or min(lengths) < 1:
        raise ConfigError("lengths", list(lengths), "at least one length of at least one step")
    rates = np.asarray(points.rates, np.float64)
    if method == "ramp":
        rows = tuple((Curve(len(rates), rates, losses),) for losses in sweep_ramp(setup, points))
        readings = tuple(read_ramp(curve) for (curve,) in rows)
    else:
        carried = total_steps if is_rate(points.target) else None
        sweep = _Sweep(LaneSweep(setup, points), carried, points.shape[0])
        sweep.train(rates, lengths, say)
        sweep.widen(points, say)
        rows = sweep.rows
        readings = sweep.readings
    return LRRangeResult(method, points.target, rows, readings, points.second, total_steps)


def is_rate(target: str) -> bool:
    """Tells whether a float is a learning rate, whose best value falls as runs grow and may lie anywhere."""
    return target.endswith("learning_rate")


class _Sweep:
    """The curves of a test so far: for each value of the second float one of each length.

    `total_steps` is the length to which the best rate is carried; None: that of the longest lanes.
    """

    def __init__(self, lanes: LaneSweep, total_steps: int | None, values: int) -> None:
        self._lanes = lanes
        self._total = total_steps
        self._untrained = lanes.untrained()
        self.rows: tuple[tuple[Curve, ...], ...] = ((),) * values

    @property
    def readings(self) -> tuple[Reading | None, ...]:
        """The reading of the curves for each value of the second float."""
        total = self._total or self.rows[0][-1].steps
        return tuple(read_lanes(row, self._untrained, total) for row in self.rows)

    def train(self, rates: np.ndarray, lengths: Sequence[int], say: Callable[[str], None]) -> None:
        """Trains lanes of all lengths."""
        for steps in lengths:
            losses = self._lanes.losses(steps, rates)
            self.rows = tuple(
                (*row, Curve(steps, rates, of_row)) for row, of_row in zip(self.rows, losses, strict=True)
            )
            best = self.rows[lowest_row(self.rows)][-1].lowest
            say(f"{steps:,} steps: " + (f"the lowest loss is at {best:.3g}" if best else "every lane diverged"))
            answers = [row[0].lowest for row in self.rows if has_learnt(row[0], self._untrained)]
            if answers and steps == lengths[0]:
                rates = rates_around(rates, *filter(None, answers))

    def widen(self, points: Points, say: Callable[[str], None]) -> None:
        """Trains rates beyond the edge of the range that the interval of the suggestion touches."""
        beyond = _rates_beyond(points, self.readings[lowest_row(self.rows)])
        if not len(beyond):
            return
        far = f"{beyond[0]:.3g} to {beyond[-1]:.3g}"
        say(f"the best rate may lie beyond the range: trains {len(beyond)} rates more, {far}, in lanes of all lengths")
        wider = [self._lanes.losses(curve.steps, beyond) for curve in self.rows[0]]
        self.rows = tuple(
            tuple(curve.joined(beyond, losses[value]) for curve, losses in zip(row, wider, strict=True))
            for value, row in enumerate(self.rows)
        )


def _rates_beyond(points: Points, reading: Reading | None) -> np.ndarray:
    """Returns the rates to add, ascending, beyond the edge that the interval touches; none if it touches none."""
    rates = np.asarray(points.rates, np.float64)
    edge = reading.edge if reading else "low"  # every lane diverged
    if edge is None:
        return rates[:0]
    if not is_rate(points.target):
        return rates[:0]
    spacing = float(np.clip(np.log10(rates[1] / rates[0]), CLOSEST, FARTHEST))
    powers = 10 ** (spacing * np.arange(1, int(np.ceil(WIDENED / spacing)) + 1))
    beyond = np.sort(rates[0] / powers) if edge == "low" else rates[-1] * powers
    return np.asarray([rate for rate in beyond if points.allows(float(rate))])
