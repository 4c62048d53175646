"""Encodes the tables and texts of a source as arrays, by what its training part shows."""

import dataclasses
import hashlib
import warnings
from collections.abc import Mapping

import numpy as np

from jaxtrain.data.source import SPLITS, Source, Split
from jaxtrain.data.table_encoding import TableEncoding
from jaxtrain.data.tables import Table
from jaxtrain.data.texts import Text, check_length, cut_in_order, windows
from jaxtrain.data.vocabulary import Content, Vocabulary, fit_vocabulary
from jaxtrain.errors import DataError, JaxtrainWarning, Words


def encode_tables(
    source: Source, rows: np.ndarray | None, *, coded: bool = False, quantiles: int | None = None
) -> tuple[TableEncoding, Source]:
    """Learns an encoding from the training `rows` (None: all), and returns it with the source of encoded inputs.

    `coded` categories are codes, and numbers have `quantiles` of them (`TableEncoding`).
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


def encode_texts(source: Source, counts: Mapping[str, int]) -> tuple[Vocabulary, dict[str, Split]]:
    """Learns the vocabulary of the training part of a text, and returns it with all splits as windows of tokens.

    `counts` are the lengths of the parts that are cut from the end of the training text. Inputs and targets are
    (n, context), of 8 or 16 bits. Warns of characters that the training part lacks. Raises DataError for a part that is
    shorter than a window, and for splits that are no texts.
    """
    text: Text = source.splits["train"].inputs
    parts: dict[str, Content] = cut_in_order(text.content, counts)
    files = {name: source.splits[name if name in source.splits else "train"].where("inputs", name) for name in SPLITS}
    for name, split in source.splits.items():
        if not isinstance(split.inputs, Text):
            got = Words(f"inputs of type {type(split.inputs).__name__}")
            raise DataError(files[name], got, "a text, as in training")
        parts.setdefault(name, split.inputs.content)
    vocabulary = fit_vocabulary(text.tokens, parts["train"], text.vocabulary, files["train"])
    splits = {}
    for name in SPLITS:
        if name in parts:
            stride = (text.stride or text.context) if name == "train" else text.context
            splits[name] = _encode_text(parts[name], vocabulary, text.context, stride, name, files[name])
    return vocabulary, splits


def _encode_text(content: Content, vocabulary: Vocabulary, context: int, stride: int, name: str, where: str) -> Split:
    tokens = vocabulary.encode(content)
    check_length(tokens, vocabulary, context, name, where)
    warn_of_unknown(tokens, vocabulary, f"{where}, {name} part")
    stamps = (hashlib.sha256(np.ascontiguousarray(tokens).data).digest(), f"windows every {stride}".encode())
    return Split(*windows(tokens, context, stride), where, stamps=stamps)


def warn_of_unknown(tokens: np.ndarray, vocabulary: Vocabulary, where: str) -> None:
    """Warns of characters that the training part lacks, with their number."""
    count = 0 if vocabulary.unknown is None else int(np.sum(tokens == vocabulary.unknown))
    if count:
        got = Words(f"{count:,} of {len(tokens):,} characters that the training part lacks")
        warnings.warn(JaxtrainWarning(where, got, "characters of training: they count as unknown"), stacklevel=4)
