"""Continues sequences of tokens, one token after another, with cached keys and values."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Decode = Callable[[jax.Array, Any, jax.Array | int], tuple[jax.Array, Any]]
"""Takes tokens (batch, t), a cache or None, and the tokens' position; returns logits (batch, t, tokens) and a cache."""


def extend(
    tokens: jax.Array,
    known: jax.Array,
    count: jax.Array,
    made: jax.Array,
    key: jax.Array,
    temperature: jax.Array,
    top_k: jax.Array | None,
    *,
    decode: Decode,
) -> jax.Array:
    """Returns tokens (batch, context), of which the first `count` are those that the model draws next.

    One program serves every prompt, count, temperature and `top_k`, and another one those without `top_k`: all but the
    shapes is traced. What is drawn beyond the context is of no use.

    Args:
        tokens: integers (batch, context), of which the first `known`, at least one, are given.
        known: the position after the last token that is given.
        count: the number of tokens to draw.
        made: the number of tokens that were drawn before, which counts on the random numbers.
        key: the random key of the whole sequence.
        temperature: divides the logits; at 0 the most probable token is taken.
        top_k: the number of most probable tokens that are drawn from; None: all.
        decode: the model.
    """
    _, cache = decode(tokens, None, 0)
    newest = jax.lax.dynamic_slice_in_dim(tokens, known - 1, 1, axis=1)

    def draw(carry: Any) -> Any:
        i, newest, cache, drawn = carry
        logits, cache = decode(newest, cache, known - 1 + i)
        chosen = choose(logits[:, 0], jax.random.fold_in(key, made + i), temperature, top_k)
        newest = chosen[:, None].astype(tokens.dtype)
        return i + 1, newest, cache, jax.lax.dynamic_update_slice_in_dim(drawn, newest, i, axis=1)

    begin = (jnp.int32(0), newest, cache, jnp.zeros_like(tokens))
    return jax.lax.while_loop(lambda carry: carry[0] < count, draw, begin)[-1]


def extend_each(
    tokens: jax.Array,
    known: jax.Array,
    count: jax.Array,
    made: jax.Array,
    seed: jax.Array,
    temperature: jax.Array,
    top_k: jax.Array,
    *,
    decode: Decode,
) -> jax.Array:
    """Extends sequences (n, context) that share nothing but the program, as `extend` does each of them alone.

    Each has an own number in the other arguments (n,). All draw as many tokens as the largest `count`.
    """

    def one(tokens: jax.Array, known: jax.Array, made: jax.Array, seed: jax.Array, *drawing: jax.Array) -> jax.Array:
        return extend(tokens[None], known, most, made, jax.random.key(seed), *drawing, decode=decode)[0]

    most = count.max(initial=0)
    return jax.vmap(one)(tokens, known, made, seed, temperature, top_k)


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
