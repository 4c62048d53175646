"""A plain convolutional network."""

import flax.linen as nn
import jax

from jaxtrain.config.schema import Probability, Widths
from jaxtrain.models.convolution import Conv, max_pool
from jaxtrain.models.layers import Dropout
from jaxtrain.models.mlp import MLP, Activation
from jaxtrain.models.norms import Norm, normalise


class CNN(nn.Module):
    """A 3x3 convolution and 2x2 max pooling for each number in `features`, then an MLP with the widths in `hidden`.

    >>> import jax.numpy as jnp
    >>> jax.eval_shape(CNN(10).init_with_output, jax.random.key(0), jnp.zeros((5, 28, 28, 1)))[0].shape
    (5, 10)
    """

    outputs: int
    features: Widths = (32, 64)
    hidden: Widths = (128,)
    activation: Activation = "relu"
    norm: Norm | None = None
    dropout: Probability | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Takes (batch, height, width, channels) and returns (batch, outputs)."""
        hidden = inputs
        for channels in self.features:
            hidden = normalise(Conv(channels, use_bias=self.norm != "batch")(hidden), self.norm, train)
            hidden = max_pool(getattr(nn, self.activation)(hidden))
        hidden = Dropout(self.dropout)(hidden, train)
        return MLP(self.outputs, self.hidden, self.activation, self.norm, self.dropout)(hidden, train)
