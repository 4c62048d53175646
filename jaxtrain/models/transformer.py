"""A decoder-only transformer."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.config.schema import Count, Probability
from jaxtrain.errors import ConfigError, DataError, Words
from jaxtrain.models.attention import attention, rotate
from jaxtrain.models.layers import Dropout
from jaxtrain.models.norms import rms_norm

UNROLLED = 6
"""Layers up to which the loop over them is unrolled: it then runs faster, and compiles in seconds."""


class Cache(NamedTuple):
    """Keys and values of the tokens so far, (layers, batch, context, heads, features)."""

    keys: jax.Array
    values: jax.Array


class Transformer(nn.Module):
    """Predicts the next token at each position of a sequence, from the tokens up to it.

    Pre-norm blocks of attention with rotary positions and a feed-forward network of `expansion` times the `width`,
    without biases. The embeddings are the output weights, too. `remat` computes activations again in the backward pass,
    which takes a third more time and a fraction of the memory. Radford et al. (2019), "Language models are unsupervised
    multitask learners"; Su et al. (2021), https://arxiv.org/abs/2104.09864.

    >>> jax.eval_shape(Transformer(256).init_with_output, jax.random.key(0), jnp.zeros((5, 64), int))[0].shape
    (5, 64, 256)
    """

    outputs: int
    width: Count = 128
    layers: Count = 4
    heads: Count = 4
    expansion: Count = 4
    dropout: Probability | None = None
    remat: bool = False

    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Takes tokens (batch, context) and returns logits (batch, context, outputs)."""
        return self.decode(inputs, train=train)[0]

    @nn.compact
    def decode(
        self, tokens: jax.Array, cache: Cache | None = None, position: jax.Array | int = 0, train: bool = False
    ) -> tuple[jax.Array, Cache]:
        """Returns the logits (batch, t, outputs) of tokens (batch, t), and the cache that they extend.

        Without a cache, the tokens are a sequence from its start, and the cache is that of their keys and values. With
        one, they stand at `position` of its sequence, whose later tokens are not seen.
        """
        if not jnp.issubdtype(tokens.dtype, jnp.integer) or tokens.ndim != 2:
            got = Words(f"'transformer' for inputs of shape {tokens.shape[1:]}, {tokens.dtype}")
            raise DataError("model.name", got, "sequences of tokens, such as those of data.name=text")
        embed = nn.Embed(self.outputs, self.width)
        hidden = Dropout(self.dropout)(embed(tokens), train)
        positions = position + jnp.arange(tokens.shape[1])
        known = positions if cache is None else jnp.arange(cache.keys.shape[2])
        mask = (known[None, :] <= positions[:, None])[None]
        blocks = make_blocks(self.layers, self.heads, self.expansion, self.dropout, train, remat=self.remat)
        hidden, extended = blocks(hidden, cache, positions, mask)
        return embed.attend(rms_norm(hidden)), extended


def make_blocks(
    layers: int, heads: int, expansion: int, dropout: float | None, train: bool, *, remat: bool = False
) -> Callable[..., tuple[jax.Array, Cache]]:
    """Makes the blocks of a module that calls this, whose parameters have the layers as their first axis."""
    block = nn.remat(Block, prevent_cse=False) if remat else Block
    scanned = nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(0, nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType] (annotated as one axis)
        length=layers,
        unroll=1 if remat or layers > UNROLLED else layers,
    )
    return scanned(heads, expansion, dropout, train, name="blocks")


class Block(nn.Module):
    """Attention and a feed-forward network, each added to its inputs, of which it takes the root-mean-square norm."""

    heads: int
    expansion: int
    dropout: float | None
    train: bool

    @nn.compact
    def __call__(
        self, hidden: jax.Array, cache: Cache | None, positions: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """Takes (batch, t, width), the cache of this layer, positions (t,) and a mask of keys (batch or 1, t, s)."""
        batch, length, width = hidden.shape
        if width % (2 * self.heads):
            expected = f"a multiple of {2 * self.heads}, twice model.heads={self.heads}"
            raise ConfigError("model.width", width, expected, "Each head takes an equal and even share of the width")
        projected = nn.Dense(3 * width, use_bias=False)(rms_norm(hidden))
        projected = projected.reshape(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = (projected[:, :, i] for i in range(3))
        keys = rotate(keys, positions)
        cache = Cache(keys, values) if cache is None else _extend(cache, keys, values, positions[0])
        keys, values = (array.astype(hidden.dtype) for array in cache)
        attended = attention(rotate(queries, positions), keys, values, mask)
        hidden += self._drop(nn.Dense(width, use_bias=False)(attended.reshape(batch, length, width)))
        inner = nn.gelu(nn.Dense(self.expansion * width, use_bias=False)(rms_norm(hidden)))
        return hidden + self._drop(nn.Dense(width, use_bias=False)(inner)), cache

    def _drop(self, values: jax.Array) -> jax.Array:
        return Dropout(self.dropout)(values, self.train)


def _extend(cache: Cache, keys: jax.Array, values: jax.Array, position: jax.Array) -> Cache:
    """Writes keys and values (batch, t, heads, features) into a layer's cache, from `position` on."""
    pairs = ((cache.keys, keys), (cache.values, values))
    written = (jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), position, 1) for old, new in pairs)
    return Cache(*written)
