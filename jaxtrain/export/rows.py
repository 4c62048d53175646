"""Raw rows on which an export is checked: those of validation, and extremes."""

from typing import Any, NamedTuple

import numpy as np

from jaxtrain.data.dataset import Dataset
from jaxtrain.data.fields import read_rows
from jaxtrain.data.info import DataInfo
from jaxtrain.data.table_encoding import ColumnEncoding, TableEncoding
from jaxtrain.data.tables import TEXT

MOST_ROWS = 256

Columns = dict[str, np.ndarray]


class RowsToCheck(NamedTuple):
    """Raw inputs, an array (n, ...) or columns by name: first a number of `usual` rows, then extreme ones."""

    inputs: Any
    usual: int


def rows_to_check(dataset: Dataset) -> RowsToCheck:
    """Returns 256 examples of validation (else of training), evenly spaced, then zeros and other extremes."""
    split = "validation" if "validation" in dataset.parts else "train"
    count = len(dataset.parts[split])
    places = np.unique(np.linspace(0, count - 1, min(count, MOST_ROWS)).astype(np.int64))
    if dataset.info.vocabulary is not None:
        places = places[:: -(-len(places) // _most_windows(dataset.info))]
    values = raw_inputs(dataset, split, places)
    if dataset.info.tokens is not None:
        limits = [np.full_like(values[0], token) for token in (0, dataset.info.tokens - 1)]
        return RowsToCheck(np.concatenate([values, np.stack(limits)]), len(places))
    if dataset.info.is_raw:
        return RowsToCheck(_with_extremes_of_type(values), len(places))
    if dataset.info.table is None:
        limits = [np.zeros_like(values[0]), values.min(axis=0), values.max(axis=0)]
        return RowsToCheck(np.concatenate([values, np.stack(limits)]), len(places))
    return RowsToCheck({name: _with_extremes(column) for name, column in values.items()}, len(places))


def _most_windows(info: DataInfo) -> int:
    """Returns the windows of a text whose logits take at most 64 MiB; at least two."""
    return max(2, 2**24 // (info.input_shape[0] * (info.classes or 1)))


def raw_inputs(dataset: Dataset, split: str, places: np.ndarray) -> Any:
    """Returns the examples at places of a split as a user gives them: an array (n, ...), or columns by name."""
    if dataset.info.is_raw or dataset.info.tokens is not None:
        return dataset.read(split, places)["inputs"]
    part = dataset.parts[split]
    values = read_rows(part.split.inputs, part.source_rows(places))
    return values if dataset.info.table is None else decode(dataset.info.table, values)


NEVER_SEEN = "never seen"
"""A text that stands for a category which no training row has."""


def decode(encoding: TableEncoding, encoded: np.ndarray) -> Columns:
    """Inverts the encoding of a table: returns its columns, with nan and "" where a value is missing.

    A category that no training row has is NEVER_SEEN.
    """
    columns = {}
    begin = 0
    for column in encoding.columns:
        end = begin + len(column.names)
        columns[column.name] = _decode_column(column, encoded[:, begin:end])
        begin = end
    return columns


def _decode_column(column: ColumnEncoding, encoded: np.ndarray) -> np.ndarray:
    if column.kind == "number":
        return np.where(encoded[:, -1] == 1, np.nan, encoded[:, 0]) if column.missing else encoded[:, 0]
    codes = encoded[:, 0].astype(np.int64) if column.coded else _places(column, encoded) + 1
    texts = [NEVER_SEEN, *column.categories, ""]  # unknown, categories, missing
    return np.array([texts[code] for code in codes], TEXT)


def _places(column: ColumnEncoding, encoded: np.ndarray) -> np.ndarray:
    """Returns the place of the flag (n,) that is 1, the last that of missing ones; -1 where none is."""
    return np.where(encoded.any(axis=1), encoded.argmax(axis=1), -1)


def _with_extremes_of_type(values: np.ndarray) -> np.ndarray:
    """Adds examples of zeros, and of the smallest and the largest number of the dtype."""
    is_flag = values.dtype == np.bool_
    limits = (False, True) if is_flag else (np.iinfo(values.dtype).min, np.iinfo(values.dtype).max)
    return np.concatenate([values, *(np.full_like(values[:1], value) for value in (0, *limits))])


def _with_extremes(column: np.ndarray) -> np.ndarray:
    """Adds a zero, both extremes and a missing number; or an unknown category and a missing one."""
    if column.dtype.kind != "f":
        return np.concatenate([column, np.array([NEVER_SEEN, *column[[0, -1]].tolist(), ""], TEXT)])
    present = column[~np.isnan(column)]
    limits = [present.min(), present.max()] if len(present) else [0.0, 0.0]
    return np.concatenate([column, [0.0, *limits, np.nan]])
