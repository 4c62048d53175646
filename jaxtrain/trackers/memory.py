"""Keeps a run's metrics in memory, for notebooks and tests."""

from collections.abc import Mapping
from pathlib import Path

from jaxtrain.trackers.base import Histogram, Row
from jaxtrain.trackers.figures import Picture


class MemoryTracker:
    """Keeps the rows of metrics.jsonl in `rows`, without times and with values unconverted; the texts in `texts`.

    Pictures, histograms and texts of a step are kept by (step, name), and numbers of performance by step.
    """

    def __init__(self) -> None:
        """Starts empty."""
        self.rows: list[Row] = []
        self.texts: dict[str, str] = {}
        self.images: dict[tuple[int, str], Picture] = {}
        self.histograms: dict[tuple[int, str], Histogram] = {}
        self.texts_of_steps: dict[tuple[int, str], str] = {}
        self.speeds: dict[int, Mapping[str, float]] = {}
        self.artifacts: list[Path] = []

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Appends the row."""
        self.rows.append({"step": step, "split": split, **values})

    def text(self, name: str, text: str, step: int = 0) -> None:
        """Keeps the text under its name, and its step if it has one."""
        if step:
            self.texts_of_steps[step, name] = text
        else:
            self.texts[name] = text

    def performance(self, step: int, values: Mapping[str, float]) -> None:
        """Keeps the numbers."""
        self.speeds[step] = values

    def image(self, step: int, name: str, picture: Picture) -> None:
        """Keeps the picture."""
        self.images[step, name] = picture

    def histogram(self, step: int, name: str, histogram: Histogram) -> None:
        """Keeps the histogram."""
        self.histograms[step, name] = histogram

    def artifact(self, path: Path) -> None:
        """Keeps the path."""
        self.artifacts.append(path)

    def close(self) -> None:
        """Does nothing: the rows remain."""
