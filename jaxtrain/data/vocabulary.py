"""Vocabularies: texts as numbers of tokens, which are bytes, characters, or frequent pairs of bytes."""

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np

from jaxtrain.config.schema import Bounds
from jaxtrain.errors import DataError, UsageError, Words

Tokens = Literal["bytes", "characters", "byte_pairs"]
Content = str | np.ndarray
"""A text, or its bytes (n,) uint8, which may be memory-mapped."""

LARGEST = 2**16
"""The most tokens of a vocabulary: their numbers fit into 16 bits."""

Pairs = Annotated[int, Bounds(257, LARGEST)]
"""A number of tokens of a vocabulary of byte pairs."""

CODE_POINTS = 0x110000
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
BLOCK = 2**20
"""Characters that are encoded at a time."""


class Vocabulary(Protocol):
    """The tokens of a text, numbered from 0, as the training part of the text showed them."""

    kind: ClassVar[Tokens]

    @property
    def size(self) -> int:
        """The number of tokens."""
        ...

    @property
    def unknown(self) -> int | None:
        """The token that stands for what the training part lacks; None where there is no such thing."""
        ...

    @property
    def byte_lengths(self) -> np.ndarray:
        """The number of bytes of each token in UTF-8, float32 (size,)."""
        ...

    def encode(self, content: Content) -> np.ndarray:
        """Returns the tokens of a text, (n,) in `dtype_of` the size."""
        ...

    def decode(self, tokens: np.ndarray) -> str:
        """Returns the text of tokens (n,); bytes that are no UTF-8 become a replacement character."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Returns a dict for JSON."""
        ...


def dtype_of(size: int) -> np.dtype:
    """Returns the smallest dtype that numbers the tokens of a vocabulary of this size."""
    return np.dtype(np.uint8 if size <= 2**8 else np.uint16)


@dataclass(frozen=True)
class Bytes:
    """The 256 bytes: any file is a text of them."""

    kind: ClassVar[Tokens] = "bytes"

    @property
    def size(self) -> int:
        """The number of bytes."""
        return 256

    @property
    def unknown(self) -> None:
        """There is no unknown byte."""

    @property
    def byte_lengths(self) -> np.ndarray:
        """One byte for each token."""
        return np.ones(self.size, np.float32)

    def encode(self, content: Content) -> np.ndarray:
        """Returns the bytes; those that are given as an array stay where they are."""
        return np.frombuffer(content.encode(), np.uint8) if isinstance(content, str) else content

    def decode(self, tokens: np.ndarray) -> str:
        """Returns the text of these bytes."""
        return tokens.astype(np.uint8).tobytes().decode(errors="replace")

    def to_json(self) -> dict[str, Any]:
        """Returns a dict for JSON."""
        return {"kind": self.kind}


@dataclass(frozen=True)
class Characters:
    """The characters of the training part, in the order of their code points, and last a token for any other one."""

    kind: ClassVar[Tokens] = "characters"
    symbols: str

    @classmethod
    def fit(cls, text: str, where: str) -> "Characters":
        """Collects the characters of a text; raises DataError for more than 65,535 of them."""
        occurs = np.zeros(CODE_POINTS, bool)
        for block in _blocks(text):
            occurs[_code_points(block)] = True
        points = np.flatnonzero(occurs)
        if len(points) >= LARGEST:
            hint = "Set data.tokens to bytes or byte_pairs"
            raise DataError(where, Words(f"{len(points):,} different characters"), f"at most {LARGEST - 1:,}", hint)
        return cls("".join(map(chr, points)))

    @property
    def size(self) -> int:
        """The number of characters, and one."""
        return len(self.symbols) + 1

    @property
    def unknown(self) -> int:
        """The last token."""
        return len(self.symbols)

    @property
    def byte_lengths(self) -> np.ndarray:
        """The length of each character in UTF-8; 1 for an unknown one."""
        return np.array([*(len(symbol.encode(errors="replace")) for symbol in self.symbols), 1], np.float32)

    @functools.cached_property
    def _token_of(self) -> np.ndarray:
        """The token of each code point."""
        tokens = np.full(CODE_POINTS, self.unknown, dtype_of(self.size))
        tokens[_code_points(self.symbols)] = np.arange(len(self.symbols))
        return tokens

    def encode(self, content: Content) -> np.ndarray:
        """Returns a token for each character."""
        text = _text(content)
        tokens = np.empty(len(text), dtype_of(self.size))
        for begin in range(0, len(text), BLOCK):
            tokens[begin : begin + BLOCK] = self._token_of[_code_points(text[begin : begin + BLOCK])]
        return tokens

    def decode(self, tokens: np.ndarray) -> str:
        """Returns the text; an unknown token becomes a replacement character."""
        symbols = self.symbols + UNKNOWN
        return "".join(symbols[token] for token in tokens.tolist())

    def to_json(self) -> dict[str, Any]:
        """Returns a dict for JSON."""
        return {"kind": self.kind, "symbols": self.symbols}


@dataclass(frozen=True)
class BytePairs:
    """Bytes, and the sequences that come of joining the most frequent pair of tokens again and again.

    Sennrich et al. (2016), https://aclanthology.org/P16-1162, over bytes, so that no text holds anything unknown. The
    package `tokenizers` learns the pairs; `model` is the JSON in which it saves them.
    """

    kind: ClassVar[Tokens] = "byte_pairs"
    model: str

    @classmethod
    def fit(cls, text: str, size: int) -> "BytePairs":
        """Learns at most `size` tokens from a text; raises UsageError where the package is not installed."""
        package = _tokenizers()
        tokenizer = package.Tokenizer(package.models.BPE())
        tokenizer.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = package.decoders.ByteLevel()
        alphabet = package.pre_tokenizers.ByteLevel.alphabet()
        trainer = package.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(_blocks(text), trainer)
        return cls(tokenizer.to_str())

    @functools.cached_property
    def _tokenizer(self) -> Any:
        return _tokenizers().Tokenizer.from_str(self.model)

    @property
    def unknown(self) -> None:
        """There is no unknown byte."""

    @property
    def size(self) -> int:
        """The number of bytes and joined sequences."""
        return self._tokenizer.get_vocab_size()

    @property
    def byte_lengths(self) -> np.ndarray:
        """The number of bytes that each token joins."""
        # The package writes each byte of a token as one character.
        return np.array([len(self._tokenizer.id_to_token(token)) for token in range(self.size)], np.float32)

    def encode(self, content: Content) -> np.ndarray:
        """Returns the tokens of a text."""
        dtype = dtype_of(self.size)
        parts = [np.array(self._tokenizer.encode(block).ids, dtype) for block in _blocks(_text(content))]
        return np.concatenate([np.empty(0, dtype), *parts])

    def decode(self, tokens: np.ndarray) -> str:
        """Returns the text of these tokens."""
        return self._tokenizer.decode(tokens.tolist(), skip_special_tokens=False)

    def to_json(self) -> dict[str, Any]:
        """Returns a dict for JSON."""
        return {"kind": self.kind, "model": self.model}


def fit_vocabulary(kind: Tokens, content: Content, size: int, where: str) -> Vocabulary:
    """Makes the vocabulary of a kind from the training part of a text; `size` is the most byte pairs."""
    if kind == "bytes":
        return Bytes()
    text = _text(content)
    return Characters.fit(text, where) if kind == "characters" else BytePairs.fit(text, size)


KINDS: dict[str, type] = {kind.kind: kind for kind in (Bytes, Characters, BytePairs)}


def vocabulary_from_json(saved: Mapping[str, Any]) -> Vocabulary:
    """Inverts `to_json` of a vocabulary."""
    values = dict(saved)
    return KINDS[values.pop("kind")](**values)


def _text(content: Content) -> str:
    return content if isinstance(content, str) else content.tobytes().decode(errors="replace")


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _blocks(text: str) -> Iterator[str]:
    """Yields a text in blocks that end with a single line break between visible characters: no token joins these."""
    begin = 0
    ends = re.compile(r"(?<=\S)\n(?=\S)")
    while begin < len(text):
        end = ends.search(text, begin + BLOCK)
        stop = end.end() if end else len(text)
        yield text[begin:stop]
        begin = stop


def _tokenizers() -> ModuleType:
    try:
        import tokenizers
    except ImportError as error:
        hint = "Run pip install 'jaxtrain[text]', or set data.tokens to bytes or characters"
        raise UsageError("data.tokens", "byte_pairs", "the package tokenizers, installed", hint) from error
    return tokenizers
