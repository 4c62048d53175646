"""One tracker that writes to several: the primary one and its mirrors."""

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jaxtrain.trackers.base import Histogram, Tracker
from jaxtrain.trackers.figures import Picture


class CompositeTracker:
    """Writes to the first tracker, the primary one, and then to the others, its mirrors.

    Errors of the primary tracker reach the run. A mirror that raises is reported once, closed and no longer written to.
    Mirrors of a user's own may lack the methods for pictures, histograms, performance and artifacts.
    """

    def __init__(self, trackers: Sequence[Tracker], say: Callable[[str], None]) -> None:
        """Takes the trackers, the primary one first, and the function that prints a line."""
        self._primary, *self._mirrors = trackers
        self._say = say

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes the metrics to every tracker."""
        self._primary.write(step, split, values)
        self._mirror(lambda tracker: tracker.write(step, split, values))

    def text(self, name: str, text: str, step: int = 0) -> None:
        """Writes the text to every tracker; one of a step only to those that take steps."""
        if step:
            self._offer("text", name, text, step)
            return
        self._primary.text(name, text)
        self._mirror(lambda tracker: tracker.text(name, text))

    def performance(self, step: int, values: Mapping[str, float]) -> None:
        """Hands the numbers to every tracker that takes them."""
        self._offer("performance", step, values)

    def image(self, step: int, name: str, picture: Picture) -> None:
        """Hands the picture to every tracker that takes pictures."""
        self._offer("image", step, name, picture)

    def histogram(self, step: int, name: str, histogram: Histogram) -> None:
        """Hands the histogram to every tracker that takes histograms."""
        self._offer("histogram", step, name, histogram)

    def artifact(self, path: Path) -> None:
        """Hands the file to every tracker that takes files."""
        self._offer("artifact", path)

    def close(self) -> None:
        """Closes every tracker."""
        try:
            self._primary.close()
        finally:
            self._mirror(lambda tracker: tracker.close())

    def _offer(self, method: str, *arguments: object) -> None:
        """Calls a method of every tracker that has it with as many arguments."""

        def call(tracker: Tracker) -> None:
            if (own := getattr(tracker, method, None)) is not None and _takes(own, arguments):
                own(*arguments)

        call(self._primary)
        self._mirror(call)

    def _mirror(self, action: Callable[[Tracker], None]) -> None:
        for tracker in list(self._mirrors):
            try:
                action(tracker)
            except Exception as error:
                self._drop(tracker, error)

    def _drop(self, tracker: Tracker, error: Exception) -> None:
        with contextlib.suppress(ValueError):  # another thread may have dropped it just now
            self._mirrors.remove(tracker)
            reason = str(error) or type(error).__name__
            with contextlib.suppress(Exception):
                self._say(f"{type(tracker).__name__}: {reason}; the run continues without it")
            with contextlib.suppress(Exception):
                tracker.close()


def _takes(method: Callable[..., object], arguments: Sequence[object]) -> bool:
    try:
        inspect.signature(method).bind(*arguments)
    except TypeError:
        return False
    return True
