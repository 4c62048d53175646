"""metrics.jsonl, the truth about a run's numbers: the other trackers mirror it or are rebuilt from it."""

import contextlib
import json
import math
import numbers
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxtrain.errors import StorageError
from jaxtrain.trackers.base import Row


class _Line(NamedTuple):
    text: bytes
    row: Row


class JsonlTracker:
    """Appends one line per (step, split) to a file and hands each to the operating system at once.

    With `resume_step` None the file starts empty; with a step, rows after it and a torn last line are cut off and the
    rest is kept, so the rows up to a step must be written before the checkpoint of that step is committed. Rows of the
    test split are cut off, too: a run writes them at its very end, so one that goes on was killed there.
    Numbers that are not finite become null. Raises StorageError where the file cannot be read or written (a failed
    write leaves no part of a line behind) and ValueError for a second row of a (step, split), which is a bug of ours.
    """

    def __init__(self, path: str | os.PathLike[str], resume_step: int | None) -> None:
        """Opens the file, after cutting it back to `resume_step`."""
        self._path = Path(path)
        kept = [] if resume_step is None else [line for line in _lines(self._path) if _counts(line.row, resume_step)]
        try:
            if resume_step is None:
                self._path.write_bytes(b"")
            else:
                _replace(self._path, b"".join(line.text + b"\n" for line in kept))
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise _unwritable(self._path, error) from error
        self._kept = [line.row for line in kept]
        self._written = {(row["step"], row["split"]) for row in self._kept}

    def rows(self) -> list[Row]:
        """Returns the rows that were kept at opening, in the file's order."""
        return list(self._kept)

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Appends the row of (step, split) and flushes it to the operating system."""
        if (step, split) in self._written:
            raise ValueError(f"{self._path}: step {step} of split {split!r} was written before")
        if clash := values.keys() & {"step", "split"}:
            raise ValueError(f"{self._path}: {sorted(clash)} cannot be names of numbers, they name the row")
        row: Row = {"step": int(step), "split": split, **{name: _number(value) for name, value in values.items()}}
        self._append(json.dumps(row, allow_nan=False).encode() + b"\n")
        self._written.add((step, split))

    def text(self, name: str, text: str) -> None:
        """Does nothing: the file holds numbers alone, and config.json holds the config."""

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _append(self, line: bytes) -> None:
        descriptor = self._file.fileno()
        length = os.fstat(descriptor).st_size
        try:
            while line:  # a disk that fills up takes a part first and fails on the rest
                line = line[self._file.write(line) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, length)
            raise _unwritable(self._path, error) from error


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Returns the rows of a metrics.jsonl in the file's order, without a torn last line; none where there is no file.

    Raises StorageError for a file that cannot be read and for a damaged line before the last, with its number.
    """
    return [line.row for line in _lines(Path(path))]


def _lines(path: Path) -> Iterable[_Line]:
    try:
        texts = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
    for number, text in enumerate(texts, start=1):
        row = _row(text)
        if row is not None:
            yield _Line(text, row)
        elif number < len(texts):  # only the last line can be torn by a kill: another is damage, never dropped unseen
            raise StorageError(f"{path}: line {number} is not a row of metrics; mend it, or move the file away")


def _counts(row: Row, resume_step: int) -> bool:
    """Tells whether a row still holds for a run that goes on from a step."""
    return row["step"] <= resume_step and row["split"] != "test"


def _row(text: bytes) -> Row | None:
    try:
        row = json.loads(text)
    except ValueError:
        return None
    is_row = isinstance(row, dict) and isinstance(row.get("step"), int) and isinstance(row.get("split"), str)
    return row if is_row else None


def _replace(path: Path, content: bytes) -> None:
    """Gives the file this content whole: a kill in between leaves the old content, never a part of the new."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _number(value: float) -> int | float | None:
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if math.isfinite(value) else None


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path}: cannot be written: {error.strerror}. Free space or make it writable, then give the same command again"
    )
