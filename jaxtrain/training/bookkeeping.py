"""What a run remembers beside its state, saved as JSON with every checkpoint."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from jaxtrain.core.metric import NORMS, Mean

Numbers = dict[str, float]


@dataclass
class Bookkeeping:
    """Sums of training metrics since the last row, the best evaluation so far, the last rows, seconds of training.

    `fingerprint` and `info` say which data the state has seen.
    """

    info: dict[str, Any]
    fingerprint: str = ""
    sums: dict[str, list[Any]] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    last: dict[str, Numbers] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, metrics: dict[str, Mean], steps: int) -> None:
        """Adds the stacked metrics of a call, one step after the other, in float64; of norms the last step's are kept.

        The order and the type make the sums the same to the bit however a run is cut into calls.
        """
        for name, stacked in metrics.items():
            before = [0.0, 0.0] if name.startswith(NORMS) else self.sums.get(name, [0.0, 0.0])
            self.sums[name] = [
                _running(total, np.asarray(rows)[:steps])
                for total, rows in zip(before, (stacked.sum, stacked.count), strict=True)
            ]

    def numbers(self, metrics: dict[str, Mean]) -> Numbers:
        """Returns the numbers that the sums come to; `metrics` says how sums become numbers."""
        return to_numbers({name: metrics[name].replace(sum=np.array(s), count=c) for name, (s, c) in self.sums.items()})

    def drain(self, metrics: dict[str, Mean]) -> Numbers:
        """Returns the same, for a row, and starts new sums."""
        found, self.sums = self.numbers(metrics), {}
        return found

    def update_best(self, step: int, metric: str, found: Mean) -> bool:
        """Notes an evaluation; returns whether it is the best so far. Not-a-number never is."""
        value, sign = found.result(), -1.0 if found.higher_is_better else 1.0
        improved = value == value and (self.best is None or found.loss() < sign * self.best["value"])
        if improved:
            self.best = {"step": step, "metric": metric, "value": value}
        return improved

    def to_json(self) -> dict[str, Any]:
        """Returns a dict of what JSON can hold; floats keep every bit."""
        return asdict(self)


def to_numbers(metrics: dict[str, Mean]) -> Numbers:
    """Returns the number that each metric comes to, or its numbers, as "name/0" and so on."""
    return {key: number for name, metric in metrics.items() for key, number in metric.numbers(name).items()}


def _running(total: Any, rows: np.ndarray) -> Any:
    first = np.broadcast_to(np.asarray(total, np.float64), (1, *rows.shape[1:]))
    return np.cumsum(np.concatenate([first, rows]), axis=0)[-1].tolist()
