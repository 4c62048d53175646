"""Learning rates read off a range test's curve, by named rules.

A rule is `(rates, losses) -> rate`: rates (n,) ascending, losses (n,) with nan or infinity where training diverged.
Losses are compared over the logarithm of the rate; against the rate itself, slopes collapse to the smallest one.
"""

import math
from typing import NamedTuple

import numpy as np

WIDTH = 0.25  # decades over which neighbouring rates are averaged
TOLERANCE = 0.2  # how near the lowest loss is near enough, as a part of the fall, after TOLERANCE_STEPS steps and fewer
TOLERANCE_STEPS = 25
FALL = 0.1  # the least fall, in the logarithm of the loss, that is one: 10 %


class Reading(NamedTuple):
    """What a curve says.

    rules: name -> rate, the default among them; suggestion: the default's, None where nothing falls; band: its 10-90 %
    range over seeds; falling: (low, high), the rates between which the loss falls; unstable: the lowest rate above
    them at which half of the fall is lost again, None within the range; agreed: whether there is a fall and most rules
    lie within a tenfold of each other.
    """

    rules: dict[str, float]
    suggestion: float | None
    band: tuple[float, float] | None
    falling: tuple[float, float] | None
    unstable: float | None
    agreed: bool


def tolerance_for(steps: int) -> float:
    """Returns how near the lowest loss is near enough for lanes that trained so many steps.

    The fewer they are, the further their best rate lies above that of the whole run. The square root is a choice that
    suits runs of 400 to 4,000 steps, not a law.
    """
    return TOLERANCE * min(1.0, math.sqrt(TOLERANCE_STEPS / steps))


def read_curve(rates: np.ndarray, losses: np.ndarray, near: float = TOLERANCE) -> Reading | None:
    """Reads losses (rates, seeds), nan where a lane diverged; None where all of them did.

    `near` is how near the lowest loss the default goes, as a part of the fall.
    """
    finite = np.isfinite(losses)
    if not finite.any():
        return None
    middle = np.median(np.where(finite, losses, np.inf), axis=1)
    if np.isfinite(middle).sum() < 3:  # too few rates are left for a curve
        return Reading({}, None, None, None, None, agreed=False)
    shape = smooth(rates, middle)
    rules = {name: rule(rates, middle) for name, rule in RULES.items()}
    rules["near_minimum"] = near_minimum(rates, middle, near)
    low, bottom = _fall(shape)
    if shape[low] - shape[bottom] < FALL:
        return Reading(rules, None, None, None, None, agreed=False)
    each = [near_minimum(rates, column, near) for column in losses.T if np.isfinite(column).sum() >= 3]
    return Reading(
        rules=rules,
        suggestion=rules["near_minimum"],
        band=(float(np.quantile(each, 0.1)), float(np.quantile(each, 0.9))),
        falling=(float(rates[low]), float(rates[bottom])),
        unstable=_unstable(rates, bounded(middle), shape, bottom),
        agreed=_most_agree(rules, np.asarray(each)),
    )


def near_minimum(rates: np.ndarray, losses: np.ndarray, near: float = TOLERANCE) -> float:
    """The lowest rate whose loss is near the lowest one: our default.

    On the smoothed curve of the logarithm of the loss, the lowest rate at which all but `near` of the fall is done,
    between grid points by interpolation. Below the minimum there is room for the longer run, whose best rate is lower;
    the whole fall but its last part is taken.
    """
    shape = smooth(rates, losses)
    top, bottom = _fall(shape)
    wanted = shape[bottom] + near * (shape[top] - shape[bottom])
    after = next(i for i in range(top, bottom + 1) if shape[i] <= wanted)
    if after == top:
        return float(rates[top])
    part = (shape[after - 1] - wanted) / (shape[after - 1] - shape[after])
    return float(np.exp(np.log(rates[after - 1]) * (1 - part) + np.log(rates[after]) * part))


def smooth(rates: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Averages the logarithm of the loss over neighbouring rates, by a Gaussian kernel of WIDTH decades."""
    decades = np.log10(rates)
    weights = np.exp(-0.5 * ((decades[:, None] - decades) / WIDTH) ** 2)
    return weights @ bounded(losses) / weights.sum(axis=1)


def bounded(losses: np.ndarray) -> np.ndarray:
    """The logarithm of the loss, at most that of three times the loss at the lowest rates.

    So one blow-up does not drown its neighbours. Losses that are not all positive are taken as they are.
    """
    finite = np.isfinite(losses)
    start, least = float(np.median(losses[finite][: max(3, finite.sum() // 10)])), losses[finite].min()
    if least > 0:
        return np.log(np.where(finite, np.minimum(losses, 3 * start), 3 * start))
    ceiling = start + 2 * (start - least)
    return np.where(finite, np.minimum(losses, ceiling), ceiling)


def valley(rates: np.ndarray, losses: np.ndarray) -> float:
    """The middle of the longest falling subsequence: the default of fastai's finder (its pull request 3377)."""
    rates, losses = _finite(rates, losses)
    lengths = np.ones(len(losses), int)
    for i in range(1, len(losses)):
        lengths[i] = 1 + max((lengths[j] for j in range(i) if losses[j] > losses[i]), default=0)
    end = int(np.argmax(lengths))
    start = max(0, end - int(lengths[end]))
    third = (end - start) / 3
    return float(rates[start + int(third) + int(third / 2)])


def slide(rates: np.ndarray, losses: np.ndarray, difference: int = 15, threshold: float = 0.005) -> float:
    """The left end of an interval that slides down from the highest rate until the slopes at its ends agree.

    From fastai's finder; its interval is 15 rates wide, here at most a third of the curve.
    """
    rates, losses = _finite(rates, losses)
    slopes, width = np.gradient(losses), max(1, min(difference, len(losses) // 3))
    right, left = len(losses) - 1, len(losses) - 1 - width
    while right >= width and abs(slopes[right] - slopes[right - width]) > threshold:
        right, left = right - 1, right - width
    return float(rates[left])


def steep(rates: np.ndarray, losses: np.ndarray) -> float:
    """The rate below the minimum at which the loss falls fastest against the logarithm of the rate."""
    rates, losses = _finite(rates, losses)
    slopes = np.gradient(losses, np.log(rates))
    return float(rates[np.argmin(slopes[: max(1, int(np.argmin(losses)) + 1)])])


def minimum_over_10(rates: np.ndarray, losses: np.ndarray) -> float:
    """A tenth of the rate with the lowest loss, the rule of thumb of the first range tests."""
    rates, losses = _finite(rates, losses)
    return float(rates[np.argmin(losses)] / 10)


RULES = {
    "valley": valley,
    "slide": slide,
    "steep": steep,
    "minimum/10": minimum_over_10,
    "near_minimum": near_minimum,
}


def _fall(shape: np.ndarray) -> tuple[int, int]:
    """Returns where the fall of a smoothed curve begins, all but its first tenth to come, and where it ends."""
    bottom = int(np.argmin(shape))
    top = float(shape[: bottom + 1].max())
    return int(np.flatnonzero(shape[: bottom + 1] >= top - FALL * (top - shape[bottom]))[-1]), bottom


def _unstable(rates: np.ndarray, shown: np.ndarray, shape: np.ndarray, bottom: int) -> float | None:
    """Returns the lowest rate above the fall's end at which half of it is lost on the curve itself; None: nowhere."""
    half = 0.5 * (shape[: bottom + 1].max() + shape[bottom])
    lost = np.flatnonzero(shown[bottom:] > half)
    return float(rates[bottom + lost[0]]) if len(lost) else None


def _most_agree(rules: dict[str, float], each: np.ndarray) -> bool:
    """Tells whether three of the rules, the default among them, and its rates over seeds, lie within a tenfold."""
    default = np.log10(rules["near_minimum"])
    others = sorted(np.log10(rate) - default for name, rate in rules.items() if name != "near_minimum")
    pairs = [max(a, b, 0.0) - min(a, b, 0.0) for i, a in enumerate(others) for b in others[i + 1 :]]
    return min(pairs) <= 1.0 and float(each.max() / each.min()) <= 10.0


def _finite(rates: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = np.isfinite(losses)
    return rates[kept], losses[kept]
