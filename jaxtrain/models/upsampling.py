"""Upsampling by whole factors, as reshapes and products, which are fast inside a compiled loop."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def upsample(inputs: jax.Array, factor: int = 2) -> jax.Array:
    """Repeats each pixel of (batch, height, width, channels) `factor` times along height and width: nearest neighbour.

    The values of `jax.image.resize(method="nearest")`.
    """
    batch, height, width, channels = inputs.shape
    repeated = jnp.broadcast_to(inputs[:, :, None, :, None], (batch, height, factor, width, factor, channels))
    return repeated.reshape(batch, factor * height, factor * width, channels)


class ConvTranspose(nn.Module):
    """Transposed convolution whose strides are its kernel's size, so that the kernels' places do not overlap.

    Each pixel becomes `factor` x `factor` pixels by one matrix product. The parameters and values are those of
    `flax.linen.ConvTranspose(features, (factor, factor), (factor, factor))`.
    """

    features: int
    factor: int = 2
    use_bias: bool = True

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Takes (batch, height, width, channels) and returns (batch, factor height, factor width, features)."""
        shape = (self.factor, self.factor, inputs.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        outputs = spread_pixels(inputs, kernel)
        if not self.use_bias:
            return outputs
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return outputs + bias.reshape(1, 1, 1, -1)


def spread_pixels(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed convolution of (batch, height, width, channels) with (f, f, channels, features) and strides (f, f).

    The values of `jax.lax.conv_transpose`, which turns kernels by half a turn.
    """
    batch, height, width, channels = inputs.shape
    factor, _, _, features = kernel.shape
    columns = kernel[::-1, ::-1].transpose(2, 0, 1, 3).reshape(channels, -1)
    pixels = (inputs.reshape(-1, channels) @ columns).reshape(batch, height, width, factor, factor, features)
    return pixels.transpose(0, 1, 3, 2, 4, 5).reshape(batch, factor * height, factor * width, features)
