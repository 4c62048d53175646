"""Texts as inputs of a source: windows of tokens, each with the tokens that follow."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaxtrain.data.vocabulary import Content, Tokens, Vocabulary
from jaxtrain.errors import DataError, Words

MOST_PAIRS = 4096
"""The most byte pairs of a vocabulary, unless a config says otherwise."""


@dataclass(frozen=True, eq=False)
class Text:
    """A text, or its bytes as an array (n,) uint8, and the windows into which it is cut.

    `context` is the number of tokens of a window. Windows of the training part start every `stride` tokens (None:
    `context`, so that none overlap); those of other parts never overlap. `tokens` are bytes, characters or byte_pairs,
    of which there are at most `vocabulary`.
    """

    content: Content
    context: int = 128
    tokens: Tokens = "bytes"
    stride: int | None = None
    vocabulary: int = MOST_PAIRS


def cut_in_order(content: Content, counts: Mapping[str, int]) -> dict[str, Content]:
    """Cuts the ends of a text off: the last part is "test", the one before it "validation", the rest is "train".

    `counts` are the lengths of the two that there are, in bytes or characters as the content has them.
    """
    parts = {}
    end = len(content)
    for name in ("test", "validation"):
        if name in counts:
            parts[name] = content[end - counts[name] : end]
            end -= counts[name]
    return {"train": content[:end], **parts}


def windows(tokens: np.ndarray, context: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs and targets (n, context) of the windows that start every `stride` tokens, as views.

    The targets are the inputs one token later. What is left at the end, shorter than a window, is left out.
    """
    if stride == context:  # plain arrays, of which rows are gathered faster
        count = (len(tokens) - 1) // context
        inputs, targets = (tokens[i : i + count * context].reshape(count, context) for i in (0, 1))
        return inputs, targets
    views = np.lib.stride_tricks.sliding_window_view(tokens, context + 1)[::stride]
    return views[:, :-1], views[:, 1:]


def check_length(tokens: np.ndarray, vocabulary: Vocabulary, context: int, name: str, where: str) -> None:
    """Raises DataError for a part of a text that is shorter than one window and the token after it."""
    if len(tokens) <= context:
        raise _too_short(f"{len(tokens):,} tokens ({vocabulary.kind}) in the {name} part", context, where)


def check_content(text: Text, where: str) -> None:
    """Raises DataError for a text that is shorter than one window before it is cut: no token is less than a byte."""
    if len(text.content) <= text.context:
        raise _too_short(f"a text of {len(text.content):,} bytes or characters", text.context, where)


def _too_short(got: str, context: int, where: str) -> DataError:
    expected = f"at least {context + 1:,}, a window of data.context={context} and the token after it"
    return DataError(where, Words(got), expected, "Lower data.context, or give a longer text or part")
