"""Residual networks of 18 to 152 layers."""

from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax

from jaxtrain.config.schema import Count, Probability
from jaxtrain.errors import DataError, Words
from jaxtrain.models.convolution import Conv, Padding, max_pool
from jaxtrain.models.layers import Dropout
from jaxtrain.models.norms import Norm, normalise

Layers = Literal[18, 34, 50, 101, 152]

BLOCKS: Mapping[int, tuple[int, ...]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Residual blocks of each of the four stages, by the number of layers; from 50 layers on they are bottlenecks."""

BOTTLENECKS_FROM = 50
EXPANSION = 4
"""Channels that leave a bottleneck, in multiples of those inside."""

HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""He et al. (2015), https://arxiv.org/abs/1502.01852, as in torchvision."""

ZEROS = nn.initializers.zeros


class ResNet(nn.Module):
    """A stem, four stages of residual blocks with `width` to 8 `width` channels, and the mean over all pixels.

    `layers` counts the layers with weights. The stem "imagenet" reduces images to a quarter by a 7x7 convolution and
    max pooling; "small" is a 3x3 convolution, for images of up to about 64 pixels. The last scale of each block starts
    at 0, or its last convolution without a norm, so that blocks start as identities: Goyal et al. (2017),
    https://arxiv.org/abs/1706.02677. He et al. (2015), https://arxiv.org/abs/1512.03385, with the strides in the 3x3
    convolutions and the padding of torchvision.

    >>> import jax.numpy as jnp
    >>> jax.eval_shape(ResNet(10).init_with_output, jax.random.key(0), jnp.zeros((5, 32, 32, 3)))[0].shape
    (5, 10)
    """

    outputs: int
    layers: Layers = 18
    width: Count = 64
    stem: Literal["imagenet", "small"] = "small"
    norm: Norm | None = "batch"
    dropout: Probability | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Takes (batch, height, width, channels) and returns (batch, outputs)."""
        if inputs.ndim != 4:
            got = Words(f"'resnet' for inputs of shape {inputs.shape[1:]}")
            raise DataError("model.name", got, "images of shape (height, width, channels)", "Take another model")
        hidden = self._reduce(inputs, train)
        block = Bottleneck if self.layers >= BOTTLENECKS_FROM else BasicBlock
        for stage, count in enumerate(BLOCKS[self.layers]):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                hidden = block(self.width << stage, stride, self.norm)(hidden, train)
        hidden = Dropout(self.dropout)(hidden.mean(axis=(1, 2)), train)
        return nn.Dense(self.outputs)(hidden)

    def _reduce(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Applies the stem."""
        if self.stem == "small":
            return nn.relu(_convolve(inputs, self.width, 3, 1, self.norm, train))
        hidden = nn.relu(_convolve(inputs, self.width, 7, 2, self.norm, train))
        return max_pool(hidden, (3, 3), (2, 2), _around(3))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around which the inputs are added."""

    width: int
    stride: int
    norm: Norm | None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Takes (batch, height, width, channels) and returns (batch, height', width', width)."""
        hidden = nn.relu(_convolve(inputs, self.width, 3, self.stride, self.norm, train))
        hidden = _convolve(hidden, self.width, 3, 1, self.norm, train, is_last=True)
        return nn.relu(hidden + _shortcut(inputs, hidden.shape, self.stride, self.norm, train))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1, the last to four times the width, around which the inputs are added."""

    width: int
    stride: int
    norm: Norm | None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Takes (batch, height, width, channels) and returns (batch, height', width', 4 width)."""
        hidden = nn.relu(_convolve(inputs, self.width, 1, 1, self.norm, train))
        hidden = nn.relu(_convolve(hidden, self.width, 3, self.stride, self.norm, train))
        hidden = _convolve(hidden, EXPANSION * self.width, 1, 1, self.norm, train, is_last=True)
        return nn.relu(hidden + _shortcut(inputs, hidden.shape, self.stride, self.norm, train))


def _convolve(
    inputs: jax.Array, features: int, size: int, stride: int, norm: Norm | None, train: bool, is_last: bool = False
) -> jax.Array:
    """Applies a convolution and a norm; the last one of a block returns 0 at the start of training."""
    kernel_init = ZEROS if is_last and norm is None else HE
    convolution = Conv(features, (size, size), (stride, stride), _around(size), norm is None, kernel_init=kernel_init)
    return normalise(convolution(inputs), norm, train, ZEROS if is_last else nn.initializers.ones)


def _shortcut(inputs: jax.Array, shape: tuple[int, ...], stride: int, norm: Norm | None, train: bool) -> jax.Array:
    """Returns the inputs, by a 1x1 convolution where the shape changes."""
    return inputs if inputs.shape == shape else _convolve(inputs, shape[-1], 1, stride, norm, train)


def _around(size: int) -> Padding:
    """Returns the padding with half the kernel on each side."""
    return ((size // 2, size // 2), (size // 2, size // 2))
