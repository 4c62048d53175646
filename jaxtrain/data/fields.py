"""Fields of a split that are read by rows: arrays, and files that are decoded when they are read."""

import math
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Field(Protocol):
    """One field of every example of a split, such as its image, in files that are decoded when they are read.

    `shape` is (n, ...) and `dtype` that of what `read` returns. All methods may be called by several threads at once.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole field, its number of examples first."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the values."""
        ...

    def __len__(self) -> int:
        """Returns the number of examples."""
        ...

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the values of these rows, (len(rows), *shape[1:]); raises DataError naming file and row."""
        ...

    def fingerprint(self) -> bytes:
        """Returns bytes that change when the files do, without decoding them; the same for a copy of them elsewhere."""
        ...

    def version(self) -> bytes:
        """Returns bytes that also change when files are written again, or lie elsewhere: the name of a cache."""
        ...


def read_rows(field: np.ndarray | Field, rows: np.ndarray) -> np.ndarray:
    """Returns the values of these rows, (len(rows), ...); a field reads a row once that occurs several times.

    The last batch of an evaluation is filled with its first row, and weighted draws repeat rows.
    """
    if isinstance(field, np.ndarray):
        return field[rows]
    distinct, places = np.unique(rows, return_inverse=True)
    return field.read(rows) if len(distinct) == len(rows) else field.read(distinct)[places]


def nbytes(field: np.ndarray | Field) -> int:
    """Returns the bytes of a whole field."""
    return math.prod(field.shape) * field.dtype.itemsize


class FieldAround:
    """All of a field around another one, of the same examples, but the way in which it reads them."""

    def __init__(self, field: Field) -> None:
        """Takes the field that is read."""
        self._field = field

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole field."""
        return self._field.shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the values."""
        return self._field.dtype

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._field)

    def fingerprint(self) -> bytes:
        """Returns the fingerprint of the field."""
        return self._field.fingerprint()

    def version(self) -> bytes:
        """Returns the version of the field."""
        return self._field.version()
