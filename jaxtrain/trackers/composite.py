"""One tracker that writes to several: the primary one and its mirrors."""

import contextlib
from collections.abc import Callable, Mapping, Sequence

from jaxtrain.trackers.base import Tracker


class CompositeTracker:
    """Writes to the first tracker, the primary one, and then to the others, its mirrors.

    Errors of the primary tracker reach the run. A mirror that raises is reported once, closed and no longer written to.
    """

    def __init__(self, trackers: Sequence[Tracker], say: Callable[[str], None]) -> None:
        """Takes the trackers, the primary one first, and the function that prints a line."""
        self._primary, *self._mirrors = trackers
        self._say = say

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes the metrics to every tracker."""
        self._primary.write(step, split, values)
        self._mirror(lambda tracker: tracker.write(step, split, values))

    def text(self, name: str, text: str) -> None:
        """Writes the text to every tracker."""
        self._primary.text(name, text)
        self._mirror(lambda tracker: tracker.text(name, text))

    def close(self) -> None:
        """Closes every tracker."""
        try:
            self._primary.close()
        finally:
            self._mirror(lambda tracker: tracker.close())

    def _mirror(self, action: Callable[[Tracker], None]) -> None:
        for tracker in list(self._mirrors):
            try:
                action(tracker)
            except Exception as error:
                self._drop(tracker, error)

    def _drop(self, tracker: Tracker, error: Exception) -> None:
        self._mirrors.remove(tracker)
        reason = str(error) or type(error).__name__
        with contextlib.suppress(Exception):
            self._say(f"{type(tracker).__name__}: {reason}; the run continues without it")
        with contextlib.suppress(Exception):
            tracker.close()
