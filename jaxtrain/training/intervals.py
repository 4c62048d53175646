"""Spread and confidence intervals over seeds."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxtrain.core.metric_names import SEED
from jaxtrain.training.bookkeeping import Numbers


def over_seeds(numbers: Numbers) -> dict[str, dict[str, Any]]:
    """Returns name -> mean, sample std, low and high of the mean's 95 % confidence interval, and each seed's value.

    The interval is Student's t over the seeds that have not diverged; NaN for one seed. Empty for a single run.
    """
    values: dict[str, dict[str, float]] = {}
    for key, value in numbers.items():
        if key.startswith(SEED) and math.isfinite(value):
            seed, _, name = key.removeprefix(SEED).partition("/")
            values.setdefault(name, {})[seed] = value
    return {name: {**_summarize(np.array(list(each.values()))), "values": each} for name, each in values.items()}


def _summarize(values: np.ndarray) -> dict[str, float]:
    from scipy.special import stdtrit  # a dependency of jax; its import takes 0.1 s

    mean = float(values.mean())
    count = len(values)
    std = float(values.std(ddof=1)) if count > 1 else math.nan
    half = float(stdtrit(count - 1, 0.975)) * std / math.sqrt(count) if count > 1 else math.nan
    return {"mean": mean, "std": std, "low": mean - half, "high": mean + half}


@dataclass(frozen=True)
class Interval:
    """Mean of a paired difference over seeds, and its 95 % confidence interval (NaN for one seed)."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def interval(differences: np.ndarray) -> Interval:
    """Returns the mean and its 95 % confidence interval (Student's t) of differences, (seeds,)."""
    from scipy.special import stdtrit

    count = len(differences)
    mean = float(differences.mean())
    if count < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(stdtrit(count - 1, 0.975) * differences.std(ddof=1)) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)
