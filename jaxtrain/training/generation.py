"""Generates tokens of any number with a model of a bounded context, by one compiled program."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.state import Task
from jaxtrain.data.vocabulary import LARGEST
from jaxtrain.errors import UsageError
from jaxtrain.tasks.generation import extend


def generate(
    task: Task,
    weights: tuple[Any, Any, Any],
    prompt: np.ndarray,
    length: int,
    *,
    context: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Returns the `length` tokens (batch, length) that the model draws after the prompts (batch, n).

    The model sees at most `context` tokens: where they are full, the second half of them begins a new window. So does
    the end of a prompt that is longer.

    Args:
        task: a task whose model has a method `decode`, such as that of `Run.task`.
        weights: parameters, model state and the hyperparameters of a step (name -> float).
        prompt: tokens, at least one.
        length: the number of tokens to draw.
        context: the most tokens that the model sees, as in training.
        temperature: divides the logits: 1 draws from the model's distribution, 0 takes the most probable token.
        top_k: the number of most probable tokens that are drawn from; None: all.
        seed: of the random numbers; the same seed draws the same tokens.

    Raises:
        UsageError: no prompt, or a number outside of its range.
        ConfigError: a task or a model that cannot continue a sequence.
    """
    check_generation(prompt, length, temperature, top_k)
    half = max(1, (context + 1) // 2)
    known = prompt.shape[1] if prompt.shape[1] <= context else half
    tokens = np.zeros((len(prompt), context + 1), np.int32)
    tokens[:, :known] = prompt[:, prompt.shape[1] - known :]
    drawn: list[np.ndarray] = []
    made = 0
    program = _compiled(task)
    drawing = (
        jax.random.key(seed),
        jnp.float32(temperature),
        None if top_k is None else jnp.int32(min(top_k, LARGEST)),
    )
    while made < length:
        if known == context + 1:
            tokens = np.roll(tokens, half, axis=1)
            known = half
        end = min(context + 1, known + length - made)
        numbers = (jnp.int32(known), jnp.int32(end), jnp.int32(made))
        tokens = np.asarray(program(tokens, *numbers, *drawing, weights))
        drawn.append(tokens[:, known:end])
        made += end - known
        known = end
    return np.concatenate(drawn, axis=1)


@functools.lru_cache(maxsize=16)
def _compiled(task: Task) -> Callable[..., jax.Array]:
    return jax.jit(functools.partial(extend, task=task))


def check_generation(prompt: np.ndarray, length: int, temperature: float, top_k: int | None) -> None:
    """Raises UsageError for prompts (batch, n) without a token, and for a number outside of its range."""
    if prompt.ndim != 2 or prompt.shape[1] < 1:
        raise UsageError("prompt", prompt.shape, "at least one token, in the shape (batch, n)")
    if length < 1:
        raise UsageError("length", length, "at least 1")
    if not 0 <= temperature < float("inf"):
        raise UsageError("temperature", temperature, "a number, at least 0")
    if top_k is not None and top_k < 1:
        raise UsageError("top_k", top_k, "None or at least 1")
