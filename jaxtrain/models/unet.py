"""A U-Net, whose outputs have the height and width of its inputs."""

from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.config.schema import Bounds, Count, Probability
from jaxtrain.errors import DataError, Words
from jaxtrain.models.convolution import Conv, max_pool
from jaxtrain.models.layers import Dropout
from jaxtrain.models.mlp import Activation
from jaxtrain.models.norms import Norm, normalise
from jaxtrain.models.upsampling import ConvTranspose

Depth = Annotated[int, Bounds(1, 10)]


class UNet(nn.Module):
    """Convolutions at `depth` + 1 resolutions, each half the one before, and back up, beside what came down.

    The finest resolution has `width` channels, and each coarser one twice as many. A 2x2 transposed convolution goes
    up, and its outputs are joined with those of the same resolution on the way down. Two 3x3 convolutions with norm and
    activation work at each resolution, and `dropout` acts on the coarsest. Convolutions are padded, so outputs have the
    height and width of the inputs, which must be divisible by 2 ** depth. Ronneberger et al. (2015),
    https://arxiv.org/abs/1505.04597, with width 64 and depth 4, and without norm or padding.

    >>> import jax.numpy as jnp
    >>> jax.eval_shape(UNet(3, depth=2).init_with_output, jax.random.key(0), jnp.zeros((5, 8, 12, 1)))[0].shape
    (5, 8, 12, 3)
    """

    outputs: int
    width: Count = 16
    depth: Depth = 4
    norm: Norm | None = "batch"
    activation: Activation = "relu"
    dropout: Probability | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Takes (batch, height, width, channels) and returns (batch, height, width, outputs)."""
        self._check_size(inputs.shape)
        hidden = inputs
        finer = []
        for level in range(self.depth):
            hidden = self._convolve_twice(hidden, self.width << level, train)
            finer.append(hidden)
            hidden = max_pool(hidden)
        hidden = self._convolve_twice(hidden, self.width << self.depth, train)
        hidden = Dropout(self.dropout)(hidden, train)
        for level in reversed(range(self.depth)):
            hidden = ConvTranspose(self.width << level)(hidden)
            hidden = jnp.concatenate([finer[level], hidden], axis=-1)
            hidden = self._convolve_twice(hidden, self.width << level, train)
        return Conv(self.outputs, (1, 1))(hidden)

    def _convolve_twice(self, hidden: jax.Array, channels: int, train: bool) -> jax.Array:
        """Applies two 3x3 convolutions, each with norm and activation; no bias before batch norm would cancel it."""
        for _ in range(2):
            hidden = Conv(channels, use_bias=self.norm != "batch")(hidden)
            hidden = getattr(nn, self.activation)(normalise(hidden, self.norm, train))
        return hidden

    def _check_size(self, shape: tuple[int, ...]) -> None:
        """Raises DataError for inputs that are no images, or whose sides cannot be halved `depth` times."""
        step = 2**self.depth
        if len(shape) != 4:
            got = Words(f"'unet' for inputs of shape {shape[1:]}")
            raise DataError("model.name", got, "images of shape (height, width, channels)", "Take another model")
        if shape[1] % step or shape[2] % step:
            up = [-(-side // step) * step for side in shape[1:3]]
            got = Words(f"{self.depth} for images of {shape[1]} x {shape[2]} pixels")
            hint = f"Lower it, or make images of {up[0]} x {up[1]} by data.size or a crop"
            raise DataError("model.depth", got, f"sides divisible by 2 ** {self.depth} = {step}", hint)
