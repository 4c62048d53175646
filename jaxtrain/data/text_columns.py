"""Columns of texts, each text an example: rows of tokens, padded to the longest of a few lengths."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxtrain.data.tables import TEXT, Kind, Table, kind_of, names_of
from jaxtrain.data.texts import MOST_PAIRS
from jaxtrain.data.vocabulary import LARGEST, Tokens, Vocabulary, dtype_of, fit_vocabulary, vocabulary_from_json
from jaxtrain.errors import DataError, Words, nearest

MOST_TOKENS = 256
"""The most tokens of a text, unless a config says otherwise."""

TEXT_COLUMN = "text"
"""The name of a column of texts that have none."""

LENGTHS = 4
"""The most lengths to which texts are padded: the longest, its half, its quarter and its eighth."""


@dataclass(frozen=True, eq=False)
class Texts(Table):
    """One column of texts, each an example of unlike length: `Texts({"review": ["good", "a waste of time"]})`.

    `tokens` are bytes, characters or byte_pairs, of which there are at most `vocabulary`. What goes beyond `context`
    tokens is cut off.
    """

    tokens: Tokens = "bytes"
    context: int = MOST_TOKENS
    vocabulary: int = MOST_PAIRS

    def __post_init__(self) -> None:
        """Converts the column; raises DataError for several, and for values that are no texts."""
        super().__post_init__()
        for name, column in self.columns.items():
            if kind_of(column) != "category":
                raise DataError(self.where, Words(f"numbers in the column {name!r}"), "texts")
        if len(self.columns) != 1:
            raise DataError(self.where, Words(f"{len(self.columns)} columns"), "one column of texts")


@dataclass(frozen=True)
class TextEncoding:
    """Encodes a column of texts as rows of tokens, by what the training rows showed.

    A row has the tokens of a text, then `padding` up to the last of `lengths`, which ascend. A batch is computed at the
    first of them that holds its texts.
    """

    column: str
    vocabulary: Vocabulary
    lengths: tuple[int, ...]

    @classmethod
    def fit(cls, texts: Texts, rows: np.ndarray | None = None) -> "TextEncoding":
        """Learns the vocabulary of the training `rows` (None: all), and the lengths that hold their texts."""
        ((name, column),) = texts.columns.items()
        training = column if rows is None else column[rows]
        joined = "\n".join(training.tolist())  # texts stay apart: a pair of bytes does not join two of them
        vocabulary = fit_vocabulary(texts.tokens, joined, texts.vocabulary, texts.where)
        if vocabulary.size >= LARGEST:  # the token of padding has a number of 16 bits, too
            got = Words(f"{vocabulary.size:,} tokens ({vocabulary.kind})")
            raise DataError(texts.where, got, f"at most {LARGEST - 1:,}", "Set data.tokens to bytes")
        longest = max((len(vocabulary.encode(text)) for text in training.tolist()), default=1)
        return cls(name, vocabulary, lengths_for(texts.context, longest))

    @property
    def size(self) -> int:
        """The number of tokens, that of padding included."""
        return self.vocabulary.size + 1

    @property
    def padding(self) -> int:
        """The token that fills rows up: the last one."""
        return self.vocabulary.size

    @property
    def kinds(self) -> dict[str, Kind]:
        """Returns {column: "category"}, by which a reader reads new files as the training file."""
        return {self.column: "category"}

    def encode(self, table: Table) -> np.ndarray:
        """Returns the tokens of a table's texts, (n, lengths[-1]) in `dtype_of` the size.

        Raises DataError for a column that is missing or no column of texts, for an empty text, and for more than one
        column.
        """
        texts = self.columns_of(table)[self.column].tolist()
        rows = np.full((len(texts), self.lengths[-1]), self.padding, dtype_of(self.size))
        for row, text in zip(rows, texts, strict=True):
            tokens = self.vocabulary.encode(text)[: len(row)]
            row[: len(tokens)] = tokens
        return rows

    def decode(self, row: np.ndarray) -> str:
        """Returns the text of a row of tokens, without its padding."""
        return self.vocabulary.decode(row[row < self.padding])

    def columns_of(self, table: Table) -> dict[str, np.ndarray]:
        """Returns the column of texts; raises DataError as `encode`."""
        absent = self.column not in table.columns
        if absent or len(table.columns) > 1:
            got = Words(f"no column {self.column!r}" if absent else f"the columns {names_of(table.columns)}")
            hint = nearest(self.column, table.columns) if absent else "Leave the others out"
            raise DataError(table.where, got, f"the column of texts {self.column!r}, as in training", hint)
        column = table.columns[self.column]
        empty = np.arange(len(column)) if column.dtype != TEXT else np.flatnonzero(column == "")
        if len(empty):
            got = Words(f"no text in the column {self.column!r}")
            raise DataError(table.place(int(empty[0])), got, "a text in each row", "Leave the row out")
        return {self.column: column}

    def unseen(self, table: Table) -> dict[str, int]:
        """Returns {column: texts with characters that no training text has}, if there are any."""
        unknown = self.vocabulary.unknown
        if unknown is None:
            return {}
        return self._count(table, lambda text: unknown in self.vocabulary.encode(text))

    def cut_off(self, table: Table) -> dict[str, int]:
        """Returns {column: texts longer than the longest of the lengths}, if there are any."""
        return self._count(table, lambda text: len(self.vocabulary.encode(text)) > self.lengths[-1])

    def _count(self, table: Table, is_counted: Callable[[str], bool]) -> dict[str, int]:
        count = sum(map(is_counted, self.columns_of(table)[self.column].tolist()))
        return {self.column: count} if count else {}

    def is_kept(self, rows: Any) -> Any:
        """Tells which places (n, length) of rows of tokens, of NumPy or JAX, hold no padding."""
        return rows != self.padding

    def groups(self, rows: np.ndarray) -> np.ndarray:
        """Returns the place, among the lengths, of the shortest that holds each row of tokens (n, lengths[-1])."""
        return np.searchsorted(self.lengths, self.is_kept(rows).sum(axis=1))

    def to_json(self) -> dict[str, Any]:
        """Returns a dict for JSON."""
        return {"column": self.column, "vocabulary": self.vocabulary.to_json(), "lengths": self.lengths}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "TextEncoding":
        """Inverts `to_json`, also after a round trip through a JSON file."""
        return cls(saved["column"], vocabulary_from_json(saved["vocabulary"]), tuple(saved["lengths"]))


def lengths_for(context: int, longest: int) -> tuple[int, ...]:
    """Returns the lengths to which up to `longest` tokens or values are padded: `context` and its halves, ascending."""
    halves = sorted({max(1, context >> i) for i in range(LENGTHS)})
    needed = next((i for i, length in enumerate(halves) if length >= longest), len(halves) - 1)
    return tuple(halves[: needed + 1])
