"""Continues texts by an exported program, which sees a whole window of tokens at a time and keeps nothing between."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.tasks.generation import choose
from jaxtrain.training.generation import check_generation

Predict = Callable[[np.ndarray], np.ndarray]
"""Takes windows of tokens (batch, context); returns logits (batch, context, tokens), each by the tokens up to it."""


def generate(
    predict: Predict,
    prompt: np.ndarray,
    length: int,
    *,
    context: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Returns the `length` tokens (batch, length) that follow prompts (batch, n), as `jaxtrain.generate` draws them.

    Raises UsageError for no prompt, or a number outside of its range.
    """
    check_generation(prompt, length, temperature, top_k)
    half = max(1, (context + 1) // 2)
    drawn: list[np.ndarray] = []
    known = prompt if prompt.shape[1] <= context else prompt[:, -half:]
    for count in range(length):
        if known.shape[1] == context + 1:
            known = known[:, -half:]
        window = np.zeros((len(prompt), context), prompt.dtype)
        window[:, : known.shape[1]] = known
        logits = predict(window)[:, known.shape[1] - 1]
        chosen = np.asarray(_drawing(top_k)(logits, jnp.int32(seed), jnp.int32(count), jnp.float32(temperature)))
        drawn.append(chosen)
        known = np.concatenate([known, chosen[:, None].astype(known.dtype)], axis=1)
    return np.stack(drawn, axis=1)


@functools.lru_cache(maxsize=16)
def _drawing(top_k: int | None) -> Callable[..., jax.Array]:
    def draw(logits: jax.Array, seed: jax.Array, count: jax.Array, temperature: jax.Array) -> jax.Array:
        return choose(logits, jax.random.fold_in(jax.random.key(seed), count), temperature, top_k)

    return jax.jit(draw)
