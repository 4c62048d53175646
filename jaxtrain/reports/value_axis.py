"""An axis of values, limited so that very bad ones do not flatten the rest."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

REACH = 4.0
"""Length of the axis, as a multiple of the distance between the best value and the median."""


@dataclass(frozen=True)
class ValueAxis:
    """An axis from `worst` to `best`; worse values, and what has none, are drawn on the edge at `worst`."""

    worst: float
    best: float

    def height(self, value: float | None) -> float:
        """Returns the position of a value."""
        return self.worst if value is None else float(self.clip(value))

    def clip(self, values: Any) -> np.ndarray:
        """Moves values beyond the edge, and nan, onto the edge."""
        low, high = sorted((self.worst, self.best))
        return np.clip(np.nan_to_num(np.asarray(values, float), nan=self.worst), low, high)

    def goodness(self, value: float | None) -> float:
        """Returns 0 for a value on the edge to 1 for one as good as the best."""
        return (self.height(value) - self.worst) / (self.best - self.worst)

    def note(self, values: Iterable[float | None]) -> str:
        """Returns a note on the number of trials whose value is beyond the edge, or that no trial has a value."""
        known = [value for value in values if value is not None]
        if not known:
            return " (no trial has a value)"
        count = sum(float(self.clip(value)) != value for value in known)
        return f" ({count} worse than the edge {'is' if count == 1 else 'are'} drawn on it)" if count else ""

    @property
    def limits(self) -> tuple[float, float]:
        """Limits of the axis in a picture, the lower first, with a margin beside the best."""
        low, high = sorted((self.worst, self.best + 0.06 * (self.best - self.worst)))
        return low, high


def value_axis(values: Iterable[float | None], higher_is_better: bool) -> ValueAxis:
    """Returns the axis of these values; it ends at REACH times the median's distance from the best."""
    finite = np.array([value for value in values if value is not None and math.isfinite(value)])
    sign = 1.0 if higher_is_better else -1.0
    if not len(finite):
        return ValueAxis(0.0, 1.0) if higher_is_better else ValueAxis(1.0, 0.0)
    gaps = np.sort(float((sign * finite).max()) - sign * finite)  # by how much each is worse than the best
    reach = min(gaps[-1], REACH * float(np.median(gaps))) or gaps[-1] or 0.1 * abs(finite[0]) or 1.0
    best = float(finite.max() if higher_is_better else finite.min())
    return ValueAxis(best - sign * 1.06 * float(reach), best)
