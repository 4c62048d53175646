"""Queues of things to send to an MLflow server. A thing at which the server keeps failing holds up no other."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from jaxtrain.trackers.mlflow_rest import ServerFails

T = TypeVar("T")

TRIES = 5
"""Times in a row that the server fails before a thing is set aside; the pauses between them add up to half a minute."""


class Deliveries(Generic[T]):
    """Things that are sent in their order. One at which the server fails TRIES times is set aside, and said once."""

    def __init__(
        self,
        deliver: Callable[[T], None],
        say: Callable[[str], None],
        parts: Callable[[T], Sequence[T]] = lambda thing: [thing],
    ) -> None:
        """Takes the function that sends a thing; of a thing that fails, each of its `parts` is then tried alone."""
        self._deliver = deliver
        self._say = say
        self._parts = parts
        self._waiting: deque[T] = deque()
        self._aside: list[T] = []
        self._failures = 0
        self._is_said = False

    @property
    def left(self) -> int:
        """The number of things that are set aside."""
        return len(self._aside)

    def add(self, things: Iterable[T]) -> None:
        """Puts things at the end of the queue."""
        self._waiting += things

    def send(self, *, is_last: bool) -> None:
        """Sends what waits; the last time each thing is tried once, those set aside, too.

        Raises ServerDown: the next call continues there.
        """
        if is_last:
            self._waiting += self._aside
            self._aside = []
        while self._waiting:
            try:
                self._deliver(self._waiting[0])
            except ServerFails as error:
                self._failures += 1
                if self._failures < TRIES and not is_last:
                    raise
                self._set_aside(self._waiting.popleft(), error)
            else:
                self._failures = 0
                self._waiting.popleft()

    def _set_aside(self, thing: T, error: ServerFails) -> None:
        parts = self._parts(thing)
        if len(parts) > 1:
            self._waiting.extendleft(reversed(parts))
            return
        self._aside.append(thing)
        if not self._is_said:
            self._is_said = True
            self._say(f"MLflow: the server fails at a part of it ({error}), which is set aside; the rest is sent")


def demand_nothing_left(*queues: Deliveries) -> None:
    """Raises ServerFails if something of these is set aside."""
    if left := sum(queue.left for queue in queues):
        raise ServerFails(f"it fails at {left:,} of the requests")
