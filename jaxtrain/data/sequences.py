"""Sequences of numbers of unlike length, each an example: padded to the longest of a few lengths, with a mask."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxtrain.data.plain_arrays import plain_array
from jaxtrain.data.tables import Kind, Places, Table
from jaxtrain.data.text_columns import lengths_for
from jaxtrain.errors import DataError, Words

COLUMN = "sequence"
"""The name of the one column of a table of sequences."""


class Sequences(Table):
    """Sequences of numbers, each an example: `Sequences([numpy.zeros((90, 3)), numpy.zeros((120, 3))])`.

    Each is an array (length, features), or (length,) for one feature. What goes beyond `context` values in time is cut
    off (None: none of training).
    """

    context: int | None

    def __init__(
        self,
        sequences: Iterable[Any],
        context: int | None = None,
        *,
        places: Places | None = None,
        name: str = "the sequences",
    ) -> None:
        """Converts the sequences; raises DataError for one without values, of other features, or that is not finite."""
        self._set(places=places, name=name, context=context)
        plain = [_plain(values, self.place(row)) for row, values in enumerate(sequences)]
        column = np.empty(len(plain), object)
        column[:] = plain
        self._set(columns={COLUMN: column})
        for row, values in enumerate(plain):
            if values.shape[1] != plain[0].shape[1]:
                got = Words(f"{values.shape[1]} features")
                raise DataError(self.place(row), got, f"{plain[0].shape[1]} in each sequence, as in the first one")

    @property
    def arrays(self) -> np.ndarray:
        """The sequences as objects (n,), each an array (length, features)."""
        return self.columns[COLUMN]

    def take(self, rows: np.ndarray) -> "Sequences":
        """Returns these sequences, in their order."""
        taken = copy.copy(self)
        taken._set(columns={COLUMN: self.arrays[rows]}, places=self.places and self.places.take(rows))
        return taken

    def _set(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)


def _plain(values: Any, where: str) -> np.ndarray:
    """Returns a sequence as an array (length, features)."""
    array = plain_array(values, where, "inputs")
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(where, Words(f"a sequence of shape {array.shape}"), "(length, features), at least one of each")
    if not np.isfinite(array).all() or np.abs(array).max() > np.finfo(np.float32).max:
        raise DataError(
            where, Words("numbers that are not finite in float32"), "finite numbers", "Leave the example out"
        )
    return array


def are_sequences(given: Any) -> bool:
    """Tells whether inputs are arrays of unlike length, in a list or an array of objects."""
    holds = isinstance(given, list | tuple) or (isinstance(given, np.ndarray) and given.dtype.kind == "O")
    if not holds or not all(isinstance(values, np.ndarray) and values.ndim in (1, 2) for values in given):
        return False
    return len({len(values) for values in given}) > 1


@dataclasses.dataclass(frozen=True)
class SequenceEncoding:
    """Encodes sequences as rows (longest, features + 1), by what the training rows showed.

    The last feature is the mask: 1 beside values, and 0 beside the padding behind them, up to the last of `lengths`,
    which ascend. A batch is computed at the first of them that holds its sequences.
    """

    features: int
    lengths: tuple[int, ...]

    @classmethod
    def fit(cls, sequences: Sequences, rows: np.ndarray | None = None) -> "SequenceEncoding":
        """Learns the lengths that hold the training `rows` (None: all)."""
        training = sequences.arrays if rows is None else sequences.arrays[rows]
        longest = max(map(len, training))
        return cls(training[0].shape[1], lengths_for(sequences.context or longest, longest))

    @property
    def kinds(self) -> dict[str, Kind]:
        """Returns no kinds: a reader knows the column of sequences by its own name, `data.sequence`."""
        return {}

    def columns_of(self, table: Table) -> dict[str, np.ndarray]:
        """Returns the column of sequences; raises DataError for columns of another table, and other features."""
        if not isinstance(table, Sequences):
            raise DataError(table.where, Words("columns by name"), "a list of sequences, as in training")
        if len(table) and table.arrays[0].shape[1] != self.features:
            got = Words(f"{table.arrays[0].shape[1]} features")
            raise DataError(table.place(0), got, f"{self.features} in each sequence, as in training")
        return {COLUMN: table.arrays}

    def encode(self, table: Table) -> np.ndarray:
        """Returns rows (n, lengths[-1], features + 1) of a dtype that holds all numbers; raises as `columns_of`."""
        sequences = self.columns_of(table)[COLUMN]
        dtype = np.result_type(np.uint8, *{values.dtype for values in sequences})
        rows = np.zeros((len(sequences), self.lengths[-1], self.features + 1), dtype)
        for row, values in zip(rows, sequences, strict=True):
            values = values[: len(row)]
            row[: len(values), :-1] = values
            row[: len(values), -1] = 1
        return rows

    def unseen(self, table: Table) -> dict[str, int]:
        """Returns nothing, as any number may occur."""
        return {}

    def cut_off(self, table: Table) -> dict[str, int]:
        """Returns {column: sequences longer than the longest of the lengths}, if there are any."""
        count = sum(len(values) > self.lengths[-1] for values in self.columns_of(table)[COLUMN])
        return {COLUMN: count} if count else {}

    def is_kept(self, rows: Any) -> Any:
        """Tells which places (n, length) of rows, of NumPy or JAX, raw or normalised, hold values and no padding."""
        return rows[..., -1] > 0.5

    def groups(self, rows: np.ndarray) -> np.ndarray:
        """Returns the place, among the lengths, of the shortest that holds each row."""
        return np.searchsorted(self.lengths, self.is_kept(rows).sum(axis=1))

    def statistics(self, rows: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns mean and deviation of each feature of rows, over values alone; the mask stays as it is."""
        values = rows[self.is_kept(rows)][:, :-1].astype(np.float64)
        mean = values.mean(axis=0)
        std = values.std(axis=0)
        std = np.where(std <= 1e-12 * np.abs(mean), 1.0, std)
        return (*mean.tolist(), 0.0), (*std.tolist(), 1.0)

    def to_json(self) -> dict[str, Any]:
        """Returns a dict for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "SequenceEncoding":
        """Inverts `to_json`, also after a round trip through a JSON file."""
        return cls(saved["features"], tuple(saved["lengths"]))
