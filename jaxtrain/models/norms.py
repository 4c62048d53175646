"""Norms (batch, layer, group, root mean square) and the table of their names.

A norm that subtracts the mean is refused over one number, which is its own mean: only the bias would be left.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import flax.linen as nn
import jax
from flax.linen.initializers import Initializer
from jax import lax

from jaxtrain.core.batch_axis import mapped_batch_axis
from jaxtrain.errors import ConfigError, Words

Norm = Literal["batch", "layer", "group", "rms"]

ONES = nn.initializers.ones
"""Initial value of the scale of a norm."""

GROUPS = 32
MIN_GROUP_CHANNELS = 4  # a norm over fewer channels would remove most of their information


def normalise(inputs: jax.Array, norm: Norm | None, train: bool, scale_init: Initializer = ONES) -> jax.Array:
    """Applies the named norm; call it inside a module's `__call__`. None returns the inputs unchanged."""
    return inputs if norm is None else NORMS[norm](inputs, train, scale_init)


def batch_norm(
    inputs: jax.Array, train: bool, momentum: float = 0.9, epsilon: float = 1e-5, scale_init: Initializer = ONES
) -> jax.Array:
    """Batch norm over all but the last axis; call it inside a module's `__call__`.

    Running statistics are kept in `model_state` as `batch_stats` and used if `train` is false. Ioffe and Szegedy
    (2015), https://arxiv.org/abs/1502.03167.

    Raises ConfigError for a batch of one number in each channel, which is its own mean.
    """
    axis = mapped_batch_axis()
    devices = lax.axis_size(axis) if axis else 1
    if train and inputs.size == inputs.shape[-1] and devices == 1:
        got = Words("one example in each micro-batch under batch norm")
        expected = "at least 2, since one is its own mean and nothing would be left of it"
        raise ConfigError("data.batch_size", got, expected, "Raise data.batch_size, or take another norm")
    norm = nn.BatchNorm(not train, axis_name=axis, momentum=momentum, epsilon=epsilon, scale_init=scale_init)
    return norm(inputs)


def layer_norm(inputs: jax.Array, epsilon: float = 1e-6, scale_init: Initializer = ONES) -> jax.Array:
    """Layer norm over the last axis. Ba et al. (2016), https://arxiv.org/abs/1607.06450.

    Raises ConfigError for one channel, which is its own mean.
    """
    _demand_several("layer", inputs.shape[-1])
    return nn.LayerNorm(epsilon=epsilon, scale_init=scale_init)(inputs)


def group_norm(
    inputs: jax.Array, groups: int = GROUPS, epsilon: float = 1e-6, scale_init: Initializer = ONES
) -> jax.Array:
    """Group norm: over the spatial axes and, in the last axis, over each group of channels.

    The number of groups is the largest up to `groups` that divides the channels into groups of at least four. Wu and
    He (2018), https://arxiv.org/abs/1803.08494. Raises ConfigError for a group of one number, which is its own mean.
    """
    channels = inputs.shape[-1]
    limit = max(1, min(groups, channels // MIN_GROUP_CHANNELS))
    count = max(count for count in range(1, limit + 1) if channels % count == 0)
    _demand_several("group", math.prod(inputs.shape[1:]) // count)
    return nn.GroupNorm(count, epsilon=epsilon, scale_init=scale_init)(inputs)


def rms_norm(inputs: jax.Array, epsilon: float = 1e-6, scale_init: Initializer = ONES) -> jax.Array:
    """Divides by the root mean square over the last axis, then scales. Zhang and Sennrich (2019), https://arxiv.org/abs/1910.07467."""
    return nn.RMSNorm(epsilon=epsilon, scale_init=scale_init)(inputs)


def _demand_several(norm: str, numbers: int) -> None:
    """Raises ConfigError for a norm over one number."""
    if numbers == 1:
        got = Words(f"{norm!r} over one number")
        expected = "at least 2, since one is its own mean and nothing would be left of it"
        raise ConfigError("model.norm", got, expected, "Widen the layer, or leave the norm out")


NORMS: Mapping[Norm, Callable[[jax.Array, bool, Initializer], jax.Array]] = {
    "batch": lambda inputs, train, scale_init: batch_norm(inputs, train, scale_init=scale_init),
    "layer": lambda inputs, train, scale_init: layer_norm(inputs, scale_init=scale_init),
    "group": lambda inputs, train, scale_init: group_norm(inputs, scale_init=scale_init),
    "rms": lambda inputs, train, scale_init: rms_norm(inputs, scale_init=scale_init),
}
