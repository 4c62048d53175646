"""Signal handling: the first SIGTERM or SIGINT requests a save and stop, a second one ends the process at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Interruption:
    """The number of the signal that requested a stop, or None."""

    signal: int | None = None


WAITS = "stops and saves once the call or compilation that is running has ended; a second signal ends it at once"


@contextmanager
def interruptions(say: Callable[[str], None] = lambda line: None) -> Iterator[Interruption]:
    """Catches SIGTERM and SIGINT inside a `with` block; does nothing outside the main thread, where Python cannot.

    `say` gets a line as soon as the first signal arrives, from a thread of its own.

    Python runs handlers only between bytecode instructions, so after a compilation that may take minutes, and then only
    once for all signals received. So a thread reads the signal numbers, which the interpreter writes to a pipe as they
    arrive (`signal.set_wakeup_fd`).
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watch = threading.Thread(target=_watch, args=(reading, interruption, say), name="jaxtrain-signals", daemon=True)
    watch.start()
    previous_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    previous_handlers = {number: signal.signal(number, lambda *_: None) for number in STOP_SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_fd)
        os.close(writing)
        watch.join()
        os.close(reading)


def _watch(reading: int, interruption: Interruption, say: Callable[[str], None]) -> None:
    """Reads signal numbers from the pipe until it is closed."""
    while received := os.read(reading, 1):
        if received[0] not in STOP_SIGNALS:
            continue
        if interruption.signal is not None:
            os._exit(128 + received[0])
        interruption.signal = received[0]
        say(f"{signal.Signals(received[0]).name}: {WAITS}")
