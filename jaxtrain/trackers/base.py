"""The protocol of trackers, which record what a run measures and shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jaxtrain.trackers.figures import Picture

Row = dict[str, Any]
"""One line of metrics.jsonl: {"step": int, "split": str, "time": Unix seconds, name: number or None, ...}."""

ROW_KEYS = ("step", "split", "time")
"""The keys of a row that are no metrics; rows of earlier versions have no time."""


class Histogram(NamedTuple):
    """Counts of numbers in bins of equal width between `low` and `high`, with the sum of the numbers and of squares."""

    low: float
    high: float
    counts: tuple[int, ...]
    sum: float
    sum_squares: float


class Tracker(Protocol):
    """Receives a run's metrics, at most once per (step, split), its texts, and what is shown of it.

    A tracker of a user's own may lack all methods but `write`, `text` and `close`: it then receives less. `image`,
    `histogram` and texts of a step come from a background thread, in the order of the steps for each name; every other
    call comes from the thread that trains, which waits for its end. A (step, name) comes once, and not again after a
    resume that went on from a later step.
    """

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Records the metrics of one split at one step; values are Python or NumPy scalars."""
        ...

    def text(self, name: str, text: str, step: int = 0) -> None:
        """Records a text in Markdown, if the tracker can show one.

        One of the whole run, such as the config, has step 0 and comes again after a resume.
        """
        ...

    def performance(self, step: int, values: Mapping[str, float]) -> None:
        """Records how fast the machine trained up to a step: no metrics, since no two runs agree in them."""
        ...

    def image(self, step: int, name: str, picture: Picture) -> None:
        """Records a picture of a step, as PNG."""
        ...

    def histogram(self, step: int, name: str, histogram: Histogram) -> None:
        """Records a histogram of a step, such as that of a layer's parameters."""
        ...

    def artifact(self, path: Path) -> None:
        """Records a file of the run's directory that is complete, such as result.json at the end."""
        ...

    def close(self) -> None:
        """Ends the writing: no other call may follow. Closing twice is allowed."""
        ...
