"""The curve of losses over the rate, of lanes of one length."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxtrain.lr_range.rules import smooth

HIGHEST = 3.0
"""The fall of the loss above its minimum at which a curve is cut off."""


def average_neighbours(losses: np.ndarray, start: float) -> np.ndarray:
    """Averages each loss with its neighbours, (n,); cut off at HIGHEST times the fall from `start` to the lowest."""
    lowest = losses[np.isfinite(losses)].min()
    ceiling = lowest + HIGHEST * max(start - lowest, 0.0)
    capped = np.pad(np.where(np.isfinite(losses), np.minimum(losses, ceiling), ceiling), 1, mode="edge")
    return (capped[:-2] + capped[1:-1] + capped[2:]) / 3


class Curve(NamedTuple):
    """Losses of lanes of `steps` steps: rates (n,) ascending, losses (n, seeds), nan where a lane diverged."""

    steps: int
    rates: np.ndarray
    losses: np.ndarray

    @property
    def median(self) -> np.ndarray:
        """The median over seeds (n,); a lane that diverged counts as infinite."""
        return np.median(np.where(np.isfinite(self.losses), self.losses, np.inf), axis=1)

    @property
    def averaged(self) -> np.ndarray:
        """The median, averaged with its neighbours (n,), so that a single lucky rate is not the lowest.

        Losses above HIGHEST times the fall are cut off, so that a burst does not hide its neighbours.
        """
        median = self.median
        finite = median[np.isfinite(median)]
        return average_neighbours(median, float(finite[:3].max())) if len(finite) else median

    @property
    def lowest(self) -> float | None:
        """The rate of the lowest averaged median; None if most seeds diverged at every rate."""
        averaged = self.averaged
        return float(self.rates[np.argmin(averaged)]) if np.isfinite(averaged).any() else None

    @property
    def smoothed(self) -> np.ndarray:
        """The median, smoothed over the log rate (n,), cut off at three times the loss at the lowest rates."""
        median = self.median
        curve = smooth(self.rates, median)
        return np.exp(curve) if median.min() > 0 else curve

    def joined(self, rates: np.ndarray, losses: np.ndarray) -> "Curve":
        """Returns the curve with the losses of further rates."""
        every = np.concatenate([self.rates, rates])
        order = np.argsort(every)
        return Curve(self.steps, every[order], np.concatenate([self.losses, losses])[order])

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Curve":
        """Returns the curve that was saved as a dict."""
        return cls(saved["steps"], np.asarray(saved["rates"], float), np.asarray(saved["losses"], float))
