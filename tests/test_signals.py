"""A first signal requests a stop; a second one ends the process at once, even during a long call into C."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from tiny_runs import PATIENCE

from jaxtrain.training.signals import interruptions

# Like a long compilation, hashlib's call releases the GIL and does not check for signals.
BUSY = """
    import hashlib
    from jaxtrain.training.signals import interruptions
    with interruptions(lambda line: print(line, flush=True)) as stop:
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 30_000_000)
        print(stop.signal)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted_and_the_handlers_are_given_back(number):
    before = signal.getsignal(number)
    with interruptions() as stop:
        assert stop.signal is None
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + PATIENCE
        while stop.signal is None and time.monotonic() < deadline:
            time.sleep(0.001)
        assert stop.signal == number
    assert signal.getsignal(number) is before
    assert not [thread for thread in threading.enumerate() if thread.name == "jaxtrain-signals"]


@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_a_second_signal_ends_the_process_at_once(first, second):
    script = [sys.executable, "-c", textwrap.dedent(BUSY)]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(first)
        line = process.stdout.readline()  # at once, during the call
        assert line.startswith(f"{signal.Signals(first).name}: stops and saves once")
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(second)
        assert process.wait(timeout=PATIENCE) == 128 + second
        assert time.monotonic() - began < 5.0
        assert process.stdout.read() == ""


def test_off_the_main_thread_nothing_is_caught_and_nothing_breaks():
    found: list[int | None] = []

    def use() -> None:
        with interruptions() as stop:
            found.append(stop.signal)

    before = signal.getsignal(signal.SIGINT)  # a shell that starts pytest in the background has it ignored
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [None]
    assert signal.getsignal(signal.SIGINT) is before
