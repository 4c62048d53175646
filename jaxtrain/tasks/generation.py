"""Continues sequences of tokens, one token after another, with cached keys and values."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxtrain.core.state import Task


def extend(
    tokens: jax.Array,
    known: jax.Array,
    end: jax.Array,
    made: jax.Array,
    key: jax.Array,
    temperature: jax.Array,
    top_k: jax.Array | None,
    weights: tuple[Any, Any, Any],
    *,
    task: Task,
) -> jax.Array:
    """Returns the tokens with those from position `known` to `end` - 1 drawn from the model.

    One program serves every prompt, length, temperature and `top_k`, and another one those without `top_k`: all but the
    shapes is traced.

    Args:
        tokens: integers (batch, context + 1), of which the first `known`, at least one, are given.
        known: the position of the first token that is drawn.
        end: the position after the last one.
        made: the number of tokens that were drawn before, which counts on the random numbers.
        key: the random key of the whole sequence.
        temperature: divides the logits; at 0 the most probable token is taken.
        top_k: the number of most probable tokens that are drawn from; None: all.
        weights: parameters, model state and values of the step, as the task's functions take them.
        task: a task whose model has a method `decode`.
    """
    params, model_state, values = weights
    _, cache = task.decode(params, model_state, tokens[:, :-1], values, None, 0)

    def draw(carry: Any) -> Any:
        i, tokens, cache = carry
        newest = jax.lax.dynamic_slice_in_dim(tokens, i - 1, 1, axis=1)
        logits, cache = task.decode(params, model_state, newest, values, cache, i - 1)
        chosen = choose(logits[:, 0], jax.random.fold_in(key, made + i - known), temperature, top_k)
        tokens = jax.lax.dynamic_update_slice_in_dim(tokens, chosen[:, None].astype(tokens.dtype), i, axis=1)
        return i + 1, tokens, cache

    return jax.lax.while_loop(lambda carry: carry[0] < end, draw, (known, tokens, cache))[1]


def choose(
    logits: jax.Array, key: jax.Array, temperature: jax.Array, top_k: jax.Array | int | None = None
) -> jax.Array:
    """Draws a token (batch,) from logits (batch, tokens) at a temperature; the most probable one at 0.

    >>> choose(jnp.array([[0.0, 2.0, 1.0]]), jax.random.key(0), jnp.float32(0.0)).tolist()
    [1]
    """
    logits = logits.astype(jnp.float32)
    if top_k is not None:
        place = jnp.maximum(logits.shape[-1] - top_k, 0)
        least = jnp.sort(logits, axis=-1)[:, place]
        logits = jnp.where(logits >= least[:, None], logits, -jnp.inf)
    drawn = jax.random.categorical(key, logits / jnp.where(temperature > 0.0, temperature, 1.0))
    return jnp.where(temperature > 0.0, drawn, logits.argmax(axis=-1))
