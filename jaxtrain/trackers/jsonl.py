"""metrics.jsonl, the authoritative record of a run's metrics: other trackers mirror it or are rebuilt from it."""

import math
import numbers
import os
import time
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from jaxtrain.errors import StorageError, Words, message
from jaxtrain.storage.json_lines import JsonLines, Line, read_appended, read_lines
from jaxtrain.storage.seals import SEAL, chain
from jaxtrain.trackers.base import ROW_KEYS, Histogram, Row
from jaxtrain.trackers.figures import Picture

Mark = dict[str, Any]
"""Record of the rows before a checkpoint: {"count": their number, "seal": a seal over them in order}."""


class JsonlTracker:
    """Writes one sealed line per (step, split) to a file and hands each to the operating system at once.

    Each row holds the Unix time of its writing, in seconds. Values that are not finite become null. Raises StorageError
    when the file cannot be read or written (a failed write leaves no partial line) and ValueError for a second row of a
    (step, split), which is a bug of ours.
    """

    def __init__(self, path: str | os.PathLike[str], rows: Sequence[Row] = ()) -> None:
        """Opens the file, and rewrites it unless it holds exactly `rows`, those that a resumed run keeps."""
        self._lines = JsonLines(Path(path), rows)
        self._rows = list(rows)
        self._written = {(row["step"], row["split"]) for row in rows}
        self._mark = mark_of(rows)

    def rows(self) -> list[Row]:
        """Returns the rows that the file held at opening."""
        return list(self._rows)

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Appends the row of (step, split) and flushes it to the operating system."""
        path = self._lines.path
        if (step, split) in self._written:
            got = Words(f"step {step} of split {split!r} twice")
            raise ValueError(message(str(path), got, "one row for each step of a split"))
        if clash := values.keys() & {*ROW_KEYS, SEAL}:
            got = Words(f"numbers called {', '.join(sorted(clash))}")
            raise ValueError(message(str(path), got, "other names, since these are keys of the row"))
        numbers = {name: _number(value) for name, value in values.items()}
        row = {"step": int(step), "split": split, "time": round(time.time(), 3), **numbers}
        self._lines.append([row])
        self._written.add((step, split))
        self._mark = {"count": self._mark["count"] + 1, "seal": chain([row], self._mark["seal"])}

    def mark(self) -> Mark:
        """Flushes the rows to the disk, and returns what a checkpoint that counts on them remembers."""
        self._lines.flush()
        return dict(self._mark)

    def text(self, name: str, text: str, step: int = 0) -> None:
        """Does nothing: the file holds only metrics, and config.json holds the config."""

    def performance(self, step: int, values: Mapping[str, float]) -> None:
        """Does nothing: plots/record.jsonl holds it."""

    def image(self, step: int, name: str, picture: Picture) -> None:
        """Does nothing: plots/record.jsonl holds it."""

    def histogram(self, step: int, name: str, histogram: Histogram) -> None:
        """Does nothing: plots/record.jsonl holds it."""

    def artifact(self, path: Path) -> None:
        """Does nothing: the file is in the run's directory."""

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()


def mark_of(rows: Sequence[Row]) -> Mark:
    """Returns the mark of the given rows."""
    return {"count": len(rows), "seal": chain(rows)}


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Returns the rows of a metrics.jsonl in the file's order, without a torn last line; none if there is no file.

    Raises StorageError for a file that cannot be read, and for a line that is damaged or was changed, with its number.
    """
    lines = read_record(Path(path), sealed=False)
    for line in lines:
        if not line.trusted:
            got = Words(
                f"damage in line {line.number}" if line.row is None else f"line {line.number} changed by others"
            )
            raise StorageError(str(path), got, "the rows that the run wrote", "Restore the file from a copy")
    return [line.row for line in lines if line.row is not None]


def read_record(path: Path, *, sealed: bool) -> list[Line]:
    """Reads the lines of a metrics.jsonl; with `sealed` False those without a seal are trusted, too."""
    return read_lines(path, _is_row, sealed=sealed)


def read_appended_rows(path: Path, offset: int, *, sealed: bool) -> tuple[list[Row], int]:
    """Reads the trusted rows of a metrics.jsonl after a number of bytes; returns them, and the bytes read so far."""
    return read_appended(path, offset, _is_row, sealed=sealed)


def counted_rows(record: Sequence[Line], mark: Mark | None, step: int) -> list[Row] | None:
    """Returns the rows that the checkpoint of a step counts on; None unless they are all there as they were written.

    A checkpoint of an earlier version has no mark: it counts on all rows up to its step. Rows of the test split come
    after the last checkpoint, and a run that resumes writes them again.
    """
    whole = [line.row for line in takewhile(lambda line: line.trusted, record) if line.row is not None]
    if mark is None:
        return rows_until(record, step) if all(line.trusted for line in record) else None
    rows = whole[: mark["count"]]
    return rows if mark_of(rows) == mark else None


def rows_until(record: Sequence[Line], step: int) -> list[Row]:
    """Returns the rows up to a step, trusted or not: the first of each (step, split), and none of the test split."""
    rows = [line.row for line in record if line.row is not None]
    first = {(row["step"], row["split"]): row for row in reversed(rows)}
    return [
        row
        for row in rows
        if row["step"] <= step and row["split"] != "test" and row is first[row["step"], row["split"]]
    ]


def _is_row(value: Any) -> bool:
    """Tells whether an object has a step, a split, and else numbers, None for those that are undefined."""
    if not isinstance(value, dict) or type(value.get("step")) is not int or not isinstance(value.get("split"), str):
        return False
    return all(name == "split" or isinstance(number, int | float | None) for name, number in value.items())


def _number(value: float) -> int | float | None:
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if math.isfinite(value) else None
