"""A thread for work beside the training, which neither delays nor fails it."""

import contextlib
import queue
import threading
from collections.abc import Callable

from jaxtrain.errors import JaxtrainError

Job = Callable[[], None]

CLOSE_SECONDS = 10.0
"""Seconds that the end of a run waits for jobs that are not done."""

MOST_WAITING = 64
"""Jobs beyond which new ones are dropped: each holds copies of arrays."""


class Background:
    """Runs jobs in their order on one thread, which starts with the first; an error in one is said, and ends it alone.

    A daemon: a job that hangs must not keep the process from ending.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        """Takes the function that prints a line; it is called from the thread, too."""
        self._say = say
        self._jobs: queue.SimpleQueue[tuple[str, Job] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failed: set[str] = set()

    def put(self, name: str, job: Job) -> None:
        """Queues a job; `name` says what it is for. After an error, later jobs of the same name are left out."""
        if self._jobs.qsize() >= MOST_WAITING:
            return
        self._jobs.put((name, job))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="pictures")
            self._thread.start()

    def guard(self, name: str, job: Job) -> None:
        """Runs a job at once, on the thread that calls; an error is said once for each name."""
        if name in self._failed:
            return
        try:
            job()
        except Exception as error:
            self._failed.add(name)
            reason = f"{name}: {type(error).__name__}: {error}".rstrip(": ")
            with contextlib.suppress(Exception):
                self._say(f"{error if isinstance(error, JaxtrainError) else reason}; the run continues without it")

    def close(self) -> None:
        """Waits until all jobs are done, at most CLOSE_SECONDS."""
        if self._thread is None:
            return
        self._jobs.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            with contextlib.suppress(Exception):
                self._say(f"pictures: not all were drawn within {CLOSE_SECONDS:.0f} s of the end of the run")

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            self.guard(*item)
