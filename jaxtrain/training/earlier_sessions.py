"""Rows and result that earlier sessions of a run left, and how far they can be trusted."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from jaxtrain.errors import StorageError
from jaxtrain.storage.json_lines import Line
from jaxtrain.storage.ownership import Owner
from jaxtrain.storage.result import Result, read_result, write_result
from jaxtrain.trackers.base import Row
from jaxtrain.trackers.jsonl import counted_rows, read_record, rows_until
from jaxtrain.training.bookkeeping import Bookkeeping


@dataclass(frozen=True)
class EarlierSessions:
    """The rows and the result in a run's directory.

    Attributes:
        workdir: the directory.
        record: the lines of metrics.jsonl.
        sealed: whether the run sealed them; not so in directories of earlier versions.
        accept_edited: whether to accept what others changed.
    """

    workdir: Path
    record: list[Line]
    sealed: bool
    accept_edited: bool

    @classmethod
    def read(cls, workdir: Path, owner: Owner | None, *, accept_edited: bool) -> "EarlierSessions":
        """Reads them; without an owner there are none."""
        sealed = owner is None or owner.seals
        record = read_record(workdir / "metrics.jsonl", sealed=sealed) if owner else []
        return cls(workdir, record, sealed, accept_edited)

    def result(self, say: Callable[[str], None]) -> Result | None:
        """Returns the result of the previous session; None if there was none, it was killed, or cannot be trusted."""
        try:
            return read_result(self.workdir, sealed=self.sealed)
        except StorageError as error:
            if not self.accept_edited:
                say(f"{error}. The run continues from its newest checkpoint and writes it again")
                return None
        accepted = read_result(self.workdir, sealed=False)
        assert accepted is not None
        accepted = replace(accepted, edited=_with(accepted.edited, "result.json"))
        write_result(self.workdir, accepted)
        return accepted

    def reason_against(self, step: int, memory: dict[str, Any]) -> str:
        """Returns why the checkpoint of a step cannot be used: the rows that it counts on are not as it left them."""
        mark = memory.get("rows")
        if self.accept_edited or counted_rows(self.record, mark, step) is not None:
            return ""
        whole = len(list(takewhile(lambda line: line.trusted, self.record)))
        number = f"{mark['count']} rows" if mark else "rows"
        return (
            f"of the {number} before it in metrics.jsonl {whole} are as written; --accept-edited takes them as they are"
        )

    def kept_rows(self, step: int, bookkeeping: Bookkeeping) -> list[Row]:
        """Returns the rows that a run resuming at a step keeps, and notes in the bookkeeping if they were edited."""
        rows = counted_rows(self.record, bookkeeping.rows, step)
        if rows is None:
            bookkeeping.edited = _with(bookkeeping.edited, "metrics.jsonl")
            return rows_until(self.record, step)
        return rows


def _with(names: list[str], name: str) -> list[str]:
    return sorted({*names, name})
