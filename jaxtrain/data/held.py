"""Reads fields that are decoded into arrays, once, where memory holds them."""

import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxtrain.data.fields import Field
from jaxtrain.data.host_memory import free_memory
from jaxtrain.data.source import Split

SHARE = 0.25
"""The share of the free memory that decoded fields may take."""

PIECE = 64
"""Rows that a thread reads at a time."""


def hold_labels(splits: Mapping[str, Split]) -> dict[str, Split]:
    """Returns the splits with targets of one number or name an example in arrays, as they are checked as a whole."""
    return {name: _hold(split, lambda field: len(field.shape) == 1) for name, split in splits.items()}


def hold(splits: Mapping[str, Split], memory: int | None = None) -> dict[str, Split]:
    """Returns the splits with their fields read into arrays if all fit into `memory` bytes, else as they are.

    None stands for a quarter of the free memory.
    """
    fields = [field for split in splits.values() for field in split[:2] if isinstance(field, Field)]
    fits = sum(map(nbytes, fields)) <= (SHARE * free_memory() if memory is None else memory)
    return {name: _hold(split, lambda field: fits) for name, split in splits.items()}


def nbytes(field: np.ndarray | Field) -> int:
    """Returns the bytes of a whole field."""
    return math.prod(field.shape) * field.dtype.itemsize


def _hold(split: Split, wanted: Callable[[Field], bool]) -> Split:
    inputs, inputs_stamp = _hold_field(split.inputs, split.stamps[0], wanted)
    targets, targets_stamp = _hold_field(split.targets, split.stamps[1], wanted)
    return split._replace(inputs=inputs, targets=targets, stamps=(inputs_stamp, targets_stamp))


def _hold_field(field: Any, stamp: bytes, wanted: Callable[[Field], bool]) -> tuple[Any, bytes]:
    if not isinstance(field, Field) or not wanted(field):
        return field, stamp
    return read_all(field), field.fingerprint()


def read_all(field: Field) -> np.ndarray:
    """Reads a whole field with a thread for each processor."""
    whole = np.empty(field.shape, field.dtype)

    def read(begin: int) -> None:
        rows = np.arange(begin, min(begin + PIECE, len(field)))
        whole[rows] = field.read(rows)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in pool.map(read, range(0, len(field), PIECE)):
            pass
    return whole
