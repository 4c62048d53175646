"""Keeps what was decoded in memory where that holds it: few examples at once, many as they are read."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxtrain.data.fields import Field, FieldAround, nbytes, read_rows
from jaxtrain.data.host_memory import free_memory
from jaxtrain.data.source import Split

SHARE = 0.25
"""The share of the free memory that decoded fields may take."""

AT_ONCE = 20_000
"""Examples of a source up to which all are decoded before training, which then starts with arrays."""

PIECE = 64
"""Rows that a thread reads at a time."""


def hold_labels(splits: Mapping[str, Split]) -> dict[str, Split]:
    """Returns the splits with targets of one number or name an example in arrays, as they are checked as a whole."""

    def read_labels(field: Field) -> np.ndarray | Field:
        return read_all(field) if len(field.shape) == 1 else field

    return {name: split.change_fields(read_labels) for name, split in splits.items()}


def hold(splits: Mapping[str, Split], memory: int | None = None) -> dict[str, Split]:
    """Returns the splits with their fields in memory if all fit into `memory` bytes, else as they are.

    Few examples are read into arrays now; many are kept as they are read, so that training starts at once. None stands
    for a quarter of the free memory.
    """
    fields = [field for split in splits.values() for field in split[:2] if isinstance(field, Field)]
    if sum(map(nbytes, fields)) > (SHARE * free_memory() if memory is None else memory):
        return dict(splits)
    take = read_all if sum(map(len, fields)) <= AT_ONCE else KeptField
    return {name: split.change_fields(take) for name, split in splits.items()}


class KeptField(FieldAround):
    """A field that keeps the rows that were read in memory."""

    def __init__(self, field: Field) -> None:
        """Takes the field; memory is used as rows are read."""
        super().__init__(field)
        self._values = np.empty(field.shape, field.dtype)
        self._is_kept = np.zeros(len(field), bool)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the values of these rows; reads those that are not kept yet."""
        fresh = rows[~self._is_kept[rows]]
        if len(fresh):
            self._values[fresh] = self._field.read(fresh)
            self._is_kept[fresh] = True
        return self._values[rows]


def read_all(field: Field) -> np.ndarray:
    """Reads a whole field."""
    whole = np.empty(field.shape, field.dtype)
    read_into(whole, field)
    return whole


def read_into(whole: np.ndarray, field: np.ndarray | Field, advance: Callable[[int], None] | None = None) -> None:
    """Reads a whole field into an array, with a thread for each processor; `advance` is told of every rows read."""

    def read(begin: int) -> int:
        rows = np.arange(begin, min(begin + PIECE, len(field)))
        whole[rows] = read_rows(field, rows)
        return len(rows)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for count in pool.map(read, range(0, len(field), PIECE)):
            if advance:
                advance(count)
