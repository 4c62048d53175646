"""Prints a run's metrics as aligned lines."""

import math
import numbers
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from jaxtrain.core.metric_names import is_printed
from jaxtrain.trackers.base import Histogram
from jaxtrain.trackers.figures import Picture

SPLIT_WIDTH = len("validation")
NUMBER_WIDTH = 8


class ConsoleTracker:
    """Prints one aligned line per write: "step 1,200/5,000  train       loss 0.312     accuracy 0.91"."""

    def __init__(self, say: Callable[[str], None], total: int, hidden: Collection[str] = ()) -> None:
        """Takes the function that prints a line, the run's number of steps, and the names that are not printed."""
        self._say = say
        self._hidden = hidden
        self._total = f"{total:,}"

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Prints the metrics to four significant digits, without norms and the values of single seeds and classes."""
        kept = {name: value for name, value in values.items() if is_printed(name) and name not in self._hidden}
        shown = [f"{name} {_readable(value):<{NUMBER_WIDTH}}" for name, value in kept.items()]
        start = f"step {step:>{len(self._total)},}/{self._total}  {split:<{SPLIT_WIDTH}}"
        self._say("  ".join([start, *shown]).rstrip())

    def text(self, name: str, text: str, step: int = 0) -> None:
        """Does nothing: lines show only metrics."""

    def performance(self, step: int, values: Mapping[str, float]) -> None:
        """Does nothing: lines show only metrics."""

    def image(self, step: int, name: str, picture: Picture) -> None:
        """Does nothing: lines show only metrics."""

    def histogram(self, step: int, name: str, histogram: Histogram) -> None:
        """Does nothing: lines show only metrics."""

    def artifact(self, path: Path) -> None:
        """Does nothing: the command names the files that it wrote."""

    def close(self) -> None:
        """Does nothing."""


def _readable(value: float) -> str:
    whole = isinstance(value, numbers.Integral) or (math.isfinite(value) and 1e3 <= abs(value) < 1e9)
    return f"{round(value):,}" if whole else f"{float(value):.4g}"
