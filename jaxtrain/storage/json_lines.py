"""Appends to and reads JSON Lines files whose lines are sealed; a last line that a kill has torn is ignored."""

import contextlib
import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtrain.files import exists, guarded, open_file, read_bytes, write_all, write_bytes
from jaxtrain.storage.seals import SEAL, add_seal, is_sealed, without_seal

Row = dict[str, Any]
IsRow = Callable[[Any], bool]
"""Tells whether a parsed line is a valid row of this kind of file."""


class Line(NamedTuple):
    """A line of a file: its number, its row without the seal (None if it is no row), and whether its seal is right."""

    number: int
    row: Row | None
    trusted: bool


class JsonLines:
    """A file open for appending, which holds the given rows first.

    Raises StorageError when the file cannot be read or written. A failed write leaves no partial line.
    """

    def __init__(self, path: Path, rows: Sequence[Row] = ()) -> None:
        """Opens the file, and rewrites it unless it holds exactly these rows."""
        self.path = path
        content = _text(rows)
        if content and (not exists(path) or read_bytes(path) != content):
            write_bytes(path, content)
        self._file = open_file(path, "ab", buffering=0)
        if not content:
            self._truncate(0)

    def append(self, rows: Sequence[Row]) -> None:
        """Appends sealed rows, in one write if the system accepts it whole."""
        text = _text(rows)
        with guarded(self.path, "written"):
            status = os.fstat(self._file.fileno())
            if status.st_nlink == 0:  # what is appended to it would be lost
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            try:
                write_all(self._file, text)
            except OSError:
                with contextlib.suppress(OSError):
                    self._truncate(status.st_size)
                raise

    def flush(self) -> None:
        """Flushes the file to the disk, so that its rows survive a power cut."""
        with guarded(self.path, "written"):
            os.fsync(self._file.fileno())

    def _truncate(self, length: int) -> None:
        with guarded(self.path, "written"):
            os.ftruncate(self._file.fileno(), length)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_lines(path: Path, is_row: IsRow, *, sealed: bool = True) -> list[Line]:
    """Reads a file; a torn last line is left out, and a missing file is an empty one.

    With `sealed` False, lines without a seal are trusted, too: those that an earlier version wrote.
    Raises StorageError for a file that cannot be read.
    """
    if not exists(path):
        return []
    texts = read_bytes(path).splitlines()
    lines = [_line(number, text, is_row, sealed) for number, text in enumerate(texts, start=1)]
    if lines and lines[-1].row is None:  # only the last line can be torn by a kill
        lines.pop()
    return lines


def read_appended(path: Path, offset: int, is_row: IsRow, *, sealed: bool = True) -> tuple[list[Row], int]:
    """Reads the trusted rows that a file holds after a number of bytes; returns them, and the bytes read so far.

    A last line whose writing has not ended is left for the next call. A missing file is an empty one.
    """
    if not exists(path):
        return [], offset
    with guarded(path, "read"), open_file(path) as file:
        file.seek(offset)
        content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    lines = [_line(number, text, is_row, sealed) for number, text in enumerate(whole.splitlines(), start=1)]
    return [line.row for line in lines if line.row is not None and line.trusted], offset + len(whole)


def _line(number: int, text: bytes, is_row: IsRow, sealed: bool) -> Line:
    content = _parse(text)
    if not isinstance(content, dict):
        return Line(number, None, trusted=False)
    row = without_seal(content)
    if not is_row(row):
        return Line(number, None, trusted=False)
    return Line(number, row, trusted=is_sealed(content) or not (sealed or SEAL in content))


def _text(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(add_seal(row), allow_nan=False) + "\n" for row in rows).encode()


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
