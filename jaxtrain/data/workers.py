"""Processes that read examples by Python code, which threads of one process would run one at a time."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from jaxtrain.errors import DataError, Words

Values = tuple[np.ndarray, ...]
Read = Callable[[np.ndarray], Values]
"""Takes rows, and returns their values: a function that pickle can copy, with all that it reads from."""


class Workers:
    """Processes each of which has a copy of a function that reads rows; several threads may ask at once.

    They are spawned: a fork of a process with threads may never run. Rows that several threads ask for are read once.
    """

    def __init__(self, read: Read, count: int, where: str) -> None:
        """Takes the function, the number of processes, and what errors name.

        Raises DataError for a function that pickle cannot copy.
        """
        try:
            pickle.dumps(read)
        except Exception as error:  # of the object that it reads from
            got = Words(f"an object with parts that stay in this process ({type(error).__name__}: {error})")
            raise DataError(where, got, "one that pickle copies", "Leave data.processes out") from error
        self._where = where
        self._count = count
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(read,))
        self._recent: OrderedDict[bytes, Future[Values]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, rows: np.ndarray) -> Values:
        """Returns what one of the processes reads at these rows.

        Raises what it raised, and DataError where a process was ended from outside.
        """
        try:
            return self._ask(rows).result()
        except BrokenProcessPool as error:
            got = Words("a worker process that has ended, killed or out of memory")
            hint = "Guard a script by `if __name__ == '__main__':`; the same call continues from the last checkpoint"
            raise DataError(self._where, got, f"{self._count} that read examples", hint) from error

    def _ask(self, rows: np.ndarray) -> Future[Values]:
        key = rows.tobytes()
        with self._lock:
            if key not in self._recent:
                self._recent[key] = self._pool.submit(_read, rows)
            while len(self._recent) > 2 * self._count:
                self._recent.popitem(last=False)
            return self._recent[key]


_own: list[Read] = []
"""In a worker: the function that it reads by."""


def _begin(read: Read) -> None:
    _own[:] = [read]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: the run ends these
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Waits until the run has ended, killed or not: a worker would wait for rows for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _read(rows: np.ndarray) -> Values:
    return _own[0](rows)
