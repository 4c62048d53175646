"""The multilayer perceptron."""

from typing import Literal

import flax.linen as nn
import jax

from jaxtrain.knobs import Probability
from jaxtrain.models.layers import Dropout, normalise

Activation = Literal["relu", "gelu", "silu", "tanh"]


class MLP(nn.Module):
    """Dense layers of the widths in `hidden`, each with a norm and dropout if wanted; inputs are flattened."""

    outputs: int
    hidden: tuple[int, ...] = (128, 128)
    activation: Activation = "relu"
    norm: Literal["batch", "layer"] | None = None
    dropout: Probability | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Returns (batch, outputs)."""
        hidden = inputs.reshape(inputs.shape[0], -1)
        for width in self.hidden:
            hidden = normalise(nn.Dense(width)(hidden), self.norm, train)
            hidden = Dropout(self.dropout)(getattr(nn, self.activation)(hidden), train)
        return nn.Dense(self.outputs)(hidden)
