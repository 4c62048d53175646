"""Encodes the tables and texts of a source as arrays, by what its training part shows."""

import dataclasses
import hashlib
import warnings
from collections.abc import Iterator, Mapping

import numpy as np

from jaxtrain.data.sequences import SequenceEncoding, Sequences
from jaxtrain.data.source import SPLITS, Source, Split
from jaxtrain.data.table_encoding import TableEncoding
from jaxtrain.data.tables import Table
from jaxtrain.data.text_columns import TextEncoding, Texts
from jaxtrain.data.texts import Text, check_length, cut_in_order, windows
from jaxtrain.data.vocabulary import Content, Vocabulary, fit_vocabulary
from jaxtrain.errors import ConfigError, DataError, JaxtrainWarning, Words

Padding = TextEncoding | SequenceEncoding
Encoding = TableEncoding | Padding


def encode_tables(
    source: Source, rows: np.ndarray | None, *, coded: bool = False, quantiles: int | None = None
) -> tuple[Encoding, Source]:
    """Learns an encoding from the training `rows` (None: all), and returns it with the source of encoded inputs.

    `coded` categories are codes, and numbers have `quantiles` of them (`TableEncoding`); texts are tokens
    (`TextEncoding`), and sequences get a mask (`SequenceEncoding`). Warns of what other rows have that no training row
    has, and of what is cut off. Raises DataError for splits of other columns, and ConfigError for quantiles of what is
    no table.
    """
    train: Table = source.splits["train"].inputs
    if isinstance(train, Texts | Sequences) and quantiles is not None:
        expected = f"None for {'texts' if isinstance(train, Texts) else 'sequences'}"
        raise ConfigError("data.quantiles", quantiles, expected, "Leave it out")
    if isinstance(train, Texts):
        encoding: Encoding = TextEncoding.fit(train, rows)
    elif isinstance(train, Sequences):
        encoding = SequenceEncoding.fit(train, rows)
    else:
        encoding = TableEncoding.fit(train, rows, coded=coded, quantiles=quantiles)
    splits = {}
    for name, split in source.splits.items():
        if not isinstance(split.inputs, Table):
            got = Words(f"inputs of type {type(split.inputs).__name__}")
            raise DataError(split.where("inputs", name), got, "a table, as in training")
        warn_of_unseen(encoding, split.inputs)
        splits[name] = split._replace(inputs=encoding.encode(split.inputs))
    return encoding, dataclasses.replace(source, splits=splits)


def warn_of_unseen(encoding: Encoding, table: Table) -> None:
    """Warns of each column with what no training row has, with the number of such rows, and of texts cut off."""
    for got, expected in oddities(encoding, len(table), encoding.unseen(table), cut_off(encoding, table)):
        warnings.warn(JaxtrainWarning(table.where, got, expected), stacklevel=4)


def cut_off(encoding: Encoding, table: Table) -> dict[str, int]:
    """Returns {column: examples that are cut off, as they are longer than the longest that a model takes}."""
    return encoding.cut_off(table) if isinstance(encoding, Padding) else {}


def oddities(
    encoding: Encoding, rows: int, unseen: Mapping[str, int], cut: Mapping[str, int]
) -> Iterator[tuple[Words, str]]:
    """Yields (got, expected) of a warning for each column of which some of the `rows` are `unseen` or `cut` off."""
    is_text = isinstance(encoding, TextEncoding)
    what = "characters" if is_text else "a category"
    known = "characters of training: they count as unknown"
    expected = known if is_text else "categories of training: they count as none of these"
    for column, count in unseen.items():
        got = Words(f"{count:,} of {rows:,} rows with {what} of {column!r} that no training row has")
        yield got, expected
    for column, count in cut.items():
        assert isinstance(encoding, Padding)
        longest = f"{encoding.lengths[-1]} {'tokens' if is_text else 'values'}"
        got = Words(
            f"{count:,} of {rows:,} {f'texts of {column!r}' if is_text else 'sequences'} that are longer than {longest}"
        )
        wider = "data.context" if is_text else "data.context, or that of Sequences,"
        yield got, f"shorter ones: the rest is cut off, unless {wider} is larger in training"


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
