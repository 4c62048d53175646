"""Convolution and pooling that are fast inside a compiled loop.

XLA's convolution and pooling on CPU are at least ten times slower inside `scan` or `while` than outside. So in a
program for a CPU a convolution gathers patches and takes one matrix product, and pooling is a reshape and a reduction;
on GPU and TPU, and outside of loops, both are the native operations (`models/platform.py`). The results are the same.
Under `vmap` over weights, the CPU form stays one batched product.
"""

import functools
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.errors import DataError, Words, message
from jaxtrain.models.platform import in_loop_on_cpu

Pair = tuple[int, int]
Pads = Sequence[Pair]
Padding = Literal["SAME", "VALID"] | tuple[Pair, Pair]
"""As of XLA, or the pixels added (above, below) and (left, right)."""

UINT8_PLACES = 256  # places of a window that a uint8 index can tell apart
MIN_ROW_CHANNELS = 32  # values in a row of the kernel from which patches of one row are faster than whole patches


class Conv(nn.Module):
    """Two-dimensional convolution of (batch, height, width, channels), with the parameters of `flax.linen.Conv`.

    `dilation` is the distance between the places of the kernel. Each of `groups` maps its share of the channels to its
    share of the features; with as many groups as channels the convolution is depthwise.
    """

    features: int
    kernel_size: Pair = (3, 3)
    strides: Pair = (1, 1)
    padding: Padding = "SAME"
    use_bias: bool = True
    dilation: Pair = (1, 1)
    groups: int = 1
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Returns (batch, height', width', features)."""
        shape = (*self.kernel_size, inputs.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        outputs = convolve(inputs, kernel, self.strides, self.padding, self.dilation, self.groups)
        if not self.use_bias:
            return outputs
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return outputs + bias.reshape(1, 1, 1, -1)


def convolve(
    inputs: jax.Array,
    kernel: jax.Array,
    strides: Pair = (1, 1),
    padding: Padding = "SAME",
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> jax.Array:
    """Convolves (batch, height, width, channels) with (height, width, channels / groups, features)."""
    if inputs.ndim != 4:
        got = Words(f"a convolution of inputs of shape {inputs.shape[1:]}")
        hint = "Take a model without convolutions, such as mlp"
        raise DataError("model.name", got, "images of shape (height, width, channels)", hint)
    channels = inputs.shape[-1]
    features = kernel.shape[-1]
    if channels != groups * kernel.shape[2] or features % groups:
        expected = f"a number that divides {channels} channels and {features} features and fits the kernel"
        raise ValueError(message("groups", groups, expected))
    pads = _pads(inputs, kernel.shape, strides, padding, dilation)

    def as_products(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        if groups > 1:
            return _convolve_groups(inputs, kernel, strides, pads, dilation, groups)
        if kernel.shape[0] > 1 and strides[0] == 1 and kernel.shape[1] * channels >= MIN_ROW_CHANNELS:
            return _convolve_rows(inputs, kernel, strides[1], pads, dilation)
        return _convolve_patches(inputs, kernel, strides, pads, dilation)

    def native(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        layout = ("NHWC", "HWIO", "NHWC")
        options = {"rhs_dilation": dilation, "dimension_numbers": layout, "feature_group_count": groups}
        return jax.lax.conv_general_dilated(inputs, kernel, strides, pads, **options)

    return in_loop_on_cpu(as_products, native, inputs, kernel)


def max_pool(
    inputs: jax.Array, window: Pair = (2, 2), strides: Pair | None = None, padding: Padding = "VALID"
) -> jax.Array:
    """Maximum of each window of (batch, height, width, channels); `strides` defaults to the window."""
    strides = strides or window
    pads = _pads(inputs, window, strides, padding)
    if padding == "VALID" and (inputs.shape[1] < window[0] or inputs.shape[2] < window[1]):
        got = Words(f"images of {inputs.shape[1]} x {inputs.shape[2]} pixels")
        hint = "Take larger images, or a model that pools less often"
        raise DataError("model", got, f"at least {window[0]} x {window[1]}, the window that is pooled", hint)

    def by_views(inputs: jax.Array) -> jax.Array:
        if window != strides:
            return functools.reduce(_first_maximum, _window_views(inputs, window, strides, pads, -jnp.inf))
        windows = _split_windows(inputs, window, pads, -jnp.inf)
        return _window_max(windows) if window[0] * window[1] <= UINT8_PLACES else _large_window_max(windows)

    return in_loop_on_cpu(
        by_views, lambda inputs: nn.pool(inputs, -jnp.inf, jax.lax.max, window, strides, pads), inputs
    )


def average_pool(
    inputs: jax.Array, window: Pair = (2, 2), strides: Pair | None = None, padding: Padding = "VALID"
) -> jax.Array:
    """Mean of each window of (batch, height, width, channels); padding counts as zeros, as in `flax.linen.avg_pool`."""
    strides = strides or window
    pads = _pads(inputs, window, strides, padding)

    def by_views(inputs: jax.Array) -> jax.Array:
        if window == strides:
            return _split_windows(inputs, window, pads, 0.0).mean(axis=(2, 4))
        return jnp.stack(_window_views(inputs, window, strides, pads, 0.0)).mean(axis=0)

    def native(inputs: jax.Array) -> jax.Array:
        return nn.pool(inputs, 0.0, jax.lax.add, window, strides, pads) / (window[0] * window[1])

    return in_loop_on_cpu(by_views, native, inputs)


# Convolutions on CPU, as products of matrices with two axes: XLA is slower with more axes.


def _convolve_patches(inputs: jax.Array, kernel: jax.Array, strides: Pair, pads: Pads, dilation: Pair) -> jax.Array:
    """Concatenates the inputs under each place of the kernel into patches, and takes one matrix product."""
    height, width, _, features = kernel.shape
    patches = jnp.concatenate(_window_views(inputs, (height, width), strides, pads, 0.0, dilation), axis=-1)
    outputs = patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, features)
    return outputs.reshape(*patches.shape[:3], features)


def _convolve_rows(inputs: jax.Array, kernel: jax.Array, stride: int, pads: Pads, dilation: Pair) -> jax.Array:
    """Multiplies patches of one row with all rows of the kernel at once, then shifts and adds the rows' products.

    For a 3x3 kernel the patches take a third of the memory, and the product has three times the columns, which is
    faster.
    """
    height, width, channels, features = kernel.shape
    rows_as_features = kernel.transpose(1, 2, 0, 3).reshape(1, width, channels, height * features)
    products = _convolve_patches(inputs, rows_as_features, (1, stride), ((0, 0), pads[1]), (1, dilation[1]))
    above, below = pads[0]
    reach = dilation[0] * (height - 1)
    zero = jnp.zeros((), products.dtype)
    offsets = range(0, reach + 1, dilation[0])
    shifted = [
        # Negative padding crops.
        jax.lax.pad(part, zero, ((0, 0, 0), (above - offset, below - reach + offset, 0), (0, 0, 0), (0, 0, 0)))
        for offset, part in zip(offsets, jnp.split(products, height, axis=-1), strict=True)
    ]
    return functools.reduce(jnp.add, shifted)


def _convolve_groups(
    inputs: jax.Array, kernel: jax.Array, strides: Pair, pads: Pads, dilation: Pair, groups: int
) -> jax.Array:
    """Takes one product per group; for groups of one channel, scales the view of each place and adds the views."""
    height, width, channels, features = kernel.shape
    views = _window_views(inputs, (height, width), strides, pads, 0.0, dilation)
    if channels == 1:
        scales = kernel.reshape(height * width, 1, 1, 1, groups, features // groups)
        scaled = [view[..., None] * scale for view, scale in zip(views, scales, strict=True)]
        return functools.reduce(jnp.add, scaled).reshape(*views[0].shape[:3], features)
    patches = jnp.stack([view.reshape(-1, groups, channels) for view in views])
    rows = kernel.reshape(height * width, channels, groups, features // groups)
    outputs = jnp.einsum("pngc,pcgf->ngf", patches, rows)
    return outputs.reshape(*views[0].shape[:3], features)


def _first_maximum(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the elementwise maximum, or nan; of equal values the first alone gets the gradient."""
    return jnp.where((second > first) | jnp.isnan(second), second, first)


def _large_window_max(windows: jax.Array) -> jax.Array:
    """Like `_window_max`, for windows with more places than a uint8 index can tell apart."""
    batch, rows, _, columns, _, channels = windows.shape
    values = jnp.moveaxis(windows, (2, 4), (-2, -1)).reshape(batch, rows, columns, channels, -1)
    return jnp.take_along_axis(values, values.argmax(axis=-1, keepdims=True), axis=-1)[..., 0]


@jax.custom_jvp
def _window_max(windows: jax.Array) -> jax.Array:
    """Reduces (batch, rows, height, columns, width, channels) to the maximum of each window."""
    return windows.max(axis=(2, 4))


@_window_max.defjvp
def _window_max_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Returns the maxima and the tangents of the first maximum of each window.

    The place of the maximum is stored as uint8, so that the backward pass need not compare values again.
    """
    (windows,) = primals
    (windows_tangent,) = tangents
    _, _, height, _, width, _ = windows.shape
    largest = windows[:, :, 0, :, 0]
    first = jnp.zeros(largest.shape, jnp.uint8)
    for place in range(1, height * width):
        value = windows[:, :, place // width, :, place % width]
        first = jnp.where(value > largest, jnp.uint8(place), first)
        largest = jnp.maximum(largest, value)
    places = jnp.arange(height * width, dtype=jnp.uint8).reshape(1, 1, height, 1, width, 1)
    return largest, jnp.where(first[:, :, None, :, None] == places, windows_tangent, 0.0).sum(axis=(2, 4))


def _split_windows(inputs: jax.Array, window: Pair, pads: Pads, fill: float) -> jax.Array:
    """Splits into adjacent windows: (batch, rows, height, columns, width, channels)."""
    padded = _pad(inputs, pads, fill)
    batch, height, width, channels = padded.shape
    rows = height // window[0]
    columns = width // window[1]
    padded = padded[:, : rows * window[0], : columns * window[1]]
    return padded.reshape(batch, rows, window[0], columns, window[1], channels)


def _window_views(
    inputs: jax.Array, window: Pair, strides: Pair, pads: Pads, fill: float, dilation: Pair = (1, 1)
) -> list[jax.Array]:
    """Returns, for each place of the window, the inputs under it at every output position."""
    padded = _pad(inputs, pads, fill)
    reach = [dilation[i] * (window[i] - 1) for i in (0, 1)]
    # One past the start of the last window.
    row_end, column_end = ((padded.shape[i + 1] - reach[i] - 1) // strides[i] * strides[i] + 1 for i in (0, 1))
    return [
        padded[:, i : i + row_end : strides[0], j : j + column_end : strides[1]]
        for i in range(0, reach[0] + 1, dilation[0])
        for j in range(0, reach[1] + 1, dilation[1])
    ]


def _pads(inputs: jax.Array, window: Sequence[int], strides: Pair, padding: Padding, dilation: Pair = (1, 1)) -> Pads:
    """Returns the padding (above, below) and (left, right); that of XLA for "SAME" or "VALID"."""
    if not isinstance(padding, str):
        return padding
    spans = [dilation[i] * (window[i] - 1) + 1 for i in (0, 1)]
    return jax.lax.padtype_to_pads(inputs.shape[1:3], spans, strides, padding)


def _pad(inputs: jax.Array, pads: Pads, fill: float) -> jax.Array:
    """Pads height and width."""
    if not any(before or after for before, after in pads):
        return inputs
    return jnp.pad(inputs, ((0, 0), *pads, (0, 0)), constant_values=fill)
