"""The small residual network."""

from typing import Annotated

import flax.linen as nn
import jax

from jaxtrain.config.schema import NotEmpty, Positive, Probability, Widths
from jaxtrain.models.convolution import Conv, max_pool
from jaxtrain.models.layers import Dropout
from jaxtrain.models.mlp import Activation
from jaxtrain.models.norms import Norm, normalise


class ResNet9(nn.Module):
    """A 3x3 convolution, then for each further width one with a 2x2 max pool and, after every other, a residual block.

    `widths` are those of the convolutions: of the four (w0, w1, w2, w3) those to w1 and w3 are followed by a block of
    two, which makes eight, and nine layers with the dense one. At the end the largest value of each channel is taken,
    and the logits are scaled by `scale`. Each convolution has its norm and activation. An axis of one pixel is pooled
    no further, so any image goes in. Page (2018), "How to train your ResNet", the network of his entry to DAWNBench,
    https://github.com/davidcpage/cifar10-fast, with widths (64, 128, 256, 512).

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
        hidden = self._convolved(inputs, first, train)
        for i, width in enumerate(others):
            hidden = self._convolved(hidden, width, train)
            hidden = max_pool(hidden, (min(2, hidden.shape[1]), min(2, hidden.shape[2])))
            if i % 2 == 0:
                hidden += self._convolved(self._convolved(hidden, width, train), width, train)
        hidden = Dropout(self.dropout)(hidden.max(axis=(1, 2)), train)
        return self.scale * nn.Dense(self.outputs, use_bias=False)(hidden)

    def _convolved(self, inputs: jax.Array, width: int, train: bool) -> jax.Array:
        """A 3x3 convolution, norm and activation; batch norm takes a bias out again, so there is none."""
        outputs = Conv(width, use_bias=self.norm != "batch")(inputs)
        return getattr(nn, self.activation)(normalise(outputs, self.norm, train))
