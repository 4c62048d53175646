"""Transformers that read whole texts, or sequences of numbers, of unlike length."""

from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.config.schema import Bounds, Count, Probability
from jaxtrain.errors import DataError, Words
from jaxtrain.models.layers import Dropout
from jaxtrain.models.norms import rms_norm
from jaxtrain.models.transformer import make_blocks


class TextEncoder(nn.Module):
    """Reads the tokens of a text, each of which attends to all others, and returns the outputs of their mean.

    The blocks are those of `transformer`; with no `layers` it is the mean of embeddings. Padding, the last of `tokens`,
    is attended to by none and is not in the mean, so a text has the same outputs however far it is padded. Vaswani et
    al. (2017), https://arxiv.org/abs/1706.03762; without blocks Joulin et al. (2016), https://arxiv.org/abs/1607.01759.

    >>> jax.eval_shape(TextEncoder(2, tokens=257).init_with_output, jax.random.key(0), jnp.zeros((5, 64), int))[0].shape
    (5, 2)
    """

    outputs: int
    width: Count = 128
    layers: Annotated[int, Bounds(0)] = 2
    heads: Count = 4
    expansion: Count = 4
    dropout: Probability | None = None
    tokens: int | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Takes tokens (batch, context) and returns (batch, outputs)."""
        if self.tokens is None or not jnp.issubdtype(inputs.dtype, jnp.integer) or inputs.ndim != 2:
            got = Words(f"'text_encoder' for inputs of shape {inputs.shape[1:]}, {inputs.dtype}")
            raise DataError("model.name", got, "texts, such as those of data.name=text_folder")
        hidden = Dropout(self.dropout)(nn.Embed(self.tokens, self.width)(inputs), train)
        return _read(self, hidden, inputs != self.tokens - 1, train)


class SequenceEncoder(nn.Module):
    """Reads the values of a sequence, each of which attends to all others, and returns the outputs of their mean.

    As `text_encoder`, with a linear map of the features at each place in the place of an embedding, after the features
    of `window` places around it are joined. Padding is attended to by none, counts as 0 in a window, and is not in the
    mean. Where all examples have one length there is none.

    >>> jax.eval_shape(SequenceEncoder(2).init_with_output, jax.random.key(0), jnp.zeros((5, 64, 3)))[0].shape
    (5, 2)
    """

    outputs: int
    width: Count = 128
    layers: Annotated[int, Bounds(0)] = 2
    heads: Count = 4
    expansion: Count = 4
    window: Count = 5
    dropout: Probability | None = None
    masked: bool = False

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Takes (batch, length, features), of which the last is the mask if `masked`, and returns (batch, outputs)."""
        if inputs.ndim != 3:
            got = Words(f"'sequence_encoder' for inputs of shape {inputs.shape[1:]}")
            raise DataError("model.name", got, "sequences, (length, features) each")
        kept = inputs[..., -1] > 0.5 if self.masked else jnp.ones(inputs.shape[:2], bool)
        values = jnp.where(kept[:, :, None], inputs[..., :-1] if self.masked else inputs, 0)
        joined = _windows(values, self.window)
        hidden = Dropout(self.dropout)(nn.Dense(self.width)(joined), train)
        return _read(self, hidden, kept, train)


def _windows(values: jax.Array, window: int) -> jax.Array:
    """Returns (batch, length, window * features): the values around each place, 0 beyond the ends."""
    length = values.shape[1]
    padded = jnp.pad(values, ((0, 0), (window // 2, (window - 1) // 2), (0, 0)))
    return jnp.concatenate([padded[:, begin : begin + length] for begin in range(window)], axis=-1)


def _read(model: TextEncoder | SequenceEncoder, hidden: jax.Array, kept: jax.Array, train: bool) -> jax.Array:
    """Returns the outputs (batch, outputs) of the mean of places (batch, length, width) that are `kept`."""
    if model.layers:
        blocks = make_blocks(model.layers, model.heads, model.expansion, model.dropout, train)
        hidden, _ = blocks(hidden, None, jnp.arange(hidden.shape[1]), kept[:, None, :])
    counted = kept.astype(jnp.float32)
    weights = (counted / jnp.maximum(counted.sum(axis=1, keepdims=True), 1.0)).astype(hidden.dtype)
    pooled = (rms_norm(hidden) * weights[:, :, None]).sum(axis=1)
    return nn.Dense(model.outputs)(pooled)
