"""Tables to predict from: CSV, JSON Lines and Parquet, read a block of rows at a time."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.data.encoded import cut_off
from jaxtrain.data.new_inputs import check_numbers
from jaxtrain.data.readers import csv_files, json_lines, parquet_files
from jaxtrain.data.readers.columns import TargetKind, clean
from jaxtrain.data.readers.records import NoteBad, Records, Roles, inputs_alone, make_targets
from jaxtrain.data.tables import TEXT, Table
from jaxtrain.errors import DataError, Words
from jaxtrain.prediction.examples import FILL_IN, Bad, Form, Piece, row_ids
from jaxtrain.prediction.targets import as_targets

Knobs = Mapping[str, Any]


def _csv_records(
    file: Path, knobs: Knobs, roles: Roles, inputs: Sequence[str], note_bad: NoteBad
) -> Generator[Records]:
    return csv_files.iterate_records(file, csv_files.CsvForm.of_knobs(knobs), roles, inputs, note_bad)


def _jsonl_records(
    file: Path, knobs: Knobs, roles: Roles, inputs: Sequence[str], note_bad: NoteBad
) -> Generator[Records]:
    """Yields blocks with all columns of training: a field that a whole block lacks is missing in it.

    Raises DataError, at the end, for a column that no row has.
    """
    seen: set[str] = set()
    first = None
    with closing(json_lines.iterate_records(file, roles, note_bad)) as blocks:
        for block in blocks:
            first = first or block
            seen |= block.columns.keys()
            absent = np.full(len(block), "", TEXT)
            yield dataclasses.replace(block, columns={**dict.fromkeys(inputs, absent), **block.columns})
    lacking = [name for name in inputs if name not in seen]
    if lacking and first is not None:
        raise DataError(first.file, Words(f"no field {lacking[0]!r}"), f"the columns of training: {', '.join(inputs)}")


def _parquet_records(file: Path, knobs: Knobs, roles: Roles, *_: Any) -> Generator[Records]:
    return parquet_files.iterate_records(file, roles, knobs["inputs"])


@dataclass(frozen=True)
class TableFormat:
    """A format of tables: the source of its knobs, and what reads its records in blocks."""

    source: Callable[..., Any]
    records: Callable[..., Generator[Records]]


FORMATS = {
    "csv": TableFormat(csv_files.csv, _csv_records),
    "jsonl": TableFormat(json_lines.jsonl, _jsonl_records),
    "parquet": TableFormat(parquet_files.parquet, _parquet_records),
}


@dataclass(frozen=True)
class TableExamples:
    """Rows of tables, whose columns are those of training in any order.

    `unseen` counts unknown categories, or texts with unknown characters, and `cut` the texts that are cut off.
    """

    files: Sequence[Path]
    format: TableFormat
    form: Form
    bad: Bad
    unseen: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)

    count = None
    """The number of rows is not known before they are read."""

    def pieces(self) -> Generator[Piece]:
        """Yields the examples in their order."""
        for file in self.files:
            yield from self._pieces_of(file)

    def _pieces_of(self, file: Path) -> Generator[Piece]:
        encoding = self.form.info.encoding
        assert encoding is not None
        knobs = self.form.knobs(self.format.source)
        roles = roles_of(knobs)
        with closing(self.format.records(file, knobs, roles, [*encoding.kinds], self.bad.note)) as blocks:
            for records in blocks:
                piece = self._piece(records, roles, str(file))
                if len(piece):
                    self.unseen.update(encoding.unseen(piece.inputs))
                    self.cut.update(cut_off(encoding, piece.inputs))
                yield piece

    def _piece(self, records: Records, roles: Roles, file: str) -> Piece:
        encoding = self.form.info.encoding
        assert encoding is not None
        named = roles.name_new_target(records, encoding.kinds)

        def convert(rows: Records) -> tuple[Table, np.ndarray | None, np.ndarray | None]:
            table = inputs_alone(rows, named, encoding.kinds)
            check_numbers(table, self.form.info, FILL_IN)
            return table, *targets_of(rows, named, self.form)

        kept = usable_rows(records, convert, self.bad) if len(records) else np.arange(0)
        chosen = records if len(kept) == len(records) else records.take(kept)
        assert chosen.rows is not None
        ids = row_ids(file, chosen.rows, alone=len(self.files) == 1)
        return Piece(ids, *convert(chosen)) if len(kept) else Piece(ids, None)


def roles_of(knobs: Knobs) -> Roles:
    """Returns the roles of columns in a new file; a source without a target, as of data given in Python, has none."""
    target = knobs["target"]
    is_named = isinstance(target, str | int | tuple)
    return Roles.of_knobs({**knobs, "target": target if is_named else ()})


def usable_rows(
    records: Records, convert: Callable[[Records], Any], bad: Bad, known: Mapping[str, DataError] = {}
) -> np.ndarray:
    """Returns the numbers of the records that can be converted, and notes the others, which halving finds.

    `known` are errors by their place, which say more where they come of many rows. Raises DataError for what is wrong
    with the file, not with a row.
    """
    try:
        convert(records)
    except DataError as error:
        if not bad.skip:
            raise
        known = {error.key: error, **known}
        if len(records) > 1:
            halves = np.array_split(np.arange(len(records)), 2)
            return np.concatenate([half[usable_rows(records.take(half), convert, bad, known)] for half in halves])
        if error.key != records.places(0):
            raise
        bad.note(known[error.key])
        return np.arange(0)
    return np.arange(len(records))


def targets_of(records: Records, roles: Roles, form: Form) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Returns targets (n, ...), and which rows have one; None where the file has none.

    Raises DataError, naming file and line, for a target that is none of training.
    """
    if not roles.targets or not all(name in records.columns for name in roles.targets):
        return None, None
    raw = [clean(records.columns[str(name)], roles.types.missing) for name in roles.targets]
    absent = [values == "" if values.dtype.kind == "T" else values != values for values in raw]
    has_target = ~np.any(absent, axis=0)
    if not has_target.any():
        return None, None
    labelled = records.take(np.flatnonzero(has_target))
    found = as_targets(make_targets(labelled, roles, _kind(form)), form.info, labelled.places)
    targets = np.zeros((len(records), *found.shape[1:]), found.dtype)
    targets[has_target] = found
    return targets, has_target


def _kind(form: Form) -> TargetKind | None:
    """Returns the kind of the training targets; None for lists of labels, which their form tells."""
    info = form.info
    if info.class_names:
        return "category"
    if info.target_shape:
        return None
    return "number" if info.classes is None else "integer"
