"""Signals: SIGTERM and SIGINT ask a run to save and stop; a second one ends the process at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

ASKING = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Interruption:
    """The signal that asked for a stop, or None."""

    signal: int | None = None


@contextmanager
def interruptions() -> Iterator[Interruption]:
    """Catches SIGTERM and SIGINT inside a `with` block; off the main thread, where Python cannot, it does nothing.

    Python runs a handler between two lines of Python, hence after a compilation of minutes, and then once for however
    many signals came. So a thread reads the numbers that the interpreter writes into a pipe as they arrive.
    """
    found = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watch = threading.Thread(target=_watch, args=(reading, found), name="jaxtrain-signals", daemon=True)
    watch.start()
    pipe_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: None) for number in ASKING}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(pipe_before)
        os.close(writing)
        watch.join()
        os.close(reading)


def _watch(reading: int, found: Interruption) -> None:
    while received := os.read(reading, 1):
        if received[0] not in ASKING:
            continue
        if found.signal is not None:
            os._exit(128 + received[0])
        found.signal = received[0]
