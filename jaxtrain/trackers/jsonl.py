"""metrics.jsonl, the authoritative record of a run's metrics: other trackers mirror it or are rebuilt from it."""

import math
import numbers
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtrain.errors import Words, message
from jaxtrain.storage.json_lines import JsonLines, read_lines
from jaxtrain.trackers.base import ROW_KEYS, Row


class JsonlTracker:
    """Appends one line per (step, split) to a file and hands each to the operating system at once.

    With `resume_step` None the file starts empty. With a step, rows after it and a torn last line are dropped and the
    rest is kept, so the rows up to a step must be written before the checkpoint of that step is committed. Rows of the
    test split are dropped too: a run writes them last, so a run that resumes will write them again.
    Each row holds the Unix time of its writing, in seconds. Values that are not finite become null. Raises StorageError
    when the file cannot be read or written (a failed write leaves no partial line) and ValueError for a second row of a
    (step, split), which is a bug of ours.
    """

    def __init__(self, path: str | os.PathLike[str], resume_step: int | None) -> None:
        """Opens the file and truncates it to the rows up to `resume_step`."""
        keep = None if resume_step is None else lambda row: _is_kept(row, resume_step)
        self._lines = JsonLines(Path(path), _is_row, keep)
        self._written = {(row["step"], row["split"]) for row in self._lines.rows}

    def rows(self) -> list[Row]:
        """Returns the rows that were kept at opening, in the file's order."""
        return list(self._lines.rows)

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Appends the row of (step, split) and flushes it to the operating system."""
        path = self._lines.path
        if (step, split) in self._written:
            got = Words(f"step {step} of split {split!r} twice")
            raise ValueError(message(str(path), got, "one row for each step of a split"))
        if clash := values.keys() & ROW_KEYS:
            got = Words(f"numbers called {', '.join(sorted(clash))}")
            raise ValueError(message(str(path), got, "other names, since these are keys of the row"))
        numbers = {name: _number(value) for name, value in values.items()}
        self._lines.append([{"step": int(step), "split": split, "time": round(time.time(), 3), **numbers}])
        self._written.add((step, split))

    def text(self, name: str, text: str) -> None:
        """Does nothing: the file holds only metrics, and config.json holds the config."""

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Returns the rows of a metrics.jsonl in the file's order, without a torn last line; none if there is no file.

    Raises StorageError for a file that cannot be read and for a damaged line before the last, with its number.
    """
    return read_lines(Path(path), _is_row)


def _is_kept(row: Row, resume_step: int) -> bool:
    """Tells whether a run that resumes at a step keeps a row."""
    return row["step"] <= resume_step and row["split"] != "test"


def _is_row(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("step"), int) and isinstance(value.get("split"), str)


def _number(value: float) -> int | float | None:
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if math.isfinite(value) else None
