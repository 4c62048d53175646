"""What can go wrong that a user can mend: one line, and the exit code of its kind."""

import difflib
from collections.abc import Iterable


class JaxtrainWarning(UserWarning):
    """Something that is allowed and seldom wanted; the command shows it as a line, unless it is quiet."""


class JaxtrainError(Exception):
    """Anything that jaxtrain itself found wrong; the command prints it as one line."""

    exit_code = 1


class ConfigError(JaxtrainError):
    """A key of the config (or an argument) whose value cannot be used."""

    exit_code = 2

    def __init__(self, key: str, given: object, allowed: str, hint: str = "") -> None:
        """Composes the line from the key, what was given, what is allowed and what to do."""
        self.key, self.given, self.allowed, self.hint = key, given, allowed, hint
        shown = given if isinstance(given, str) and given.startswith("<") else repr(given)
        super().__init__(f"{key}: given {shown}; allowed: {allowed}" + (f". {hint}" if hint else ""))


class UsageError(JaxtrainError):
    """A command line, a directory or a program size that cannot be used as it is."""

    exit_code = 2


class DataError(JaxtrainError):
    """Data that are missing, damaged or out of range."""

    exit_code = 3


class StorageError(JaxtrainError):
    """A disk, a checkpoint or a database that cannot be read or written."""

    exit_code = 5


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Returns "did you mean 'x'?" for the closest allowed name, or an empty string."""
    close = difflib.get_close_matches(str(name), list(allowed), n=1)
    return f"did you mean '{close[0]}'?" if close else ""


def unknown(key: str, name: str, allowed: Iterable[str]) -> ConfigError:
    """Builds the error for a name that is in no list: it shows the list and the closest name."""
    names = sorted(allowed)
    return ConfigError(key, name, ", ".join(names) or "nothing", nearest(name, names))
