"""Norms: batch, layer, group and root mean square, by their names in a table."""

from collections.abc import Callable, Mapping
from typing import Literal

import flax.linen as nn
import jax

from jaxtrain.core.batch_axis import mapped_batch_axis

Norm = Literal["batch", "layer", "group", "rms"]

GROUPS, CHANNELS_OF_A_GROUP = 32, 4  # a norm over fewer channels would take out most of what they say


def normalise(inputs: jax.Array, norm: Norm | None, train: bool) -> jax.Array:
    """Applies the norm that is named, inside a module's `__call__`; None leaves it out."""
    return inputs if norm is None else NORMS[norm](inputs, train)


def batch_norm(inputs: jax.Array, train: bool, momentum: float = 0.9, epsilon: float = 1e-5) -> jax.Array:
    """Batch norm over all but the last axis; call it inside a module's `__call__`.

    Running statistics are kept in `model_state` as `batch_stats` and used where `train` is false. Ioffe and Szegedy
    (2015), https://arxiv.org/abs/1502.03167.
    """
    norm = nn.BatchNorm(not train, axis_name=mapped_batch_axis(), momentum=momentum, epsilon=epsilon)
    return norm(inputs)


def layer_norm(inputs: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """Layer norm over the last axis. Ba et al. (2016), https://arxiv.org/abs/1607.06450."""
    return nn.LayerNorm(epsilon=epsilon)(inputs)


def group_norm(inputs: jax.Array, groups: int = GROUPS, epsilon: float = 1e-6) -> jax.Array:
    """Group norm over all axes but the first and, in the last, over each group of channels.

    There are at most `groups`, fewer where they would be of unequal size or of less than four channels. Wu and He
    (2018), https://arxiv.org/abs/1803.08494.
    """
    channels = inputs.shape[-1]
    most = max(1, min(groups, channels // CHANNELS_OF_A_GROUP))
    fitting = max(count for count in range(1, most + 1) if channels % count == 0)
    return nn.GroupNorm(fitting, epsilon=epsilon)(inputs)


def rms_norm(inputs: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """Division by the root mean square over the last axis, and a scale. Zhang and Sennrich (2019), https://arxiv.org/abs/1910.07467."""
    return nn.RMSNorm(epsilon=epsilon)(inputs)


NORMS: Mapping[Norm, Callable[[jax.Array, bool], jax.Array]] = {
    "batch": batch_norm,
    "layer": lambda inputs, train: layer_norm(inputs),
    "group": lambda inputs, train: group_norm(inputs),
    "rms": lambda inputs, train: rms_norm(inputs),
}
