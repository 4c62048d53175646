"""Shows the progress of a run: a bar on a terminal, plain lines elsewhere, nothing with `quiet`."""

import contextlib
import os
import sys
from typing import Protocol, Self, TextIO

from jaxtrain.errors import printable


class Progress(Protocol):
    """Context manager that shows the step of a run and prints lines; errors of its stream are ignored."""

    def update(self, step: int, **shown: float) -> None:
        """Moves to this step, counted from the start of the run, and shows numbers beside it."""
        ...

    def say(self, line: str) -> None:
        """Prints a line, its control characters escaped; may be called from any thread."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def progress(
    total: int | None,
    initial: int,
    *,
    quiet: bool,
    stream: TextIO | None = None,
    description: str = "",
    unit: str = "step",
) -> Progress:
    """Returns the progress of a run of `total` steps, or other units, that starts at step `initial`.

    A `total` of None is not known before. Without `stream` it writes to the current standard error. `quiet` silences
    every line, so errors must not go here.
    """
    if quiet:
        return _Quiet()
    output = sys.stderr if stream is None else stream
    return _Bar(total, initial, output, description, unit) if output.isatty() else _Lines(output)


def plain_lines(quiet: bool) -> Progress:
    """Returns a progress without a bar, which prints lines on standard error, or nothing with `quiet`."""
    return _Quiet() if quiet else _Lines(sys.stderr)


class _Quiet:
    def update(self, step: int, **shown: float) -> None:
        pass

    def say(self, line: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class _Lines(_Quiet):
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # training continues when the reader has closed the pipe (`| head`)
            print(printable(line), file=self._stream, flush=True)


class _Bar:
    def __init__(self, total: int | None, initial: int, stream: TextIO, description: str, unit: str) -> None:
        from tqdm import tqdm

        self._stream = stream
        sized = _has_size(stream)
        # miniters=1: otherwise tqdm waits for as many steps as the last long call took, and seems to hang.
        self._bar = tqdm(
            total=total,
            initial=initial,
            file=stream,
            desc=printable(description) or None,
            unit=unit,
            miniters=1,
            dynamic_ncols=sized,
            ncols=None if sized else 80,
            nrows=None if sized else 24,
        )

    def update(self, step: int, **shown: float) -> None:
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(step - self._bar.n)

    def say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the terminal was closed: tqdm ignores that in the bar, but not in `write`
            self._bar.write(printable(line), file=self._stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()


def _has_size(stream: TextIO) -> bool:
    """Tells whether the terminal reports its size: some report 0 x 0, for which tqdm shows nothing."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return False
    return size.columns > 0 and size.lines > 0
