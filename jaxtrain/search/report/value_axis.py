"""The axis of the trials' values, which diverging ones do not flatten."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxtrain.search.trials import Outcome

REACH = 4.0
"""How far the axis goes from the best, in distances of the median from it."""


@dataclass(frozen=True)
class ValueAxis:
    """An axis from `worst`, an edge on which all is drawn that is worse or has no value, to `best`."""

    worst: float
    best: float

    def height(self, outcome: Outcome) -> float:
        """Returns where a trial stands."""
        return self.worst if outcome.status == "diverged" else float(self.clipped(outcome.value))

    def clipped(self, values: Any) -> np.ndarray:
        """Moves values beyond the edge, and those that are none, onto it."""
        low, high = sorted((self.worst, self.best))
        return np.clip(np.nan_to_num(np.asarray(values, float), nan=self.worst), low, high)

    def goodness(self, outcome: Outcome) -> float:
        """Returns 0 for a trial on the edge to 1 for one as good as the best."""
        return (self.height(outcome) - self.worst) / (self.best - self.worst)

    def note(self, outcomes: Iterable[Outcome]) -> str:
        """Says how many trials stand on the edge because their value lies beyond it, or that there is no value."""
        values = [o.value for o in outcomes if o.status != "diverged" and o.value is not None]
        if not values:
            return " (no trial has a value)"
        count = sum(float(self.clipped(value)) != value for value in values)
        return f" ({count} worse than the edge {'is' if count == 1 else 'are'} drawn on it)" if count else ""

    @property
    def limits(self) -> tuple[float, float]:
        """The ends of a picture, the lower first; the best keeps off its edge."""
        low, high = sorted((self.worst, self.best + 0.06 * (self.best - self.worst)))
        return low, high


def value_axis(values: Iterable[float | None], higher_is_better: bool) -> ValueAxis:
    """Returns the axis that holds these values, but few of those much worse than their median."""
    finite = np.array([value for value in values if value is not None and math.isfinite(value)])
    sign = 1.0 if higher_is_better else -1.0
    if not len(finite):
        return ValueAxis(0.0, 1.0) if higher_is_better else ValueAxis(1.0, 0.0)
    lost = np.sort(float((sign * finite).max()) - sign * finite)  # by how much each is worse than the best
    reach = min(lost[-1], REACH * float(np.median(lost))) or lost[-1] or 0.1 * abs(finite[0]) or 1.0
    best = float(finite.max() if higher_is_better else finite.min())
    return ValueAxis(best - sign * 1.06 * float(reach), best)
