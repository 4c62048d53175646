"""The protocol of trackers, which record the metrics of a run."""

from collections.abc import Mapping
from typing import Any, Protocol

Row = dict[str, Any]
"""One line of metrics.jsonl: {"step": int, "split": str, name: number or None, ...}."""


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
