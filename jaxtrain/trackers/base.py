"""What a tracker is: a place to which the numbers of a run are written."""

from collections.abc import Mapping
from typing import Any, Protocol

Row = dict[str, Any]
"""One line of metrics.jsonl: {"step": int, "split": str, name: number or None, ...}."""


class Tracker(Protocol):
    """Receives a run's numbers, at most once per (step, split), and its texts."""

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Records the numbers of one split at one step; values are Python or NumPy scalars."""
        ...

    def text(self, name: str, text: str) -> None:
        """Shows a text (the config, say) where the place has room for one; to be given again after a resume."""
        ...

    def close(self) -> None:
        """Ends the writing; nothing may follow. Closing twice is allowed."""
        ...
