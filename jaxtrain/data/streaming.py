"""Reads batches ahead of the steps that train on them, in the order of the steps, with a pool of threads."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from jaxtrain.data.dataset import Rows


class Stream:
    """The batches of steps, each read by one thread as a whole, and handed out in the order of the steps.

    A step's rows are a function of the step, so any step can be the next, and any number of threads gives the same
    batches. Going back, or forward by more than was read ahead, drops what was read.
    """

    def __init__(self, read: Callable[[int], Rows], workers: int, calls: int) -> None:
        """Takes `read`, step -> batch, the number of threads, and the number of calls of `take` to read ahead.

        While there are any, each thread has a batch to read, however few a call takes. Without threads, `take` reads.
        """
        self._read = read
        self._workers = workers
        self._calls = calls
        self._pool: ThreadPoolExecutor | None = None
        self._pending: deque[Future[Rows]] = deque()
        self._first = 0

    def take(self, step: int, count: int, out: Rows) -> None:
        """Writes the batches of `count` steps from `step` on into the leading rows of `out`, one after the other.

        Batches are read ahead by calls of as many steps, so that a short run does not read far beyond its end.
        Raises what `read` raised for the first of these steps that failed.
        """
        if not self._workers:
            for i in range(count):
                _write(self._read(step + i), i, out)
            return
        if not self._first <= step <= self._first + len(self._pending):
            self.drop()
            self._first = step
        while self._first < step:
            self._pending.popleft().cancel()
            self._first += 1
        ahead = max(self._calls * count, self._workers + 1) if self._calls else 0
        for i in range(count):
            self._submit(self._first + max(ahead, count - i))
            pending = self._pending.popleft()
            self._first += 1
            _write(pending.result(), i, out)

    def drop(self) -> None:
        """Forgets what was read ahead."""
        for future in self._pending:
            future.cancel()
        self._pending.clear()

    def close(self) -> None:
        """Ends the threads."""
        self.drop()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _submit(self, until: int) -> None:
        """Starts to read the batches of all steps before `until`."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="data")
        while self._first + len(self._pending) < until:
            self._pending.append(self._pool.submit(self._read, self._first + len(self._pending)))


def _write(batch: Rows, place: int, out: Rows) -> None:
    """Writes a batch to its place among others of its size."""
    for name, array in batch.items():
        out[name][place * len(array) : (place + 1) * len(array)] = array
