"""Spread and confidence intervals over seeds and folds."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxtrain.training.bookkeeping import Numbers


@dataclass(frozen=True)
class Interval:
    """Mean over seeds of a value or a paired difference, and its 95 % confidence interval (NaN for one seed)."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def interval(values: np.ndarray) -> Interval:
    """Returns the mean of values, (seeds,), and its 95 % confidence interval by Student's t."""
    from scipy.special import stdtrit  # a dependency of jax; its import takes 0.1 s

    count = len(values)
    mean = float(values.mean())
    if count < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(stdtrit(count - 1, 0.975) * values.std(ddof=1)) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def unpaired(values: np.ndarray, others: np.ndarray) -> Interval:
    """Returns the difference of two means, and its 95 % confidence interval by Welch's t; NaN for a single value.

    For values of different seeds, (n,) and (m,); those of the same seeds are paired: `interval(values - others)`.
    """
    from scipy.special import stdtrit

    difference = float(values.mean() - others.mean())
    if len(values) < 2 or len(others) < 2:
        return Interval(difference, math.nan, math.nan)
    parts = np.array([own.var(ddof=1) / len(own) for own in (values, others)])
    if parts.sum() == 0:
        return Interval(difference, difference, difference)
    freedom = parts.sum() ** 2 / (parts**2 / (np.array([len(values), len(others)]) - 1)).sum()
    half = float(stdtrit(freedom, 0.975) * math.sqrt(parts.sum()))
    return Interval(difference, difference - half, difference + half)


def over_lanes(numbers: Numbers, kind: str) -> dict[str, dict[str, Any]]:
    """Returns name -> mean, sample std, low and high of the mean's 95 % confidence interval, and each lane's value.

    `kind` is the prefix of the lanes' numbers. The interval is Student's t over the seeds or folds that have not
    diverged; NaN for one. Empty where there are none. Training parts of folds overlap, so that of folds is too narrow.
    """
    values: dict[str, dict[str, float]] = {}
    for key, value in numbers.items():
        if key.startswith(kind) and math.isfinite(value):
            number, _, name = key.removeprefix(kind).partition("/")
            values.setdefault(name, {})[number] = value
    return {name: {**_statistics(np.array(list(each.values()))), "values": each} for name, each in values.items()}


def _statistics(values: np.ndarray) -> dict[str, float]:
    spread = interval(values)
    std = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return {"mean": spread.mean, "std": std, "low": spread.low, "high": spread.high}
