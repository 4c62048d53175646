"""The layers of the models: they take traced floats and are fast inside a compiled loop."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.core.batch_axis import batch_axis
from jaxtrain.core.floats import as_floats
from jaxtrain.models.attention import attention
from jaxtrain.models.convolution import Conv, average_pool, convolve, max_pool
from jaxtrain.models.norms import NORMS, Norm, batch_norm, group_norm, layer_norm, normalise, rms_norm
from jaxtrain.models.upsampling import ConvTranspose, upsample

__all__ = [
    "NORMS",
    "Conv",
    "ConvTranspose",
    "Dropout",
    "Norm",
    "attention",
    "average_pool",
    "batch_axis",
    "batch_norm",
    "convolve",
    "dropout",
    "group_norm",
    "layer_norm",
    "max_pool",
    "normalise",
    "rms_norm",
    "upsample",
]


def dropout(key: jax.Array, inputs: jax.Array, rate: float | jax.Array) -> jax.Array:
    """Sets each value to 0 with probability `rate`, which may be traced, and scales the others by 1 / (1 - rate).

    Srivastava et al. (2014), https://jmlr.org/papers/v15/srivastava14a.html.
    """
    keep = 1.0 - as_floats(rate)  # bfloat16 would round 0.999 to 1
    kept = jax.random.bernoulli(key, keep, inputs.shape)
    # Multiply by the reciprocal: XLA rewrites a division so in some programs only, and a run alone and the same
    # run as a lane should agree to the bit.
    return jnp.where(kept, inputs * (1.0 / keep).astype(inputs.dtype), jnp.zeros_like(inputs))


class Dropout(nn.Module):
    """Applies `dropout` in training.

    A rate of None removes the layer; 0.0 still draws random numbers, so that rates can be compared in one program.
    """

    rate: float | None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Applies dropout; returns `inputs` unchanged if `train` is false."""
        if self.rate is None or not train:
            return inputs
        return dropout(self.make_rng("dropout"), inputs, self.rate)
