"""Appends to and reads JSON Lines files; a last line that a kill has torn is ignored."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxtrain.errors import StorageError, Words
from jaxtrain.files import storage_error, write_text

Row = dict[str, Any]
IsRow = Callable[[Any], bool]
"""Tells whether a parsed line is a valid row of this kind of file."""


class JsonLines:
    """A file open for appending, truncated first to the rows to keep.

    Raises StorageError when the file cannot be read or written. A failed write leaves no partial line.
    """

    def __init__(self, path: Path, is_row: IsRow, keep: Callable[[Row], bool] | None = lambda row: True) -> None:
        """Opens the file, and rewrites it without the rows that `keep` rejects; `rows` are those that remain.

        With `keep` None it starts empty, and the old content is not read, since it may be damaged.
        """
        kept = [] if keep is None else [(text, row) for text, row in _lines(path, is_row) if keep(row)]
        self.path = path
        self.rows = [row for _, row in kept]
        try:
            content = "".join(text + "\n" for text, _ in kept)
            if keep is None:
                path.write_bytes(b"")
            elif path.exists() and path.read_bytes() != content.encode():
                write_text(path, content)
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise storage_error(path, "written", error) from error

    def append(self, rows: Sequence[Row]) -> None:
        """Appends rows, in one write if the system accepts it whole."""
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
        descriptor = self._file.fileno()
        length = os.fstat(descriptor).st_size
        try:
            while text:  # a disk that fills up accepts a part first and fails on the rest
                text = text[self._file.write(text) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, length)
            raise storage_error(self.path, "written", error) from error

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_lines(path: Path, is_row: IsRow) -> list[Row]:
    """Returns the rows in the file's order, without a torn last line; an empty list if there is no file.

    Raises StorageError for a file that cannot be read, and for a damaged line before the last, with its number.
    """
    return [row for _, row in _lines(path, is_row)]


def _lines(path: Path, is_row: IsRow) -> Iterator[tuple[str, Row]]:
    try:
        texts = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(path, "read", error) from error
    for number, text in enumerate(texts, start=1):
        row = _parse(text)
        if is_row(row):
            yield text.decode(), row
        elif number < len(texts):  # only the last line can be torn by a kill: another is damage, never dropped unseen
            got = Words(f"damage in line {number}")
            hint = "Repair the line, or move the file away"
            raise StorageError(str(path), got, "a JSON object of this file's kind in every line", hint)


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
