"""The encoding of tables as rows of numbers, learnt from training rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxtrain.data.host_memory import total_memory
from jaxtrain.data.tables import TEXT, Kind, Table, absent_in, kind_of, names_of, shown
from jaxtrain.errors import DataError, Words, nearest

MOST_CATEGORIES = 1_000
"""Distinct categories of a column beyond which it is taken for a text or an identifier."""


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
        absent = absent_in(column)
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
                counts[column.name] = int(np.sum((column.codes(values) < 0) & ~absent_in(values)))
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
        if kind_of(values) == column.kind:
            return values
        present = np.flatnonzero(~absent_in(values))
        if len(present):
            got = Words(f"{shown(values[present[:1]].tolist()[0])} in the column {column.name!r}")
            raise DataError(table.place(int(present[0])), got, f"a {column.kind}, as in training")
        return np.full(len(values), np.nan) if column.kind == "number" else np.full(len(values), "", TEXT)


def _fit_column(name: str, column: np.ndarray, where: str) -> ColumnEncoding:
    absent = absent_in(column)
    present = column[~absent]
    drop = f"Leave it out, by data.drop=({name!r},)"
    if not len(present):
        raise DataError(where, Words(f"no value in the column {name!r}"), "at least one in the training rows", drop)
    missing = bool(absent.any())
    if kind_of(column) == "number":
        return ColumnEncoding(name, float(present.mean()), (), missing)
    categories = tuple(sorted(set(present.tolist())))
    if len(categories) > MOST_CATEGORIES or len(categories) == len(column) > 1:
        got = Words(f"{len(categories):,} different texts in {len(column):,} rows of the column {name!r}")
        expected = f"at most {MOST_CATEGORIES:,} categories, and fewer than rows"
        raise DataError(where, got, expected, f"{drop}: it is a text or an identifier")
    return ColumnEncoding(name, None, categories, missing)
