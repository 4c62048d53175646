"""Encodes the tables of a source as arrays, by what its training rows show."""

import dataclasses
import warnings

import numpy as np

from jaxtrain.data.source import Source
from jaxtrain.data.table_encoding import TableEncoding
from jaxtrain.data.tables import Table
from jaxtrain.errors import DataError, JaxtrainWarning, Words


def encode_tables(
    source: Source, rows: np.ndarray | None, *, coded: bool = False, quantiles: int | None = None
) -> tuple[TableEncoding, Source]:
    """Learns an encoding from the training `rows` (None: all), and returns it with the source of encoded inputs.

    `coded` categories are codes, and numbers have so many `quantiles` (`TableEncoding`).
    Warns of categories in other rows that no training row has. Raises DataError for splits of other columns.
    """
    train: Table = source.splits["train"].inputs
    encoding = TableEncoding.fit(train, rows, coded=coded, quantiles=quantiles)
    splits = {}
    for name, split in source.splits.items():
        if not isinstance(split.inputs, Table):
            got = Words(f"inputs of type {type(split.inputs).__name__}")
            raise DataError(split.where("inputs", name), got, "a table, as in training")
        warn_of_unseen(encoding, split.inputs)
        splits[name] = split._replace(inputs=encoding.encode(split.inputs))
    return encoding, dataclasses.replace(source, splits=splits)


def warn_of_unseen(encoding: TableEncoding, table: Table) -> None:
    """Warns of each column with categories that no training row has, with the number of such rows."""
    for column, count in encoding.unseen(table).items():
        got = Words(f"{count:,} of {len(table):,} rows with a category of {column!r} that no training row has")
        expected = "categories of training: they count as none of these"
        warnings.warn(JaxtrainWarning(table.where, got, expected), stacklevel=4)
