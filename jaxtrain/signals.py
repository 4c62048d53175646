"""Signals: SIGTERM and SIGINT ask a run to save and stop; a second one ends the process at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Interruption:
    """The signal that asked for a stop, or None."""

    signal: int | None = None


@contextmanager
def interruptions() -> Iterator[Interruption]:
    """Catches SIGTERM and SIGINT inside a `with` block; off the main thread, where Python cannot, it does nothing."""
    found = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return

    def ask(number: int, _: FrameType | None) -> None:
        if found.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        found.signal = number

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
