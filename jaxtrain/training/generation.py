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
    program = _compiled(task)
    drawing = (
        jax.random.key(seed),
        jnp.float32(temperature),
        None if top_k is None else jnp.int32(min(top_k, LARGEST)),
    )

    def draw(growing: "Growing", count: int) -> jax.Array:
        numbers = (jnp.int32(growing.known), jnp.int32(count), jnp.int32(growing.made))
        return program(weights, growing.windows, *numbers, *drawing)

    return draw_all(draw, Growing(prompt, context), length)


@functools.lru_cache(maxsize=16)
def _compiled(task: Task) -> Callable[..., jax.Array]:
    def program(weights: tuple[Any, Any, Any], *arguments: Any) -> jax.Array:
        params, model_state, values = weights

        def decode(tokens: jax.Array, cache: Any, position: jax.Array | int) -> Any:
            return task.decode(params, model_state, tokens, values, cache, position)

        return extend(*arguments, decode=decode)

    return jax.jit(program)


class Growing:
    """Sequences of tokens that grow, and the windows in which a model of a bounded context sees them.

    Where the context is full, the second half of it begins a new window. So does the end of a longer prompt.
    """

    def __init__(self, prompts: np.ndarray, context: int) -> None:
        """Takes prompts (batch, n), with at least one token."""
        self._context = context
        self._half = max(1, (context + 1) // 2)
        self._seen = prompts if prompts.shape[1] <= context else prompts[:, -self._half :]
        self.made = 0

    @property
    def windows(self) -> np.ndarray:
        """The newest tokens (batch, context), with zeros behind them."""
        return np.pad(self._seen.astype(np.int32), ((0, 0), (0, self._context - self.known)))

    @property
    def known(self) -> int:
        """The number of tokens in a window."""
        return self._seen.shape[1]

    @property
    def room(self) -> int:
        """The number of tokens that can be drawn before a new window begins."""
        return self._context + 1 - self.known

    def append(self, tokens: np.ndarray) -> None:
        """Appends tokens (batch, count), at most as many as there is room for."""
        self._seen = np.concatenate([self._seen, tokens], axis=1)
        self.made += tokens.shape[1]
        if self.known > self._context:
            self._seen = self._seen[:, -self._half :]


def draw_all(draw: Callable[[Growing, int], Any], growing: Growing, length: int) -> np.ndarray:
    """Returns the `length` tokens (batch, length) that follow; `draw` draws some, and may return more columns."""
    drawn: list[np.ndarray] = []
    while growing.made < length:
        count = min(growing.room, length - growing.made)
        drawn.append(np.asarray(draw(growing, count))[:, :count])
        growing.append(drawn[-1])
    return np.concatenate(drawn, axis=1)


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
