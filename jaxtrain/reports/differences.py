"""Differences of the groups of a comparison from the best one, paired by seed where the seeds are the same."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaxtrain.core.metric import as_loss
from jaxtrain.training.intervals import Interval, interval, unpaired

Values = Mapping[int, float | None]
"""Seed or fold -> value; None if it diverged."""


@dataclass(frozen=True)
class Difference:
    """A difference of means with its 95 % interval.

    seeds: over how many pairs, or over how many values of both sides; verdict: "better", "worse", "a tie", "equal", or
    "unknown" where one value on a side allows no interval; lost: on how many more seeds it has no value.
    """

    spread: Interval
    paired: bool
    seeds: int
    verdict: str
    lost: int = 0


def difference_of(values: Values, others: Values, higher_is_better: bool) -> Difference | None:
    """Compares two groups, over the seeds that both have if these are at least two or all; None without a value.

    What diverged more often is worse, whatever the means of the other seeds are.
    """
    common = values.keys() & others.keys()
    paired = len(common) > 1 or values.keys() == others.keys()
    if paired:
        pairs = [(values[seed], others[seed]) for seed in sorted(common)]
        gaps = np.array([own - other for own, other in pairs if own is not None and other is not None])
        if not len(gaps):
            return None
        spread = interval(gaps)
        count = len(gaps)
        lost = sum(own is None for own, _ in pairs) - sum(other is None for _, other in pairs)
    else:
        left, right = (np.array([v for v in side.values() if v is not None]) for side in (values, others))
        if not len(left) or not len(right):
            return None
        spread = unpaired(left, right)
        count = len(left) + len(right)
        lost = list(values.values()).count(None) - list(others.values()).count(None)
    return Difference(spread, paired, count, _verdict(spread, lost, higher_is_better), lost)


def _verdict(spread: Interval, lost: int, higher_is_better: bool) -> str:
    if lost:
        return "worse" if lost > 0 else "better"
    if math.isnan(spread.low):
        return "equal" if spread.mean == 0 else "unknown"
    if not spread.excludes_zero:
        return "equal" if spread.low == spread.high else "a tie"
    return "better" if as_loss(spread.mean, higher_is_better) < 0 else "worse"
