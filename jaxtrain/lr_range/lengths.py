"""The lengths of the lanes of a range test, and what it costs."""

from collections.abc import Sequence

import numpy as np

from jaxtrain.config.durations import MOST_STEPS, steps_of
from jaxtrain.errors import ConfigError

LONGEST = 240
"""Steps of the longest lanes, at least, where the config does not say."""

SHARE = "5 %"
"""The part of the run that the longest lanes train, at least: from shorter ones the best rate of long runs is far."""

BELOW = 2.0
ABOVE = 0.8
"""Decades below and above the best rate of the shortest lanes that longer lanes train: the best mostly falls."""
LEAST = 3
"""Rates that a curve needs."""


def lane_lengths(given: str | None, *, steps_per_epoch: float, total: int) -> tuple[int, ...]:
    """Returns the ascending lengths of the lanes, in steps: a quarter, half, and all of the longest.

    Args:
        given: duration of the longest lanes; None for 240 steps or 5 % of the run, whichever is longer.
        steps_per_epoch: training steps of an epoch.
        total: steps of the run, which no lane exceeds unless it is `given`.
    """
    if given is None:
        longest = min(total, max(LONGEST, steps_of(SHARE, steps_per_epoch=steps_per_epoch, total=total)))
    else:
        longest = steps_of(given, steps_per_epoch=steps_per_epoch, total=total)
    if longest >= MOST_STEPS:
        raise ConfigError("lr_range.steps", given, f"fewer than {int(MOST_STEPS):,} steps", "Shorten it")
    return tuple(sorted({max(1, longest // 4), max(1, longest // 2), longest}))


def describe_budget(lengths: Sequence[int], rates: np.ndarray, lanes_of_a_rate: int, total: int) -> str:
    """Returns one line on what a test by lanes trains, beside a run of `total` steps."""
    longer = min(len(rates), len(rates_around(rates, float(np.median(rates)))))
    steps = (lengths[0] * len(rates) + sum(lengths[1:]) * longer) * lanes_of_a_rate
    most = f", then about {longer} rates in lanes of {', '.join(f'{n:,}' for n in lengths[1:])}" if lengths[1:] else ""
    return (
        f"{len(rates)} rates in lanes of {lengths[0]:,} steps{most}, {lanes_of_a_rate} lanes a rate: "
        f"about {steps:,} steps, {steps / total:,.1f} times those of the run"
    )


def rates_around(rates: np.ndarray, *best: float) -> np.ndarray:
    """Returns the rates that longer lanes train: from BELOW decades below the lowest best to ABOVE the highest."""
    decades = np.log10(rates)
    low = np.log10(min(best)) - BELOW
    high = np.log10(max(best)) + ABOVE
    kept = rates[(decades > low - 1e-9) & (decades < high + 1e-9)]
    return kept if len(kept) >= LEAST else rates
