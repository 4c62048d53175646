import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap

import pytest
from tiny_runs import PATIENCE

from jaxtrain.trackers.progress import progress


class Terminal:
    """A pseudo-terminal: write to `stream`, and read with `shown()` what has arrived since the last call."""

    END = "<end>"

    def __init__(self, lines: int, columns: int) -> None:
        self.reader, writer = pty.openpty()
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.stream = os.fdopen(writer, "w")

    def shown(self) -> str:
        print(self.END, end="", file=self.stream, flush=True)
        shown = ""
        while not shown.endswith(self.END):
            shown += os.read(self.reader, 65536).decode()
        return shown.removesuffix(self.END)


@pytest.fixture(params=[(24, 80), (0, 0)], ids=["sized", "without a size"])
def terminal(request):
    terminal = Terminal(*request.param)
    yield terminal
    terminal.stream.close()
    os.close(terminal.reader)


def test_a_terminal_shows_a_bar_with_the_step_and_the_numbers(terminal):
    with progress(1000, 400, quiet=False, stream=terminal.stream, description="digits") as bar:
        assert "400/1000" in terminal.shown()
        bar.update(1000, loss=0.125)
    shown = terminal.shown()
    assert re.search(r"digits: 100%.*1000/1000.*loss=0\.125", shown)
    assert shown.endswith("\n")


def test_a_line_stands_on_its_own_and_the_bar_comes_back_under_it(terminal):
    with progress(10, 0, quiet=False, stream=terminal.stream) as bar:
        bar.update(5)
        terminal.shown()
        bar.say("saved step 5")
        shown = terminal.shown()
    cleared, line, below = re.split(r"(saved step 5\r\n)", shown)
    assert line
    assert cleared.endswith("\r")
    assert not cleared.strip()
    assert "5/10" in below


def test_a_terminal_that_is_closed_does_not_end_the_run():
    script = """
        import os, pty
        from jaxtrain.trackers.progress import progress
        reader, writer = pty.openpty()
        stream = os.fdopen(writer, "w")
        with progress(1000, 0, quiet=False, stream=stream) as bar:
            os.close(reader)
            for step in range(0, 1000, 100):
                bar.update(step, loss=0.5)
                bar.say("a line")
        print("done")
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.stdout == "done\n", result.stderr


def test_elsewhere_only_what_is_said_is_printed():
    stream = io.StringIO()
    with progress(10, 0, quiet=False, stream=stream) as lines:
        for step in range(11):
            lines.update(step, loss=0.5)
        lines.say("step 10")
    assert stream.getvalue() == "step 10\n"


def test_a_reader_that_went_away_does_not_end_the_run():
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    with progress(10, 0, quiet=False, stream=stream) as lines:
        lines.say("first")
        lines.say("second")
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_standard_error_is_looked_up_when_it_is_needed(capsys):
    with progress(10, 0, quiet=False) as lines:
        lines.say("a line")
    assert capsys.readouterr() == ("", "a line\n")


def test_quiet_is_silent_everywhere(terminal):
    other = io.StringIO()
    for stream in (terminal.stream, other):
        with progress(10, 0, quiet=True, stream=stream) as silent:
            silent.update(5, loss=0.5)
            silent.say("a line")
    assert terminal.shown() == other.getvalue() == ""
