"""Attention, and rotary positions."""

import jax
import jax.numpy as jnp

from jaxtrain.core.floats import as_floats
from jaxtrain.models.platform import in_loop_on_cpu

NEVER = -1e30
"""The score of a key that a query must not see: its weight is exactly 0, and a row of them is not nan."""

BASE = 10_000.0
"""The ratio of the longest rotary wavelength to the shortest."""


def attention(queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Returns softmax(q k / sqrt(d)) v of each head, (batch, t, heads, d).

    Queries are (batch, t, heads, d), keys and values (batch, s, heads, d). `mask`, (batch or 1, t, s) booleans, says
    which keys each query sees; None: all. Vaswani et al. (2017), https://arxiv.org/abs/1706.03762. Programs for a CPU
    take batched products, which are faster there inside a loop, those for other platforms
    `jax.nn.dot_product_attention`.
    """
    return in_loop_on_cpu(_products, _fused, queries, keys, values, mask)


def _fused(queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array | None) -> jax.Array:
    return jax.nn.dot_product_attention(queries, keys, values, mask=None if mask is None else mask[:, None])


def _products(queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array | None) -> jax.Array:
    scale = queries.shape[-1] ** -0.5
    q, k, v = (array.transpose(0, 2, 1, 3) for array in (queries * scale, keys, values))
    scores = as_floats(q @ k.transpose(0, 1, 3, 2))
    if mask is not None:
        scores = jnp.where(mask[:, None], scores, NEVER)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    return (weights @ v).transpose(0, 2, 1, 3)


def rotate(heads: jax.Array, positions: jax.Array) -> jax.Array:
    """Turns pairs of features of (batch, t, heads, d) by angles that grow with their positions (t,); d is even.

    Products of queries and keys then depend on the distance of their positions alone. Su et al. (2021),
    https://arxiv.org/abs/2104.09864, with the pairs (i, i + d / 2).
    """
    half = heads.shape[-1] // 2
    speeds = BASE ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions.astype(jnp.float32)[None, :, None, None] * speeds[None, None, None, :]
    cos = jnp.cos(angles).astype(heads.dtype)
    sin = jnp.sin(angles).astype(heads.dtype)
    first = heads[..., :half]
    second = heads[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
