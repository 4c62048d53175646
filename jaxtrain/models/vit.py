"""A vision transformer."""

from functools import partial

import flax.linen as nn
import jax

from jaxtrain.config.schema import Count, Probability
from jaxtrain.errors import ConfigError, DataError, Words
from jaxtrain.models.attention import attention
from jaxtrain.models.convolution import Conv
from jaxtrain.models.layers import Dropout
from jaxtrain.models.norms import layer_norm

UNROLLED = 2
"""Layers up to which the loop over them is unrolled."""

XAVIER = nn.initializers.xavier_uniform()


class ViT(nn.Module):
    """A transformer over the patches of an image, `patch` x `patch` pixels each, and the mean over all of them.

    Pre-norm blocks of attention and a feed-forward network of `expansion` times the `width`, with learned positions.
    Dosovitskiy et al. (2020), https://arxiv.org/abs/2010.11929, with their initial weights. The mean takes the place of
    their class token: Beyer et al. (2022), https://arxiv.org/abs/2205.01580. ViT-S/16 has patch 16, width 384,
    12 layers and 6 heads.

    >>> import jax.numpy as jnp
    >>> jax.eval_shape(ViT(10).init_with_output, jax.random.key(0), jnp.zeros((5, 32, 32, 3)))[0].shape
    (5, 10)
    """

    outputs: int
    patch: Count = 4
    width: Count = 128
    layers: Count = 6
    heads: Count = 4
    expansion: Count = 4
    dropout: Probability | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Takes (batch, height, width, channels) and returns (batch, outputs)."""
        self._check(inputs.shape)
        size = (self.patch, self.patch)
        hidden = Conv(self.width, size, size, "VALID")(inputs)
        hidden = hidden.reshape(hidden.shape[0], -1, self.width)
        hidden += self.param("positions", nn.initializers.normal(0.02), (1, *hidden.shape[1:]))
        hidden = Dropout(self.dropout)(hidden, train)
        hidden, _ = self._blocks(train)(hidden, None)
        hidden = layer_norm(hidden).mean(axis=1)
        return nn.Dense(self.outputs, kernel_init=nn.initializers.zeros)(hidden)

    def _blocks(self, train: bool) -> nn.Module:
        """Makes the blocks, whose parameters have the layers as their first axis."""
        scanned = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=self.layers,
            unroll=self.layers if self.layers <= UNROLLED else 1,
        )
        return scanned(self.heads, self.expansion, self.dropout, train)

    def _check(self, shape: tuple[int, ...]) -> None:
        """Raises DataError for inputs that patches do not cover, and ConfigError for heads that do not share."""
        if len(shape) != 4:
            got = Words(f"'vit' for inputs of shape {shape[1:]}")
            raise DataError("model.name", got, "images of shape (height, width, channels)", "Take another model")
        if shape[1] % self.patch or shape[2] % self.patch:
            got = Words(f"{self.patch} for images of {shape[1]} x {shape[2]} pixels")
            raise DataError("model.patch", got, "a number that divides both sides", "Change it, or data.size")
        if self.width % self.heads:
            expected = f"a multiple of model.heads={self.heads}"
            raise ConfigError("model.width", self.width, expected, "Each head takes an equal share of the width")


class Block(nn.Module):
    """Attention and a feed-forward network, each added to its inputs, of which it takes the layer norm."""

    heads: int
    expansion: int
    dropout: float | None
    train: bool

    @nn.compact
    def __call__(self, hidden: jax.Array, _: None) -> tuple[jax.Array, None]:
        """Takes and returns (batch, patches, width)."""
        batch, length, width = hidden.shape
        dense = partial(nn.Dense, kernel_init=XAVIER)
        projected = dense(3 * width)(layer_norm(hidden))
        projected = projected.reshape(batch, length, 3, self.heads, width // self.heads)
        attended = attention(*(projected[:, :, i] for i in range(3))).reshape(batch, length, width)
        hidden += self._drop(dense(width)(attended))
        inner = self._drop(nn.gelu(dense(self.expansion * width)(layer_norm(hidden)), approximate=False))
        return hidden + self._drop(dense(width)(inner)), None

    def _drop(self, values: jax.Array) -> jax.Array:
        return Dropout(self.dropout)(values, self.train)
