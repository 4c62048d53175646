"""Norms (batch, layer, group, root mean square) and the table of their names."""

from collections.abc import Callable, Mapping
from typing import Literal

import flax.linen as nn
import jax

from jaxtrain.core.batch_axis import mapped_batch_axis

Norm = Literal["batch", "layer", "group", "rms"]

GROUPS = 32
MIN_GROUP_CHANNELS = 4  # a norm over fewer channels would remove most of their information


def normalise(inputs: jax.Array, norm: Norm | None, train: bool) -> jax.Array:
    """Applies the named norm; call it inside a module's `__call__`. None returns the inputs unchanged."""
    return inputs if norm is None else NORMS[norm](inputs, train)


def batch_norm(inputs: jax.Array, train: bool, momentum: float = 0.9, epsilon: float = 1e-5) -> jax.Array:
    """Batch norm over all but the last axis; call it inside a module's `__call__`.

    Running statistics are kept in `model_state` as `batch_stats` and used if `train` is false. Ioffe and Szegedy
    (2015), https://arxiv.org/abs/1502.03167.
    """
    norm = nn.BatchNorm(not train, axis_name=mapped_batch_axis(), momentum=momentum, epsilon=epsilon)
    return norm(inputs)


def layer_norm(inputs: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """Layer norm over the last axis. Ba et al. (2016), https://arxiv.org/abs/1607.06450."""
    return nn.LayerNorm(epsilon=epsilon)(inputs)


def group_norm(inputs: jax.Array, groups: int = GROUPS, epsilon: float = 1e-6) -> jax.Array:
    """Group norm: over the spatial axes and, in the last axis, over each group of channels.

    The number of groups is the largest up to `groups` that divides the channels into groups of at least four. Wu and
    He (2018), https://arxiv.org/abs/1803.08494.
    """
    channels = inputs.shape[-1]
    limit = max(1, min(groups, channels // MIN_GROUP_CHANNELS))
    count = max(count for count in range(1, limit + 1) if channels % count == 0)
    return nn.GroupNorm(count, epsilon=epsilon)(inputs)


def rms_norm(inputs: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """Divides by the root mean square over the last axis, then scales. Zhang and Sennrich (2019), https://arxiv.org/abs/1910.07467."""
    return nn.RMSNorm(epsilon=epsilon)(inputs)


NORMS: Mapping[Norm, Callable[[jax.Array, bool], jax.Array]] = {
    "batch": batch_norm,
    "layer": lambda inputs, train: layer_norm(inputs),
    "group": lambda inputs, train: group_norm(inputs),
    "rms": lambda inputs, train: rms_norm(inputs),
}
