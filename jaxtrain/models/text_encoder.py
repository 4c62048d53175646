"""A transformer that reads whole texts of unlike length."""

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
        kept = inputs != self.tokens - 1
        hidden = Dropout(self.dropout)(nn.Embed(self.tokens, self.width)(inputs), train)
        if self.layers:
            blocks = make_blocks(self.layers, self.heads, self.expansion, self.dropout, train)
            hidden, _ = blocks(hidden, None, jnp.arange(inputs.shape[1]), kept[:, None, :])
        counted = kept.astype(jnp.float32)
        weights = (counted / jnp.maximum(counted.sum(axis=1, keepdims=True), 1.0)).astype(hidden.dtype)
        pooled = (rms_norm(hidden) * weights[:, :, None]).sum(axis=1)
        return nn.Dense(self.outputs)(pooled)
