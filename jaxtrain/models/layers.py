"""Layers that take traced floats and are fast inside a compiled loop: all that models here are made of."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.core.batch_axis import batch_axis
from jaxtrain.models.convolution import Conv, average_pool, convolve, max_pool
from jaxtrain.models.norms import NORMS, Norm, batch_norm, group_norm, layer_norm, normalise, rms_norm

__all__ = [
    "NORMS",
    "Conv",
    "Dropout",
    "Norm",
    "average_pool",
    "batch_axis",
    "batch_norm",
    "convolve",
    "group_norm",
    "layer_norm",
    "max_pool",
    "normalise",
    "rms_norm",
]


class Dropout(nn.Module):
    """Sets each value to 0 with probability `rate`, which may be traced, and scales the others by 1 / (1 - rate).

    A rate of None leaves the layer out; 0.0 still draws, so that rates can be compared in one program. Srivastava et
    al. (2014), https://jmlr.org/papers/v15/srivastava14a.html.
    """

    rate: float | None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Returns `inputs` as they are where `train` is false."""
        if self.rate is None or not train:
            return inputs
        keep = 1.0 - jnp.asarray(self.rate, jnp.float32)  # bfloat16 would round 0.999 to 1, and draws to 1 / 128
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, inputs.shape)
        # A product with the reciprocal, since XLA makes one of a quotient in some programs and not in others, and a
        # run should be the same to the bit alone and as a lane.
        return jnp.where(kept, inputs * (1.0 / keep).astype(inputs.dtype), jnp.zeros_like(inputs))
