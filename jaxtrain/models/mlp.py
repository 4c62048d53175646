"""A multilayer perceptron."""

from typing import Literal

import flax.linen as nn
import jax

from jaxtrain.config.schema import Probability, Widths
from jaxtrain.models.layers import Dropout
from jaxtrain.models.norms import Norm, normalise

Activation = Literal["relu", "gelu", "silu", "tanh"]


class MLP(nn.Module):
    """Dense layers of the widths in `hidden`, each with an optional norm and dropout; inputs are flattened.

    >>> import jax.numpy as jnp
    >>> jax.eval_shape(MLP(10).init_with_output, jax.random.key(0), jnp.zeros((5, 28, 28, 1)))[0].shape
    (5, 10)
    """

    outputs: int
    hidden: Widths = (128, 128)
    activation: Activation = "relu"
    norm: Norm | None = None
    dropout: Probability | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Returns (batch, outputs)."""
        hidden = inputs.reshape(inputs.shape[0], -1)
        for width in self.hidden:
            # Batch norm cancels a bias: its gradient would be rounding error, which Adam would turn into full steps.
            hidden = nn.Dense(width, use_bias=self.norm != "batch")(hidden)
            hidden = normalise(hidden, self.norm, train)
            hidden = Dropout(self.dropout)(getattr(nn, self.activation)(hidden), train)
        return nn.Dense(self.outputs)(hidden)
