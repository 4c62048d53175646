"""Result of a range test: the curves of its lanes, and what they say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jaxtrain.lr_range.curves import Curve
from jaxtrain.lr_range.suggestion import Reading

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def lowest_row(rows: Sequence[Sequence[Curve]]) -> int:
    """Returns the index of the row whose longest lanes have the lowest median loss, averaged with its neighbours."""
    return int(np.argmin([row[-1].averaged.min() for row in rows]))


@dataclass(frozen=True)
class LRRangeResult:
    """Result of a range test.

    method: "lanes" or "ramp"; target: full name of the varied float; rows: for each value of the second float, or once,
    the curves of each length of lanes, the longest last; readings: for each row what it says, None if all lanes
    diverged; second: name and values (n,) of a second float; total_steps: steps of the run that the suggestion is for;
    description: what was tested, for the title of the picture.
    """

    method: str
    target: str
    rows: tuple[tuple[Curve, ...], ...]
    readings: tuple[Reading | None, ...]
    second: tuple[str, np.ndarray] | None
    total_steps: int
    description: str = ""

    KEYS: ClassVar = ("method", "target", "rows", "readings", "total_steps", "description")
    """The content that `from_json` reads of a file."""

    @property
    def row(self) -> int:
        """The index of the best value of the second float."""
        return lowest_row(self.rows)

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The curves at the best value of the second float."""
        return self.rows[self.row]

    @property
    def rates(self) -> np.ndarray:
        """The rates (n,) of the longest lanes."""
        return self.curves[-1].rates

    @property
    def losses(self) -> np.ndarray:
        """The losses (n, seeds) of the longest lanes; nan where one diverged."""
        return self.curves[-1].losses

    @property
    def grid(self) -> np.ndarray:
        """The median losses (values, n) of the longest lanes over both floats; infinite where most seeds diverged."""
        return np.stack([row[-1].median for row in self.rows])

    @property
    def reading(self) -> Reading | None:
        """The reading of the curves at the best value of the second float."""
        return self.readings[self.row]

    @property
    def status(self) -> str:
        """Returns "done", or "diverged" if all lanes diverged."""
        return "done" if self.reading else "diverged"

    @property
    def suggestion(self) -> float | None:
        """The suggested rate; None if no rate lowers the loss."""
        return self.reading.suggestion if self.reading else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The rates between which the best rate lies, at a confidence of 90 %; None without a suggestion."""
        return self.reading.interval if self.reading else None

    @property
    def reliable(self) -> bool:
        """Whether the suggestion may be used without a look at the picture."""
        return self.reading is not None and self.reading.reliable

    @property
    def suggestions(self) -> dict[str, float]:
        """The suggested floats by their full names: the rate, and the best value of the second float."""
        if self.suggestion is None:
            return {}
        best = {self.second[0]: float(self.second[1][self.row])} if self.second else {}
        return {self.target: self.suggestion, **best}

    def plot(self) -> "Figure":
        """Plots the curves of all lengths, the suggestion and its interval."""
        from jaxtrain.lr_range.plot import plot_lr_range

        return plot_lr_range(self)

    def to_json(self) -> dict[str, Any]:
        """Returns a dict for a JSON file."""
        reading = self.reading._asdict() if self.reading else {"suggestion": None, "reliable": False}
        second = {"second": self.second[0], "second_values": self.second[1]} if self.second else {}
        return {
            "status": self.status,
            "method": self.method,
            "target": self.target,
            "suggestions": self.suggestions,
            **reading,
            "total_steps": self.total_steps,
            "description": self.description,
            **second,
            "rows": [[curve._asdict() for curve in row] for row in self.rows],
            "readings": [reading and reading._asdict() for reading in self.readings],
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "LRRangeResult":
        """Returns the result that `to_json` was called on; `saved` may come from a file."""
        return cls(
            method=saved["method"],
            target=saved["target"],
            rows=tuple(tuple(Curve.from_json(curve) for curve in row) for row in saved["rows"]),
            readings=tuple(reading and Reading.from_json(reading) for reading in saved["readings"]),
            second=(saved["second"], np.asarray(saved["second_values"])) if "second" in saved else None,
            total_steps=saved["total_steps"],
            description=saved["description"],
        )
