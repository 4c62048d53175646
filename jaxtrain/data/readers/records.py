"""Makes the splits of a source from the records of a file: inputs as a table, and targets."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.data.readers.columns import (
    ColumnTypes,
    TargetKind,
    are_codes,
    as_numbers,
    clean,
    is_ordered,
    read_column,
    read_target,
    target_kind,
)
from jaxtrain.data.readers.folders import SPLIT_OF
from jaxtrain.data.readers.label_lists import LIST, are_lists, read_label_lists
from jaxtrain.data.sequences import Sequences
from jaxtrain.data.source import SPLITS, Source, Split, missing
from jaxtrain.data.tables import Kind, Places, Table, names_of, shown
from jaxtrain.data.text_columns import MOST_TOKENS, Texts
from jaxtrain.data.texts import MOST_PAIRS
from jaxtrain.data.vocabulary import Tokens
from jaxtrain.errors import ConfigError, DataError, Words, nearest, one_of
from jaxtrain.files import exists


@dataclass(frozen=True, eq=False)
class Records:
    """The columns (n,) of a file: texts as they are written, numbers where the file has types, or lists as objects.

    `remedy` says what to do where a column is unknown. `rows` (n,) are the numbers of its rows in the file, from 0,
    where it holds some of them.
    """

    columns: Mapping[str, np.ndarray]
    places: Places
    remedy: str = ""
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(next(iter(self.columns.values()), ()))

    def take(self, rows: np.ndarray) -> "Records":
        """Returns these rows, in their order."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        numbers = rows if self.rows is None else self.rows[rows]
        return Records(columns, self.places.take(rows), self.remedy, numbers)

    @property
    def file(self) -> str:
        """The file, or the first of several."""
        return self.places.files[0]

    def column(self, name: str, knob: str) -> np.ndarray:
        """Returns a column that a knob names; raises DataError, with the nearest name, if there is none."""
        if name not in self.columns:
            got = Words(f"no column {name!r}, which data.{knob} names")
            raise DataError(
                self.file, got, f"one of {names_of(self.columns)}", nearest(name, self.columns) or self.remedy
            )
        return self.columns[name]


@dataclass(frozen=True)
class TextForm:
    """The column of a file whose texts alone are the inputs, and their tokens, as in `Texts`."""

    column: str
    tokens: Tokens
    context: int
    vocabulary: int

    knob = "text"
    """The knob that names the column."""

    def table(self, records: Records) -> Texts:
        """Returns the texts of records; raises DataError naming the line of an empty one."""
        values = records.column(self.column, self.knob)
        if values.dtype.kind != "T":
            raise DataError(records.file, Words(f"numbers in the column {self.column!r}"), "texts, for data.text")
        values = clean(values, ())
        empty = np.flatnonzero(values == "")
        if len(empty):
            got = Words(f"no text in the column {self.column!r}")
            raise DataError(records.places(int(empty[0])), got, "a text in each row", "Leave the row out")
        return Texts({self.column: values}, records.places, "", self.tokens, self.context, self.vocabulary)


@dataclass(frozen=True)
class SequenceForm:
    """The column of a file whose lists of numbers alone are the inputs, each cut off after `context` of them."""

    column: str
    context: int | None = None

    knob = "sequence"
    """The knob that names the column."""

    def table(self, records: Records) -> Sequences:
        """Returns the sequences of records; raises DataError naming the line of one that is missing."""
        values = records.column(self.column, self.knob)
        for row, sequence in enumerate(values):
            if sequence is None:
                got = Words(f"no list in the column {self.column!r}")
                raise DataError(records.places(row), got, "a list of numbers in each row", "Leave the row out")
        return Sequences(values, self.context, places=records.places, name="")


def alone_of(knobs: Mapping[str, Any]) -> TextForm | SequenceForm | None:
    """Returns the column that `data.text` or `data.sequence` names; None where inputs are a table.

    Raises ConfigError for both, and for settings of a column that is not named.
    """
    text = knobs.get("text")
    sequence = knobs.get("sequence")
    given = {knob: value for knob in ("tokens", "context", "vocabulary") if (value := knobs.get(knob)) is not None}
    if text is not None and sequence is not None:
        raise ConfigError("data.sequence", sequence, "None with data.text", "One column alone is the input")
    if text is not None:
        return TextForm(text, **{"tokens": "bytes", "context": MOST_TOKENS, "vocabulary": MOST_PAIRS} | given)
    context = None if sequence is None else given.pop("context", None)
    for knob, value in given.items():
        raise ConfigError(f"data.{knob}", value, "None without data.text, the column of texts")
    return None if sequence is None else SequenceForm(sequence, context)


Target = str | int | tuple[str, ...]
"""The column to predict, by its name or number, or several by their names."""


@dataclass(frozen=True)
class Roles:
    """The roles of columns: the target, those to leave out, the one that names splits; `types` are those of inputs.

    With `alone`, its column alone is the input.
    `target` is a name, or a number counted from 0, or from the end where it is negative, or several names. The
    characters in `target_strip` are removed from the end of targets; `target_separator` stands between labels in them.
    """

    target: Target
    drop: tuple[str, ...] = ()
    split_column: str | None = None
    types: ColumnTypes = dataclasses.field(default_factory=ColumnTypes)
    target_strip: str = ""
    target_separator: str = ""
    alone: TextForm | SequenceForm | None = None

    @property
    def targets(self) -> tuple[str | int, ...]:
        """The columns that are targets."""
        return self.target if isinstance(self.target, tuple) else (self.target,)

    @property
    def target_names(self) -> tuple[str, ...]:
        """The columns that are targets, once each is named."""
        return tuple(map(str, self.targets))

    @classmethod
    def of_knobs(cls, knobs: Mapping[str, Any]) -> "Roles":
        """Returns the roles by which a run was trained, for new files to predict from."""
        types = ColumnTypes(knobs["missing"], knobs.get("numbers", ()), knobs["categories"])
        of_targets = (knobs.get("target_strip", ""), knobs.get("target_separator", ""))
        return cls(knobs["target"], knobs["drop"], knobs["split_column"], types, *of_targets, alone_of(knobs))

    @property
    def sequence(self) -> str | None:
        """The column of lists of numbers, if that is the input."""
        return self.alone.column if isinstance(self.alone, SequenceForm) else None

    def name_target(self, records: Records) -> "Roles":
        """Returns the roles with the target's name; raises DataError for one that names no column."""
        named = {"drop": self.drop, "numbers": self.types.numbers, "categories": self.types.categories}
        for knob, names in named.items():
            for name in names:
                records.column(name, knob)
        if self.split_column is not None:
            records.column(self.split_column, "split_column")
        names = tuple(self._name_of_target(target, records) for target in self.targets)
        others = (*self.drop, self.split_column, self.alone and self.alone.column)
        if not names or not {*names}.isdisjoint(others) or len({*names}) < len(names):
            several = isinstance(self.target, tuple)
            what = "columns, each once, that are" if several else "a column that is"
            alone = f" nor data.{self.alone.knob}" if self.alone else ""
            expected = f"{what} neither in data.drop nor data.split_column{alone}"
            raise ConfigError("data.target", self.target, expected)
        return dataclasses.replace(self, target=names if isinstance(self.target, tuple) else names[0])

    def name_new_target(self, records: Records, kinds: Mapping[str, Kind]) -> "Roles":
        """Returns the roles with the target's name in a new file, "" where it has none; `kinds` are of the inputs."""
        if not isinstance(self.target, int):
            return self
        names = list(records.columns)
        target = names[self.target] if -len(names) <= self.target < len(names) else ""
        return dataclasses.replace(self, target="" if target in kinds else target)

    def _name_of_target(self, target: str | int, records: Records) -> str:
        columns = list(records.columns)
        if isinstance(target, str):
            records.column(target, "target")
            return target
        if not -len(columns) <= target < len(columns):
            raise ConfigError("data.target", target, f"a column of {records.file}: 0 to {len(columns) - 1}")
        return columns[target]

    def inputs(self, records: Records) -> list[str]:
        """Returns the names of the columns that are inputs."""
        others = (*self.targets, self.split_column, *self.drop)
        return [name for name in records.columns if name not in others]


NoteBad = Callable[[DataError], None]
"""Takes the error of a row that cannot be read, and raises it, or passes over the row."""


def refuse(error: DataError) -> None:
    """Raises the error of a row."""
    raise error


MakeInputs = Callable[[Records, Roles, Mapping[str, Kind]], Any]
"""Makes the inputs of records: a table, or anything else with `take`; the kinds are those of the training table."""


def find_files(name: str, path: Path, files: Mapping[str, str | None]) -> dict[str, Path]:
    """Returns {split: file} of {split: file in the folder `path`, or None}; raises DataError for a missing one."""
    for file in files.values():
        if file is not None and not exists(path / file):
            raise missing(name, f"file {file}", path)
    return {split: path / file for split, file in files.items() if file is not None}


def make_source(records: Mapping[str, Records], roles: Roles, make_inputs: MakeInputs | None = None) -> Source:
    """Returns the source of {split: its records}, whose inputs are tables unless `make_inputs` makes others.

    Types are those of all rows of the training file. Raises DataError naming file and line.
    """
    make_inputs = make_inputs or make_table
    if roles.split_column is not None and len(records) > 1:
        raise ConfigError("data.split_column", roles.split_column, "None, or files for train alone")
    roles = roles.name_target(records["train"])
    splits: dict[str, Split] = {}
    kinds: Mapping[str, Kind] = {}
    kind: TargetKind | None = None
    for split in (name for name in SPLITS if name in records):
        own = records[split]
        inputs = make_inputs(own, roles, kinds)
        splits[split] = Split(inputs, make_targets(own, roles, kind), own.file)
        if split == "train":
            kinds = inputs.kinds if isinstance(inputs, Table) else {}
            kind = target_kind(splits[split].targets)
    whole = splits["train"]
    columns = _columns(records["train"], roles, whole)
    target_names = roles.target_names if isinstance(roles.target, tuple) else ()
    if roles.split_column is None:
        return Source(splits, columns=columns, target_names=target_names)
    rows = rows_of_splits(records["train"], roles)
    cut = {split: Split(whole.inputs.take(own), whole.targets[own], whole.file) for split, own in rows.items()}
    own = {name: column[rows["train"]] for name, column in columns.items()}
    return Source(cut, columns=own, target_names=target_names)


def _columns(records: Records, roles: Roles, split: Split) -> dict[str, np.ndarray]:
    """Returns all columns as numbers where all values are, else as texts, by which rows may be grouped or ordered.

    Codes are numbers here unless the config sets them to categories, so that 9 stands before 010. Dates are left out
    unless their texts are in the order of time, and so are columns without a value.
    """
    known: dict[str, np.ndarray] = dict(split.inputs.columns) if isinstance(split.inputs, Table) else {}
    columns = {}
    for name, raw in records.columns.items():
        if raw.dtype.kind == "O":  # lists of numbers
            continue
        values = known.get(name)
        if values is None or (are_codes(values) and name not in roles.types.categories):
            values = as_numbers(clean(raw, roles.types.missing))
        if is_ordered(values):
            columns[name] = values
    return columns


def make_table(records: Records, roles: Roles, kinds: Mapping[str, Kind]) -> Table:
    """Returns the input columns as a table; `kinds` are those of the training table, none where it is read."""
    if roles.alone is not None:
        return roles.alone.table(records)
    columns = {}
    for name in roles.inputs(records):
        values = clean(records.columns[name], roles.types.missing)
        columns[name] = read_column(name, values, kinds.get(name) or roles.types.set_for(name), records.places)
    if not columns:
        raise DataError(records.file, Words("no column beside the target"), "at least one input")
    return Table(columns, records.places)


def make_targets(records: Records, roles: Roles, kind: TargetKind | None) -> np.ndarray:
    """Returns the targets (n,), or floats (n, columns) of several columns; names of labels as objects, a tuple a row.

    `kind` is that of the training targets, None where they are read.
    """
    if isinstance(roles.target, tuple):
        columns = [_read_targets(name, records, roles, "number") for name in roles.target]
        return np.stack(columns, axis=1)
    assert isinstance(roles.target, str)
    return _read_targets(roles.target, records, roles, kind)


def _read_targets(name: str, records: Records, roles: Roles, kind: TargetKind | None) -> np.ndarray:
    values = records.column(name, "target")
    if roles.target_strip and values.dtype.kind == "T":
        values = np.strings.rstrip(np.strings.strip(values), roles.target_strip)
    values = clean(values, roles.types.missing)
    if roles.target_separator or are_lists(values):
        return read_label_lists(name, values, roles.target_separator or LIST, records.places)
    return read_target(name, values, kind or roles.types.set_for(name), records.places)


def inputs_alone(records: Records, roles: Roles, kinds: Mapping[str, Kind]) -> Table:
    """Returns the table of a new file, to predict from; a target is left out, and may be absent.

    `kinds` are those of the training table. Raises DataError naming file and line.
    """
    return make_table(records, roles.name_new_target(records, kinds), kinds)


def rows_of_splits(records: Records, roles: Roles) -> dict[str, np.ndarray]:
    """Returns {split: its rows} by the column that names them; raises DataError for another name, or without train."""
    assert roles.split_column is not None
    texts = clean(records.columns[roles.split_column], ())
    found = texts.tolist() if texts.dtype.kind == "T" else list(map(str, texts.tolist()))
    for row, text in enumerate(found):
        if text.lower() not in SPLIT_OF:
            got = Words(f"{shown(text)} in the column {roles.split_column!r}")
            raise DataError(records.places(row), got, one_of(SPLITS), nearest(text, SPLITS))
    named = np.array([SPLIT_OF[text.lower()] for text in found])
    rows = {split: np.flatnonzero(named == split) for split in SPLITS}
    if not len(rows["train"]):
        got = Words(f"no 'train' in the column {roles.split_column!r}")
        raise DataError(records.file, got, "at least one row for training")
    return {split: own for split, own in rows.items() if len(own)}
