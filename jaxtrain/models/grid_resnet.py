"""A fully convolutional residual network with outputs for each cell of a grid."""

from typing import Annotated

import flax.linen as nn
import jax

from jaxtrain.config.schema import Count, NotEmpty, Probability, Widths
from jaxtrain.models.convolution import Conv
from jaxtrain.models.layers import Dropout
from jaxtrain.models.mlp import Activation
from jaxtrain.models.norms import Norm, normalise


class GridResNet(nn.Module):
    """A 3x3 convolution of stride 2 and residual blocks for each width, so that a cell has 2 ** len(widths) pixels.

    Each of the `blocks` at a width adds two 3x3 convolutions; each convolution is followed by norm and activation. A
    1x1 convolution makes the outputs. Pictures of any size fit. Residual blocks: He et al. (2016),
    https://arxiv.org/abs/1512.03385.

    >>> import jax.numpy as jnp
    >>> jax.eval_shape(GridResNet(5).init_with_output, jax.random.key(0), jnp.zeros((2, 64, 48, 1)))[0].shape
    (2, 8, 6, 5)
    """

    outputs: int
    widths: Annotated[Widths, NotEmpty()] = (16, 32, 64)
    blocks: Count = 1
    norm: Norm | None = "batch"
    activation: Activation = "relu"
    dropout: Probability | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Takes (batch, height, width, channels) and returns (batch, rows, columns, outputs)."""
        hidden = inputs
        for width in self.widths:
            hidden = self._convolve(hidden, width, train, stride=2)
            for _ in range(self.blocks):
                hidden += self._convolve(self._convolve(hidden, width, train), width, train)
        hidden = Dropout(self.dropout)(hidden, train)
        return Conv(self.outputs, (1, 1))(hidden)

    def _convolve(self, inputs: jax.Array, width: int, train: bool, stride: int = 1) -> jax.Array:
        """Applies a 3x3 convolution, norm and activation; no bias before batch norm, which would cancel it."""
        outputs = Conv(width, strides=(stride, stride), use_bias=self.norm != "batch")(inputs)
        return getattr(nn, self.activation)(normalise(outputs, self.norm, train))
