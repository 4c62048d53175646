"""A small residual network."""

from typing import Annotated

import flax.linen as nn
import jax

from jaxtrain.config.schema import NotEmpty, Positive, Probability, Widths
from jaxtrain.models.convolution import Conv, max_pool
from jaxtrain.models.layers import Dropout
from jaxtrain.models.mlp import Activation
from jaxtrain.models.norms import Norm, normalise


class ResNet9(nn.Module):
    """A 3x3 convolution, then one with 2x2 max pooling per further width, every other one with a residual block.

    `widths` are the widths of the convolutions. With four, (w0, w1, w2, w3), those to w1 and w3 are followed by a
    residual block of two convolutions: eight in all, and nine layers with the dense one. Each convolution is followed
    by norm and activation. Global max pooling comes before the dense layer, and the logits are multiplied by `scale`.
    An axis of one pixel is not pooled, so images of any size fit. Page (2018), "How to train your ResNet", the network
    of his entry to DAWNBench, https://github.com/davidcpage/cifar10-fast, with widths (64, 128, 256, 512).

    >>> import jax.numpy as jnp
    >>> jax.eval_shape(ResNet9(10).init_with_output, jax.random.key(0), jnp.zeros((5, 8, 8, 1)))[0].shape
    (5, 10)
    """

    outputs: int
    widths: Annotated[Widths, NotEmpty()] = (16, 32, 64, 128)
    norm: Norm | None = "batch"
    activation: Activation = "relu"
    dropout: Probability | None = None
    scale: Positive = 0.125

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Takes (batch, height, width, channels) and returns (batch, outputs)."""
        first, *others = self.widths
        hidden = self._conv_block(inputs, first, train)
        for i, width in enumerate(others):
            hidden = self._conv_block(hidden, width, train)
            hidden = max_pool(hidden, (min(2, hidden.shape[1]), min(2, hidden.shape[2])))
            if i % 2 == 0:
                hidden += self._conv_block(self._conv_block(hidden, width, train), width, train)
        hidden = Dropout(self.dropout)(hidden.max(axis=(1, 2)), train)
        return self.scale * nn.Dense(self.outputs, use_bias=False)(hidden)

    def _conv_block(self, inputs: jax.Array, width: int, train: bool) -> jax.Array:
        """Applies a 3x3 convolution, norm and activation; no bias before batch norm, which would cancel it."""
        outputs = Conv(width, use_bias=self.norm != "batch")(inputs)
        return getattr(nn, self.activation)(normalise(outputs, self.norm, train))
