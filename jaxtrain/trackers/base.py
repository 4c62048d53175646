"""The protocol of trackers, which record the metrics of a run."""

from collections.abc import Mapping
from typing import Any, Protocol

Row = dict[str, Any]
"""One line of metrics.jsonl: {"step": int, "split": str, "time": Unix seconds, name: number or None, ...}."""

ROW_KEYS = ("step", "split", "time")
"""The keys of a row that are no metrics; rows of earlier versions have no time."""


class Tracker(Protocol):
    """Receives a run's metrics, at most once per (step, split), and its texts."""

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Records the metrics of one split at one step; values are Python or NumPy scalars."""
        ...

    def text(self, name: str, text: str) -> None:
        """Records a text, such as the config, if the tracker can show one; call again after a resume."""
        ...

    def close(self) -> None:
        """Ends the writing: no other call may follow. Closing twice is allowed."""
        ...
