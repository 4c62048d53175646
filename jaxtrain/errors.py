"""User-facing errors: one line each, all of the form "KEY: got X; expected Y. Hint", with an exit code by kind."""

import difflib
import re
import signal
from collections.abc import Iterable
from typing import Any


class Words(str):
    """A description of what was found, such as "nothing": shown as it is, where a value is shown by its `repr`."""


def message(key: str, got: object, expected: str, hint: str = "") -> str:
    """Composes the one line of an error or a warning: line breaks become spaces, in the key escapes.

    Args:
        key: The key of the config, the flag, the file or the thing that is at fault.
        got: The value that was given, or `Words` on what was found.
        expected: What is expected in its place; no sentence of its own.
        hint: One imperative sentence on what to do; left out where it is empty.
    """
    line = f"{key}: got {_shown(got)}; expected {_unmarked(expected)}"
    return printable(f"{line}. {_unmarked(hint)}" if hint.strip() else line)


def _shown(got: object) -> str:
    """Returns what an error shows of what was found."""
    return _unmarked(got) if isinstance(got, Words) else _in_one_line(_repr(got))


LONGEST_VALUE = 1000
"""Characters of a value that an error shows."""


def _repr(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # of a user's own class
        return f"a {type(value).__name__} that cannot be printed"
    if len(text) <= LONGEST_VALUE:
        return text
    return f"{text[: LONGEST_VALUE - 100]} ... {text[-50:]}"


def printable(text: str) -> str:
    r"""Escapes what a terminal cannot show in one line, such as line breaks and bytes of a path that are no UTF-8.

    >>> print(printable("two\nlines"))
    two\nlines
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _in_one_line(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


UNMARKED = re.compile(r"(.*?(?:[ /]\.{1,2}(?!\.))?)[ .;:,]*")
"""A line, and the marks at its end without a path there, such as "." or "data/..", whose dots are its name."""


def _unmarked(text: str) -> str:
    """Joins lines, and drops the marks at the end, which the composed line sets itself."""
    found = UNMARKED.fullmatch(_in_one_line(text))
    assert found is not None  # since it matches any line
    return found[1]


class _OneForm(Exception):
    """An exception that is made of the parts of its message.

    `frames` holds the frames of a user's own code that led to it; the command prints them above the line.
    """

    frames: str = ""

    def __init__(self, key: str, got: object, expected: str, hint: str = "") -> None:
        """Composes the line; for the arguments see `message`."""
        self.key = key
        self.got = got
        self.expected = expected
        self.hint = hint
        super().__init__(message(key, got, expected, hint))

    def __reduce__(self) -> tuple[type, tuple[str, object, str, str]]:
        """Lets pickle make it again from its parts: by default it would pass the line alone."""
        return type(self), (self.key, self.got, self.expected, self.hint)


class JaxtrainWarning(_OneForm, UserWarning):
    """A setting that is possible and rarely wanted; the command prints it as one line, except with --quiet."""


class JaxtrainError(_OneForm):
    """Base of the errors that a user can fix; the command prints them as one line, without a traceback."""

    exit_code = 1

    def to_json(self) -> dict[str, Any]:
        """Returns the parts of the line, each as the line shows it, and the exit code as a dict for JSON."""
        return {
            "key": self.key,
            "got": _shown(self.got),
            "expected": _unmarked(self.expected),
            "hint": _unmarked(self.hint),
            "exit_code": self.exit_code,
        }


class ConfigError(JaxtrainError):
    """A key of the config (or an argument) whose value cannot be used."""

    exit_code = 2


class UsageError(JaxtrainError):
    """A command line, a directory or a program size that cannot be used as it is."""

    exit_code = 2


class DataError(JaxtrainError):
    """Data that are missing, damaged or out of range."""

    exit_code = 3


class NotFiniteError(DataError):
    """Data that hold nan, infinities or numbers beyond float32."""


class OnlyInOrderError(DataError):
    """Data whose examples can only be read in order, where a run reads any rows; the command `prepare` writes them."""


class InterruptError(JaxtrainError):
    """A command that SIGINT ended, such as that of Ctrl-C."""

    exit_code = 128 + signal.SIGINT


class StorageError(JaxtrainError):
    """A disk, a checkpoint or a database that cannot be read or written."""

    exit_code = 5


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns "Did you mean 'x'?" for the closest of the names, or an empty string."""
    close = difflib.get_close_matches(str(name), list(names), n=1)
    return f"Did you mean '{close[0]}'?" if close else ""


def first_line(error: Exception) -> str:
    """Returns the first line of the text of a library's error, or the name of its type where that is empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def one_of(names: Iterable[str]) -> str:
    """Returns "one of a, b", or the name alone where there is one."""
    listed = list(names)
    return f"one of {', '.join(listed)}" if len(listed) > 1 else "".join(listed)


def unknown(key: str, name: str, names: Iterable[str]) -> ConfigError:
    """Returns the error for a name that is not among `names`: it lists them and suggests the closest."""
    listed = sorted(names)
    return ConfigError(key, name, one_of(listed) or "no such name", nearest(name, listed))
