"""Layers that take traced floats, and convolution and pooling that are fast inside a compiled loop.

XLA's convolution and pooling for CPU run ten times slower and more inside `scan` or `while` than outside. There, a
convolution is gathered patches and one matrix product, and pooling is a reshape and a reduction; on GPU and TPU both
are the native operations. The numbers are the same.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

Padding = Literal["SAME", "VALID"]
Pair = tuple[int, int]

MANY_CHANNELS = 32  # in a row of the kernel, from which on a product for each row is faster than one for all

_batch_axis: contextvars.ContextVar[str | None] = contextvars.ContextVar("batch_axis", default=None)


@contextlib.contextmanager
def batch_axis(name: str) -> Iterator[None]:
    """Makes batch norms that are traced inside take their statistics over the whole batch of a mapped axis.

    Under `pmap` a model sees its own device's share alone, and how it is mapped is not the model's business.
    """
    token = _batch_axis.set(name)
    try:
        yield
    finally:
        _batch_axis.reset(token)


def batch_norm(inputs: jax.Array, train: bool, momentum: float = 0.9, epsilon: float = 1e-5) -> jax.Array:
    """Batch norm over all but the last axis; call it inside a module's `__call__`.

    Running statistics are kept in `model_state` as `batch_stats` and used where `train` is false. Ioffe and Szegedy
    (2015), https://arxiv.org/abs/1502.03167.
    """
    norm = nn.BatchNorm(not train, axis_name=_batch_axis.get(), momentum=momentum, epsilon=epsilon)
    return norm(inputs)


def layer_norm(inputs: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """Layer norm over the last axis. Ba et al. (2016), https://arxiv.org/abs/1607.06450."""
    return nn.LayerNorm(epsilon=epsilon)(inputs)


def normalise(inputs: jax.Array, norm: Literal["batch", "layer"] | None, train: bool) -> jax.Array:
    """Applies the norm that is named; None leaves it out."""
    if norm is None:
        return inputs
    return batch_norm(inputs, train) if norm == "batch" else layer_norm(inputs)


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
        keep = 1.0 - jnp.asarray(self.rate, inputs.dtype)
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, inputs.shape)
        # A product with the reciprocal, since XLA makes one of a quotient in some programs and not in others, and a
        # run should be the same to the bit alone and as a lane.
        return jnp.where(kept, inputs * (1.0 / keep), jnp.zeros_like(inputs))


class Conv(nn.Module):
    """Two-dimensional convolution of (batch, height, width, channels); parameters as those of `flax.linen.Conv`."""

    features: int
    kernel_size: Pair = (3, 3)
    strides: Pair = (1, 1)
    padding: Padding = "SAME"
    use_bias: bool = True

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Returns (batch, height', width', features)."""
        shape = (*self.kernel_size, inputs.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        outputs = convolve(inputs, kernel, self.strides, self.padding)
        if not self.use_bias:
            return outputs
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return outputs + bias.reshape(1, 1, 1, -1)


def convolve(inputs: jax.Array, kernel: jax.Array, strides: Pair = (1, 1), padding: Padding = "SAME") -> jax.Array:
    """Convolves (batch, height, width, channels) with (height, width, channels, features), as the backend likes it."""
    form = _convolve_patches if _on_cpu() else _convolve_native
    return form(inputs, kernel, strides, padding)


def max_pool(
    inputs: jax.Array, window: Pair = (2, 2), strides: Pair | None = None, padding: Padding = "VALID"
) -> jax.Array:
    """Largest value of each window of (batch, height, width, channels); `strides` default to the window."""
    strides = strides or window
    if _on_cpu():
        return _pool_windows(inputs, window, strides, padding, -jnp.inf, jnp.max)
    return nn.max_pool(inputs, window, strides, padding)


def average_pool(
    inputs: jax.Array, window: Pair = (2, 2), strides: Pair | None = None, padding: Padding = "VALID"
) -> jax.Array:
    """Mean of each window of (batch, height, width, channels); padding counts as zeros, as in `flax.linen.avg_pool`."""
    strides = strides or window
    if _on_cpu():
        return _pool_windows(inputs, window, strides, padding, 0.0, jnp.mean)
    return nn.pool(inputs, 0.0, jax.lax.add, window, strides, padding) / (window[0] * window[1])


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _convolve_native(inputs: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(inputs, kernel, strides, padding, dimension_numbers=layout)


def _convolve_patches(inputs: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """Lays the inputs under each place of the kernel side by side, and takes a matrix product.

    With many channels, those under one row of the kernel alone, and a product for each row, added up: a third of the
    memory for a 3x3 kernel. Products of two axes: XLA for CPU is slower with more.
    """
    height, width, channels, features = kernel.shape
    if width * channels < MANY_CHANNELS:
        parts = [jnp.concatenate(_window_views(inputs, (height, width), strides, padding, 0.0), axis=-1)]
    else:
        padded = _pad(inputs, (height, width), strides, padding, 0.0)
        beside = jnp.concatenate(_window_views(padded, (1, width), (1, strides[1]), "VALID", 0.0), axis=-1)
        parts = _window_views(beside, (height, 1), (strides[0], 1), "VALID", 0.0)
    rows = kernel.reshape(len(parts), -1, features)
    outputs = [part.reshape(-1, part.shape[-1]) @ row for part, row in zip(parts, rows, strict=True)]
    return functools.reduce(jnp.add, outputs).reshape(*parts[0].shape[:3], features)


def _pool_windows(
    inputs: jax.Array, window: Pair, strides: Pair, padding: Padding, fill: float, reduce: Callable[..., jax.Array]
) -> jax.Array:
    """Pools by a reshape where windows do not overlap, else over shifted views."""
    if window != strides:
        return reduce(jnp.stack(_window_views(inputs, window, strides, padding, fill)), axis=0)
    padded = _pad(inputs, window, strides, padding, fill)
    batch, height, width, channels = padded.shape
    rows, columns = height // window[0], width // window[1]
    padded = padded[:, : rows * window[0], : columns * window[1]]
    return reduce(padded.reshape(batch, rows, window[0], columns, window[1], channels), axis=(2, 4))


def _window_views(inputs: jax.Array, window: Pair, strides: Pair, padding: Padding, fill: float) -> list[jax.Array]:
    """Returns, for each place of the window, the inputs that lie under it at every output position."""
    padded = _pad(inputs, window, strides, padding, fill)
    rows, columns = ((padded.shape[i + 1] - window[i]) // strides[i] + 1 for i in (0, 1))
    row_end, column_end = (rows - 1) * strides[0] + 1, (columns - 1) * strides[1] + 1
    return [
        padded[:, i : i + row_end : strides[0], j : j + column_end : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]


def _pad(inputs: jax.Array, window: Pair, strides: Pair, padding: Padding, fill: float) -> jax.Array:
    """Pads height and width as XLA does for "SAME" or "VALID"."""
    sizes = jax.lax.padtype_to_pads(inputs.shape[1:3], window, strides, padding)
    if not any(before or after for before, after in sizes):
        return inputs
    return jnp.pad(inputs, ((0, 0), *sizes, (0, 0)), constant_values=fill)
