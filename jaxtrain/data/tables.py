"""Tables: named columns of numbers or categories, and their encoding as rows of numbers, learnt from training rows."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxtrain.data.host_memory import total_memory
from jaxtrain.errors import DataError, Words, nearest

Kind = Literal["number", "category"]

TEXT = np.dtypes.StringDType()
"""The dtype of columns of categories: 16 bytes a value, whatever the longest."""

MOST_CATEGORIES = 1_000
"""Distinct categories of a column beyond which it is taken for a text or an identifier."""

MOST_NAMES = 30
"""Names of columns that an error lists."""

LONGEST_TEXT = 80
"""Characters of a value that an error shows."""

DATES = "Count from a moment, such as days since a date, as a number"


def names_of(columns: Iterable[str]) -> str:
    """Returns the names of columns for an error, the first 30 of many."""
    names = list(columns)
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES:,} more" * (len(names) > MOST_NAMES))


def shown(value: str | float) -> str:
    """Returns a value as an error shows it; of a long text the beginning."""
    text = str(value)
    return repr(value) if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]!r}..."


class Places:
    """The places of a table's rows: the file, and the line or row in it."""

    def __init__(
        self, files: Sequence[str], numbers: np.ndarray, unit: str = "line", starts: Sequence[int] = (0,)
    ) -> None:
        """Takes files, numbers (n,) of lines or rows counted through all files, and the number each file starts at."""
        self.files = tuple(files)
        self._numbers = numbers
        self._unit = unit
        self._starts = tuple(starts)

    def __call__(self, row: int) -> str:
        """Returns "file, line 7" for a row of the table."""
        number = int(self._numbers[row])
        part = bisect_right(self._starts, number) - 1
        return f"{self.files[part]}, {self._unit} {number - self._starts[part]}"

    def take(self, rows: np.ndarray) -> "Places":
        """Returns the places of these rows."""
        return Places(self.files, self._numbers[rows], self._unit, self._starts)


@dataclass(frozen=True, eq=False)
class Table:
    """Columns (n,) by name: float64 with nan where a number is missing, or texts with "" where a category is.

    Columns of integers, booleans, None and objects are converted; `places` are the rows' places in files, for errors.
    Raises DataError for columns of unlike length, more than one axis, or of values that are neither numbers nor texts.
    """

    columns: Mapping[str, Any]
    places: Places | None = field(default=None, repr=False)
    name: str = "the table"

    def __post_init__(self) -> None:
        """Converts the columns."""
        columns = {
            str(name): as_column(values, f"{self.where}, column {name}") for name, values in self.columns.items()
        }
        lengths = {len(column): name for name, column in columns.items()}
        if len(lengths) > 1:
            got = Words(" and ".join(f"{length} values in {name!r}" for length, name in lengths.items()))
            raise DataError(self.where, got, "columns of one length")
        object.__setattr__(self, "columns", columns)

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(next(iter(self.columns.values()), ()))

    @property
    def where(self) -> str:
        """The file, or the first of several, for errors."""
        return self.places.files[0] if self.places else self.name

    @property
    def kinds(self) -> dict[str, Kind]:
        """Returns {column: "number" or "category"}."""
        return {name: _kind(column) for name, column in self.columns.items()}

    def place(self, row: int) -> str:
        """Returns file and line of a row for errors."""
        return self.places(row) if self.places else f"{self.name}, row {row}"

    def take(self, rows: np.ndarray) -> "Table":
        """Returns the table of these rows, in their order."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Table(columns, self.places and self.places.take(rows), self.name)


def _kind(column: np.ndarray) -> Kind:
    return "number" if column.dtype.kind == "f" else "category"


def as_column(values: Any, where: str) -> np.ndarray:
    """Returns a column of a table as float64 or texts; raises DataError for values that are neither."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(where, Words(f"values of shape {array.shape}"), "one value for each row")
    if array.dtype.kind in "biuf":
        return array.astype(np.float64, copy=False)
    if array.dtype.kind in "UT":
        return array.astype(TEXT, copy=False)
    if array.dtype.kind != "O":
        hint = DATES if array.dtype.kind in "Mm" else ""
        raise DataError(where, Words(f"values of dtype {array.dtype}"), "numbers or texts", hint)
    absent = np.array(list(map(_is_none, array)), bool)
    if not absent.all() and all(isinstance(value, str) for value in array[~absent]):
        return np.array(np.where(absent, "", array).tolist(), TEXT)
    for row in np.flatnonzero(~absent):
        if not isinstance(array[row], int | float | np.number | np.bool):
            got = Words(f"an object of type {type(array[row]).__name__} in row {row}")
            raise DataError(where, got, "numbers or texts, one of them in all rows", "Convert the column")
    return np.where(absent, np.nan, array).astype(np.float64)


def _is_none(value: Any) -> bool:
    """Tells whether an object stands for a missing value: None, nan, or the NA and NaT of pandas."""
    is_nan = isinstance(value, float | np.floating) and value != value
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")


class ColumnEncoding(NamedTuple):
    """The encoding of one column as numbers.

    `mean` is that of its numbers, which fills missing ones, and None for categories. `missing` tells whether training
    rows miss a value, which then has an encoded column of its own.
    """

    name: str
    mean: float | None
    categories: tuple[str, ...]
    missing: bool

    @property
    def kind(self) -> Kind:
        """Whether it is made of numbers or categories."""
        return "category" if self.mean is None else "number"

    @property
    def names(self) -> list[str]:
        """The names of the encoded columns."""
        named = [f"{self.name}={category}" for category in self.categories] if self.mean is None else [self.name]
        return [*named, f"{self.name} (missing)"] if self.missing else named

    def encode(self, column: np.ndarray, out: np.ndarray) -> None:
        """Writes a column (n,) into zeros (n, len(names))."""
        absent = _absent(column)
        if self.missing:
            out[:, -1] = absent
        if self.mean is not None:
            out[:, 0] = np.where(absent, self.mean, column)
            return
        codes = self.codes(column)
        rows = np.flatnonzero(codes >= 0)
        out[rows, codes[rows]] = 1

    def codes(self, column: np.ndarray) -> np.ndarray:
        """Returns the index of each category (n,), -1 for one that is missing or not among them."""
        index = {category: code for code, category in enumerate(self.categories)}
        return np.fromiter((index.get(text, -1) for text in column.tolist()), np.int64, len(column))


@dataclass(frozen=True)
class TableEncoding:
    """Encodes tables as rows of numbers, by what the training rows showed.

    A number is one column, its missing values filled with the training mean; a category is one column of 0 and 1 for
    each category of the training rows, all 0 for another one. A column that misses values in training has one more,
    which is 1 where the value is missing.
    """

    columns: tuple[ColumnEncoding, ...]

    @classmethod
    def fit(cls, table: Table, rows: np.ndarray | None = None) -> "TableEncoding":
        """Learns means and categories of the training `rows` (None: all) of a table.

        Raises DataError for a column without values, and for more than 1,000 categories or one for each row.
        """
        training = table if rows is None else table.take(rows)
        if not len(training) or not table.columns:
            raise DataError(table.where, Words(f"{len(training)} rows of {len(table.columns)} columns"), "at least one")
        return cls(tuple(_fit_column(name, column, table.where) for name, column in training.columns.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each encoded column, such as "age", "age (missing)" or "workclass=Private"."""
        return tuple(name for column in self.columns for name in column.names)

    @property
    def flags(self) -> tuple[bool, ...]:
        """Whether each encoded column holds only 0 and 1."""
        return tuple(column.mean is None or i > 0 for column in self.columns for i in range(len(column.names)))

    @property
    def kinds(self) -> dict[str, Kind]:
        """Returns {column: "number" or "category"}, by which a reader reads new files as the training file."""
        return {column.name: column.kind for column in self.columns}

    def encode(self, table: Table) -> np.ndarray:
        """Returns the table as float64 (n, len(names)).

        Raises DataError for a column that is missing, unknown or of another kind, and for more than memory holds.
        """
        self._check(table)
        size = len(table) * len(self.names) * 8
        if size > total_memory():
            got = Words(f"{size:,} bytes for {len(table):,} rows of {len(self.names):,} encoded columns")
            hint = "Leave out the columns of most categories, by data.drop"
            raise DataError(table.where, got, f"at most {total_memory():,}, the memory of this machine", hint)
        encoded = np.zeros((len(table), len(self.names)))
        begin = 0
        for column in self.columns:
            end = begin + len(column.names)
            column.encode(self._values(table, column), encoded[:, begin:end])
            begin = end
        return encoded

    def unseen(self, table: Table) -> dict[str, int]:
        """Returns {column: rows whose category no training row has}, of the columns that have such rows."""
        self._check(table)
        counts = {}
        for column in self.columns:
            if column.mean is None:
                values = self._values(table, column)
                counts[column.name] = int(np.sum((column.codes(values) < 0) & ~_absent(values)))
        return {name: count for name, count in counts.items() if count}

    def to_json(self) -> dict[str, Any]:
        """Returns a dict for JSON; floats survive the round trip exactly."""
        return {"columns": [column._asdict() for column in self.columns]}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "TableEncoding":
        """Inverts `to_json`, also after a round trip through a JSON file."""
        columns = [{**column, "categories": tuple(column["categories"])} for column in saved["columns"]]
        return cls(tuple(ColumnEncoding(**column) for column in columns))

    def _check(self, table: Table) -> None:
        """Raises DataError unless the table has the columns of the training table, in any order."""
        absent = [name for name in self.kinds if name not in table.columns]
        extra = [name for name in table.columns if name not in self.kinds]
        if absent:
            got = Words(f"no column {absent[0]!r}" + (f" but {extra[0]!r}" if len(extra) == 1 else ""))
            hint = nearest(absent[0], extra) or "Give the columns that the model was trained on"
            raise DataError(table.where, got, f"the columns of training: {names_of(self.kinds)}", hint)
        if extra:
            hint = "Leave it out, as by data.drop"
            raise DataError(table.where, Words(f"the column {extra[0]!r}"), "the columns of training alone", hint)

    def _values(self, table: Table, column: ColumnEncoding) -> np.ndarray:
        """Returns a column in its kind of training; one without any value has none of its own."""
        values = table.columns[column.name]
        if _kind(values) == column.kind:
            return values
        present = np.flatnonzero(~_absent(values))
        if len(present):
            got = Words(f"{shown(values[present[:1]].tolist()[0])} in the column {column.name!r}")
            raise DataError(table.place(int(present[0])), got, f"a {column.kind}, as in training")
        return np.full(len(values), np.nan) if column.kind == "number" else np.full(len(values), "", TEXT)


def _absent(column: np.ndarray) -> np.ndarray:
    return np.isnan(column) if column.dtype.kind == "f" else column == ""


def _fit_column(name: str, column: np.ndarray, where: str) -> ColumnEncoding:
    absent = _absent(column)
    present = column[~absent]
    drop = f"Leave it out, by data.drop=({name!r},)"
    if not len(present):
        raise DataError(where, Words(f"no value in the column {name!r}"), "at least one in the training rows", drop)
    missing = bool(absent.any())
    if _kind(column) == "number":
        return ColumnEncoding(name, float(present.mean()), (), missing)
    categories = tuple(sorted(set(present.tolist())))
    if len(categories) > MOST_CATEGORIES or len(categories) == len(column) > 1:
        got = Words(f"{len(categories):,} different texts in {len(column):,} rows of the column {name!r}")
        expected = f"at most {MOST_CATEGORIES:,} categories, and fewer than rows"
        raise DataError(where, got, expected, f"{drop}: it is a text or an identifier")
    return ColumnEncoding(name, None, categories, missing)
