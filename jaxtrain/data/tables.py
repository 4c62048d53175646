"""Tables: named columns of numbers or categories."""

import dataclasses
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from jaxtrain.errors import DataError, Words

Kind = Literal["number", "category"]

TEXT = np.dtypes.StringDType()
"""The dtype of columns of categories: 16 bytes a value, whatever the longest."""

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

    @property
    def numbers(self) -> np.ndarray:
        """The number of each row's line or row, counted through all files."""
        return self._numbers

    def take(self, rows: np.ndarray) -> "Places":
        """Returns the places of these rows."""
        return Places(self.files, self._numbers[rows], self._unit, self._starts)


class FilePlaces(Places):
    """The places of rows each of which is a file of its own in a folder."""

    def __init__(self, folder: str, paths: Sequence[str], numbers: np.ndarray | None = None) -> None:
        """Takes the folder, the paths of its files, and the number of each row's file (None: one after another)."""
        super().__init__([folder], np.arange(len(paths)) if numbers is None else numbers)
        self._paths = paths

    def __call__(self, row: int) -> str:
        """Returns the path of a row's file."""
        return self._paths[int(self._numbers[row])]

    def take(self, rows: np.ndarray) -> "FilePlaces":
        """Returns the places of these rows."""
        return FilePlaces(self.files[0], self._paths, self._numbers[rows])


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
        return {name: kind_of(column) for name, column in self.columns.items()}

    def place(self, row: int) -> str:
        """Returns file and line of a row for errors."""
        return self.places(row) if self.places else f"{self.name}, row {row}"

    def take(self, rows: np.ndarray) -> "Table":
        """Returns the table of these rows, in their order."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return dataclasses.replace(self, columns=columns, places=self.places and self.places.take(rows))


def kind_of(column: np.ndarray) -> Kind:
    """Tells whether a column of a table holds numbers or categories."""
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


def absent_in(column: np.ndarray) -> np.ndarray:
    """Tells which values (n,) of a column are missing."""
    return np.isnan(column) if column.dtype.kind == "f" else column == ""
