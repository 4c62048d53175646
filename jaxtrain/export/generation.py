"""Continues texts by an exported program, which sees a whole window of tokens at a time and keeps nothing between."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.data.vocabulary import UNKNOWN, Vocabulary
from jaxtrain.tasks.generation import choose
from jaxtrain.training.generation import check_generation

Predict = Callable[[np.ndarray], np.ndarray]
"""Takes windows of tokens (batch, context); returns logits (batch, context, tokens), each by the tokens up to it."""


class Drawing(NamedTuple):
    """The way in which tokens are drawn: the arguments of `jaxtrain.generate` of the same names."""

    temperature: float = 1.0
    top_k: int | None = None
    seed: int = 0


class Sequences:
    """Sequences of tokens that grow, and the windows in which a model of a bounded context sees them.

    They move as those of `jaxtrain.generate`: where the context is full, the second half of it begins a new window.
    """

    def __init__(self, prompts: np.ndarray, context: int) -> None:
        """Takes prompts (batch, n), with at least one token."""
        self._context = context
        self._half = max(1, (context + 1) // 2)
        self._seen = prompts if prompts.shape[1] <= context else prompts[:, -self._half :]
        self.drawn = 0

    @property
    def windows(self) -> np.ndarray:
        """The newest tokens (batch, context), with zeros behind them."""
        lacking = self._context - self._seen.shape[1]
        return np.pad(self._seen, ((0, 0), (0, lacking)))

    @property
    def newest(self) -> int:
        """The position of the newest token in its window."""
        return self._seen.shape[1] - 1

    def append(self, tokens: np.ndarray) -> None:
        """Appends tokens (batch,)."""
        self._seen = np.concatenate([self._seen, tokens[:, None].astype(self._seen.dtype)], axis=1)
        self.drawn += 1
        if self._seen.shape[1] > self._context:
            self._seen = self._seen[:, -self._half :]


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


def generate(predict: Predict, prompts: np.ndarray, length: int, *, context: int, drawing: Drawing) -> np.ndarray:
    """Returns the `length` tokens (batch, length) that follow prompts (batch, n), as `jaxtrain.generate` draws them.

    Raises UsageError for no prompt, or a number outside of its range.
    """
    check_generation(prompts, length, drawing.temperature, drawing.top_k)
    sequences = Sequences(prompts, context)
    drawn: list[np.ndarray] = []
    for count in range(length):
        logits = predict(sequences.windows)[:, sequences.newest]
        drawn.append(draw(logits, count, drawing))
        sequences.append(drawn[-1])
    return np.stack(drawn, axis=1)


def draw(logits: np.ndarray, count: int, drawing: Drawing) -> np.ndarray:
    """Draws the tokens (batch,) after `count` others from logits (batch, tokens), by one of two compiled programs."""
    top_k = None if drawing.top_k is None else jnp.int32(min(drawing.top_k, logits.shape[-1]))
    seed = np.uint32(drawing.seed % 2**32)
    return np.asarray(_program()(logits, seed, jnp.int32(count), jnp.float32(drawing.temperature), top_k))


def compile_drawing(tokens: int) -> None:
    """Compiles the programs that draw one of `tokens` tokens, with and without `top_k`, ahead of the first one."""
    for top_k in (None, 1):
        draw(np.zeros((1, tokens), np.float32), 0, Drawing(top_k=top_k))


@functools.cache
def _program() -> Callable[..., jax.Array]:
    def draw_traced(
        logits: jax.Array, seed: jax.Array, count: jax.Array, temperature: jax.Array, top_k: jax.Array | None
    ) -> jax.Array:
        return choose(logits, jax.random.fold_in(jax.random.key(seed), count), temperature, top_k)

    return jax.jit(draw_traced)
