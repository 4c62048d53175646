"""Spread and confidence intervals over seeds."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxtrain.core.metric import SEED
from jaxtrain.training.bookkeeping import Numbers


def over_seeds(numbers: Numbers) -> dict[str, dict[str, Any]]:
    """Returns name -> mean, std (of the sample), low and high of a 95 % interval of the mean, and each seed's value.

    Student's t over the seeds that are alive; a single one has no interval. Empty where a run has one seed.
    """
    values: dict[str, dict[str, float]] = {}
    for key, value in numbers.items():
        if key.startswith(SEED) and math.isfinite(value):
            seed, _, name = key.removeprefix(SEED).partition("/")
            values.setdefault(name, {})[seed] = value
    return {name: {**_spread(np.array(list(each.values()))), "values": each} for name, each in values.items()}


def _spread(values: np.ndarray) -> dict[str, float]:
    from scipy.special import stdtrit  # comes with jax, and costs a tenth of a second

    mean, count = float(values.mean()), len(values)
    std = float(values.std(ddof=1)) if count > 1 else math.nan
    half = float(stdtrit(count - 1, 0.975)) * std / math.sqrt(count) if count > 1 else math.nan
    return {"mean": mean, "std": std, "low": mean - half, "high": mean + half}


@dataclass(frozen=True)
class Interval:
    """A difference over paired seeds: its mean, and the ends of its 95 % interval (nan with a single seed)."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def interval(differences: np.ndarray) -> Interval:
    """Returns mean and 95 % interval of differences, (seeds,)."""
    from scipy.special import stdtrit

    count, mean = len(differences), float(differences.mean())
    if count < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(stdtrit(count - 1, 0.975) * differences.std(ddof=1)) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)
