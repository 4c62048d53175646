"""Keeps a run's metrics in memory, for notebooks and tests."""

from collections.abc import Mapping

from jaxtrain.trackers.base import Row


class MemoryTracker:
    """Keeps the rows of metrics.jsonl in `rows`, without times and with values unconverted; the texts in `texts`."""

    def __init__(self) -> None:
        """Starts empty."""
        self.rows: list[Row] = []
        self.texts: dict[str, str] = {}

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Appends the row."""
        self.rows.append({"step": step, "split": split, **values})

    def text(self, name: str, text: str) -> None:
        """Keeps the text under its name."""
        self.texts[name] = text

    def close(self) -> None:
        """Does nothing: the rows remain."""
