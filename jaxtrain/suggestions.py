"""Learning rates read off a range test's curve, by named rules.

A rule is `(rates, losses) -> rate`: rates (n,) ascending, losses (n,) with nan or infinity where training diverged.
Losses are compared over the logarithm of the rate; against the rate itself, slopes collapse to the smallest one.
"""

from collections.abc import Callable

import numpy as np

Rule = Callable[[np.ndarray, np.ndarray], float]


def valley(rates: np.ndarray, losses: np.ndarray) -> float:
    """The middle of the steepest third of the longest falling subsequence, two thirds down the longest valley.

    The default of fastai's learning-rate finder (pull request 3377 of fastai).
    """
    rates, losses = _finite(rates, losses)
    lengths, starts = np.ones(len(losses), int), np.arange(len(losses))
    for i in range(1, len(losses)):
        higher = np.flatnonzero(losses[:i] > losses[i])
        if len(higher):
            best = higher[np.argmax(lengths[higher])]
            lengths[i], starts[i] = lengths[best] + 1, starts[best]
    end = int(np.argmax(lengths))
    start, third = starts[end], (end - starts[end]) / 3
    return float(rates[start + int(third) + int(third / 2)])


def slide(rates: np.ndarray, losses: np.ndarray, difference: int = 15, threshold: float = 0.005) -> float:
    """The rate at which an interval that slides down from the highest rate first sees no change of slope.

    From fastai's learning-rate finder; its interval is 15 rates wide, here at most a third of the curve.
    """
    rates, losses = _finite(rates, losses)
    slopes, width = np.gradient(losses), max(1, min(difference, len(losses) // 3))
    right = len(losses) - 1
    while right - width > 0 and abs(slopes[right] - slopes[right - width]) > threshold:
        right -= 1
    return float(rates[right - width])


def steep(rates: np.ndarray, losses: np.ndarray) -> float:
    """The rate at which the loss falls fastest against the logarithm of the rate, below its minimum."""
    rates, losses = _finite(rates, losses)
    slopes = np.gradient(losses, np.log(rates))
    return float(rates[np.argmin(slopes[: max(1, int(np.argmin(losses)) + 1)])])


def minimum_over_10(rates: np.ndarray, losses: np.ndarray) -> float:
    """A tenth of the rate with the lowest loss, the rule of thumb of the first range tests."""
    rates, losses = _finite(rates, losses)
    return float(rates[np.argmin(losses)] / 10)


def _finite(rates: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = np.isfinite(losses)
    return rates[kept], losses[kept]
