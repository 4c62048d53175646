"""The encoding of tables as rows of numbers, learnt from training rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from jaxtrain.data.host_memory import total_memory
from jaxtrain.data.tables import TEXT, Kind, Table, absent_in, kind_of, names_of, shown
from jaxtrain.errors import DataError, Words, nearest

MOST_CATEGORIES = 1_000
"""Distinct categories of a column beyond which it is taken for a text or an identifier."""


Form = Literal["number", "flag", "code"]
"""The form of an encoded column: a number to standardise, 0 or 1, or the code of a category."""

LARGEST_QUANTILE = 1e-7
"""The distance from 0 and 1 that a share of smaller values keeps: its normal deviate lies within 5.2."""


class ColumnEncoding(NamedTuple):
    """The encoding of one column as numbers.

    `mean` is that of its numbers, which fills missing ones, and None for categories. `missing` tells whether training
    rows miss a value, which then has an encoded column or a code of its own. `quantiles` are those of its numbers in
    training, evenly spaced, where these are encoded by their rank, too. `coded` categories are one column of codes: 0
    for one that no training row has, then the categories in their order, then the missing ones.
    """

    name: str
    mean: float | None
    categories: tuple[str, ...]
    missing: bool
    quantiles: tuple[float, ...] = ()
    coded: bool = False

    @property
    def kind(self) -> Kind:
        """Whether it is made of numbers or categories."""
        return "category" if self.mean is None else "number"

    @property
    def names(self) -> list[str]:
        """The names of the encoded columns."""
        if self.coded:
            return [self.name]
        named = [f"{self.name}={category}" for category in self.categories] if self.mean is None else [self.name]
        ranked = [f"{self.name} (quantile)"] if self.quantiles else []
        return [*named, *ranked, *([f"{self.name} (missing)"] if self.missing else [])]

    @property
    def forms(self) -> list[Form]:
        """The form of each encoded column."""
        if self.coded:
            return ["code"]
        numbers = 0 if self.mean is None else 1 + bool(self.quantiles)
        return ["number" if place < numbers else "flag" for place in range(len(self.names))]

    @property
    def codes(self) -> int:
        """The number of codes of a coded column, that of unknown categories included."""
        return 1 + len(self.categories) + self.missing

    def encode(self, column: np.ndarray, out: np.ndarray) -> None:
        """Writes a column (n,) into zeros (n, len(names))."""
        absent = absent_in(column)
        if self.coded:
            out[:, 0] = self.places(column) + 1
            out[absent, 0] = len(self.categories) + 1 if self.missing else 0
            return
        if self.missing:
            out[:, -1] = absent
        if self.mean is not None:
            out[:, 0] = np.where(absent, self.mean, column)
            if self.quantiles:
                out[:, 1] = _normal_ranks(out[:, 0], np.asarray(self.quantiles))
            return
        places = self.places(column)
        rows = np.flatnonzero(places >= 0)
        out[rows, places[rows]] = 1

    def places(self, column: np.ndarray) -> np.ndarray:
        """Returns the place of each category (n,) among the categories, -1 for one that is missing or unknown."""
        index = {category: place for place, category in enumerate(self.categories)}
        return np.fromiter((index.get(text, -1) for text in column.tolist()), np.int64, len(column))

    def shares(self, encoded: np.ndarray) -> np.ndarray:
        """Returns the share of encoded rows (n, len(names)) with each of the categories."""
        if not self.coded:
            return encoded[:, : len(self.categories)].mean(axis=0)
        counts = np.bincount(encoded[:, 0].astype(np.int64), minlength=self.codes)
        return counts[1 : len(self.categories) + 1] / len(encoded)

    def absent(self, encoded: np.ndarray) -> int:
        """Counts the encoded rows (n, len(names)) that miss a value."""
        if not self.missing:
            return 0
        return int(np.sum(encoded[:, -1] == (self.codes - 1 if self.coded else 1)))


def _normal_ranks(values: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Returns the normal deviate of the share of training values below each value, half of those equal to it included.

    As scikit-learn's `QuantileTransformer(output_distribution="normal")`.
    """
    from scipy.special import ndtri

    shares = np.linspace(0.0, 1.0, len(quantiles))
    # A value that occurs often is several quantiles at once: the mean of the first and the last of its shares.
    below = np.interp(values, quantiles, shares)
    above = -np.interp(-values, -quantiles[::-1], -shares[::-1])
    return ndtri(np.clip((below + above) / 2.0, LARGEST_QUANTILE, 1.0 - LARGEST_QUANTILE))


class Layout(NamedTuple):
    """The places of numbers, flags and codes in an encoded row, and the number of codes of each column of them."""

    numbers: tuple[int, ...]
    flags: tuple[int, ...] = ()
    codes: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class TableEncoding:
    """Encodes tables as rows of numbers, by what the training rows showed.

    A number is one column, its missing values filled with the training mean, and one of its normal rank where quantiles
    are asked for. A category is one column of 0 and 1 for each category of the training rows, all 0 for another one, or
    one column of codes. A column that misses values in training has one more, which is 1 where the value is missing, or
    a code more.
    """

    columns: tuple[ColumnEncoding, ...]

    @classmethod
    def fit(
        cls, table: Table, rows: np.ndarray | None = None, *, coded: bool = False, quantiles: int | None = None
    ) -> "TableEncoding":
        """Learns means and categories of the training `rows` (None: all) of a table, and quantiles of its numbers.

        Raises DataError for a column without values, and for more than 1,000 categories or one for each row.
        """
        training = table if rows is None else table.take(rows)
        if not len(training) or not table.columns:
            raise DataError(table.where, Words(f"{len(training)} rows of {len(table.columns)} columns"), "at least one")
        fitted = (_fit_column(name, column, table.where, quantiles) for name, column in training.columns.items())
        return cls(tuple(column._replace(coded=coded and column.kind == "category") for column in fitted))

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each encoded column, such as "age", "age (missing)" or "workclass=Private"."""
        return tuple(name for column in self.columns for name in column.names)

    @property
    def forms(self) -> tuple[Form, ...]:
        """The form of each encoded column."""
        return tuple(form for column in self.columns for form in column.forms)

    @property
    def layout(self) -> Layout:
        """The places of numbers, flags and codes in an encoded row."""
        places = {form: tuple(i for i, own in enumerate(self.forms) if own == form) for form in get_args(Form)}
        sizes = tuple(column.codes for column in self.columns if column.coded)
        return Layout(places["number"], places["flag"], places["code"], sizes)

    @property
    def kinds(self) -> dict[str, Kind]:
        """Returns {column: "number" or "category"}, by which a reader reads new files as the training file."""
        return {column.name: column.kind for column in self.columns}

    def encode(self, table: Table) -> np.ndarray:
        """Returns the table as float64 (n, len(names)).

        Raises DataError for a column that is missing, unknown or of another kind, and for more than memory holds.
        """
        columns = self.columns_of(table)
        size = len(table) * len(self.names) * 8
        if size > total_memory():
            got = Words(f"{size:,} bytes for {len(table):,} rows of {len(self.names):,} encoded columns")
            hint = "Leave out the columns of most categories, by data.drop"
            raise DataError(table.where, got, f"at most {total_memory():,}, the memory of this machine", hint)
        encoded = np.zeros((len(table), len(self.names)))
        begin = 0
        for column in self.columns:
            end = begin + len(column.names)
            column.encode(columns[column.name], encoded[:, begin:end])
            begin = end
        return encoded

    def columns_of(self, table: Table) -> dict[str, np.ndarray]:
        """Returns the columns of a table in their kinds of training; raises DataError where they differ from these."""
        self._check(table)
        return {column.name: self._values(table, column) for column in self.columns}

    def unseen(self, table: Table) -> dict[str, int]:
        """Returns {column: rows whose category no training row has}, of the columns that have such rows."""
        columns = self.columns_of(table)
        counts = {}
        for column in self.columns:
            if column.mean is None:
                values = columns[column.name]
                counts[column.name] = int(np.sum((column.places(values) < 0) & ~absent_in(values)))
        return {name: count for name, count in counts.items() if count}

    def to_json(self) -> dict[str, Any]:
        """Returns a dict for JSON; floats survive the round trip exactly."""
        return {"columns": [column._asdict() for column in self.columns]}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "TableEncoding":
        """Inverts `to_json`, also after a round trip through a JSON file."""
        columns: list[dict[str, Any]] = [
            {name: tuple(value) if isinstance(value, list) else value for name, value in column.items()}
            for column in saved["columns"]
        ]
        return cls(tuple(ColumnEncoding(**column) for column in columns))

    def _check(self, table: Table) -> None:
        """Raises DataError unless the table has the columns of the training table, in any order."""
        kinds = self.kinds
        absent = [name for name in kinds if name not in table.columns]
        extra = [name for name in table.columns if name not in kinds]
        if absent:
            got = Words(f"no column {absent[0]!r}" + (f" but {extra[0]!r}" if len(extra) == 1 else ""))
            hint = nearest(absent[0], extra) or "Give the columns that the model was trained on"
            raise DataError(table.where, got, f"the columns of training: {names_of(kinds)}", hint)
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


def _fit_column(name: str, column: np.ndarray, where: str, quantiles: int | None) -> ColumnEncoding:
    absent = absent_in(column)
    present = column[~absent]
    drop = f"Leave it out, by data.drop=({name!r},)"
    if not len(present):
        raise DataError(where, Words(f"no value in the column {name!r}"), "at least one in the training rows", drop)
    missing = bool(absent.any())
    if kind_of(column) == "number":
        at = np.linspace(0.0, 1.0, quantiles) if quantiles else ()
        return ColumnEncoding(name, float(present.mean()), (), missing, tuple(np.quantile(present, at).tolist()))
    categories = tuple(sorted(set(present.tolist())))
    if len(categories) > MOST_CATEGORIES or len(categories) == len(column) > 1:
        got = Words(f"{len(categories):,} different texts in {len(column):,} rows of the column {name!r}")
        expected = f"at most {MOST_CATEGORIES:,} categories, and fewer than rows"
        numbers = f", or name it in data.numbers={(name,)}" if all(map(str.isdecimal, categories)) else ""
        raise DataError(where, got, expected, f"{drop}: it is a text or an identifier{numbers}")
    return ColumnEncoding(name, None, categories, missing)
