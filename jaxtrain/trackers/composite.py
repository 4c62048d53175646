"""Several trackers as one: the truth and its mirrors."""

import contextlib
from collections.abc import Callable, Mapping, Sequence

from jaxtrain.trackers.base import Tracker


def several(trackers: Sequence[Tracker], say: Callable[[str], None]) -> Tracker:
    """Returns a tracker that writes to the first, the truth, and then to the others, its mirrors.

    Errors of the truth reach the run. A mirror that raises is said once, closed and left out from then on.
    """
    truth, *mirrors = trackers
    return _Several(truth, mirrors, say)


class _Several:
    def __init__(self, truth: Tracker, mirrors: list[Tracker], say: Callable[[str], None]) -> None:
        self._truth = truth
        self._mirrors = mirrors
        self._say = say

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        self._truth.write(step, split, values)
        self._mirror(lambda tracker: tracker.write(step, split, values))

    def text(self, name: str, text: str) -> None:
        self._truth.text(name, text)
        self._mirror(lambda tracker: tracker.text(name, text))

    def close(self) -> None:
        try:
            self._truth.close()
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
            self._say(f"{type(tracker).__name__}: {reason}; the run goes on without it")
        with contextlib.suppress(Exception):
            tracker.close()
