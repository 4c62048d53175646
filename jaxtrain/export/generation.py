"""Continues texts by an exported program, which draws some tokens for each row, each row by an own way to draw."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxtrain.data.vocabulary import LARGEST, UNKNOWN, Vocabulary
from jaxtrain.training.generation import Growing

Arrays = Mapping[str, np.ndarray]

Predict = Callable[[Arrays], Arrays]
"""Takes arguments of a program by name; returns its outputs by name."""

NUMBERS = {
    "known": np.int32,
    "count": np.int32,
    "made": np.int32,
    "seed": np.uint32,
    "temperature": np.float32,
    "top_k": np.int32,
}
"""Arguments (n,) of the program beside `tokens` (n, context); see `tasks/generation.py:extend_each`."""


class Drawing(NamedTuple):
    """The way in which tokens are drawn: the arguments of `jaxtrain.generate` of the same names."""

    temperature: float = 1.0
    top_k: int | None = None
    seed: int = 0


def arguments_of(growing: Growing, count: int, drawing: Drawing) -> dict[str, np.ndarray]:
    """Returns the arguments of the program that draws `count` tokens after sequences."""
    numbers = {
        **{"known": growing.known, "count": count, "made": growing.made, "seed": drawing.seed % 2**32},
        **{"temperature": drawing.temperature, "top_k": min(drawing.top_k or LARGEST, LARGEST)},
    }
    windows = growing.windows
    return {"tokens": windows, **{name: np.full(len(windows), numbers[name], NUMBERS[name]) for name in NUMBERS}}


def greedy_distance(draw: Predict, predict: Predict, windows: np.ndarray) -> float:
    """Compares the most probable tokens after the first half of windows (n, context) with the logits of `predict`.

    Returns by how much the worst of them misses the best logit, relative to the spread of the logits.
    """
    context = windows.shape[1]
    prompts = windows[:, : max(1, context // 2)]
    growing = Growing(prompts, context)
    drawn = draw(arguments_of(growing, growing.room, Drawing(temperature=0.0)))["tokens"][:, : growing.room]
    whole = np.concatenate([prompts, drawn], axis=1)[:, :context].astype(windows.dtype)
    logits = predict({"inputs": whole})["logits"][:, prompts.shape[1] - 1 :]
    chosen = np.take_along_axis(logits, drawn[..., None], axis=-1)[..., 0]
    return float((logits.max(axis=-1) - chosen).max() / (np.ptp(logits) or 1.0))


class GrowingText:
    """The text of tokens that come one after another: a character is shown once all of its bytes are there."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._held: list[int] = []

    def append(self, token: int) -> str:
        """Returns the text that a token completes, often one character, or none."""
        self._held.append(token)
        text = self._vocabulary.decode(np.array(self._held))
        return "" if text.endswith(UNKNOWN) else self.finish()

    def finish(self) -> str:
        """Returns the rest of the text, where bytes without a character are replacement characters."""
        text = self._vocabulary.decode(np.array(self._held, int))
        self._held = []
        return text
