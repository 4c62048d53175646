"""Weights as an export stores them: float32, bfloat16, or int8 with a scale for each output channel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from ml_dtypes import bfloat16

from jaxtrain.core.trees import named_leaves

Storage = Literal["float32", "bfloat16", "int8"]
"""The type in which weights with several axes are stored; biases, norms and statistics stay float32."""

LARGEST = 127
"""Largest integer of a weight: the range is symmetric, so that 0 is exact."""


@dataclass(frozen=True)
class Quantized:
    """Weights as integers times a scale for each output channel, the last axis: values int8, scale float32 (channels,).

    No pytree: it takes the place of a leaf.
    """

    values: np.ndarray
    scale: np.ndarray


def store_weights(tree: Any, storage: Storage) -> Any:
    """Returns a tree of arrays with `Quantized` or bfloat16 in the place of float32 weights of several axes."""
    return jax.tree.map(lambda leaf: _store(np.asarray(leaf), storage), tree)


def _store(leaf: np.ndarray, storage: Storage) -> np.ndarray | Quantized:
    if storage == "float32" or leaf.ndim < 2 or leaf.dtype != np.float32:
        return leaf
    return leaf.astype(bfloat16) if storage == "bfloat16" else quantize(leaf)


def quantize(weights: np.ndarray) -> Quantized:
    """Rounds weights (..., channels) to 255 levels, symmetric about 0, up to the largest of each channel."""
    largest = np.abs(weights).max(axis=tuple(range(weights.ndim - 1)))
    scale = np.where(largest > 0, largest, 1.0).astype(np.float32) / np.float32(LARGEST)
    values = np.clip(np.rint(weights / scale), -LARGEST, LARGEST).astype(np.int8)
    return Quantized(values, scale)


def restore_weight(leaf: Any) -> jax.Array:
    """Returns stored weights as float32, or other arrays as they are, inside a program."""
    if isinstance(leaf, Quantized):
        scale = jnp.asarray(leaf.scale).reshape(*(1,) * (leaf.values.ndim - 1), -1)
        return jnp.asarray(leaf.values).astype(jnp.float32) * scale
    array = jnp.asarray(leaf)
    return array.astype(jnp.float32) if array.dtype == jnp.bfloat16 else array


def plain_weights(tree: Any) -> Any:
    """Returns a stored tree as float32 arrays of NumPy."""
    return jax.tree.map(_plain, tree)


def _plain(leaf: Any) -> np.ndarray:
    if isinstance(leaf, Quantized):
        return leaf.values.astype(np.float32) * leaf.scale
    return leaf.astype(np.float32) if leaf.dtype == bfloat16 else leaf


def stored_arrays(tree: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of a stored tree by their paths; the scale of "params/Dense_0/kernel" is "..._scale"."""
    arrays: dict[str, np.ndarray] = {}
    for path, leaf in named_leaves(tree):
        if isinstance(leaf, Quantized):
            arrays |= {path: leaf.values, f"{path}_scale": leaf.scale}
        else:
            arrays[path] = leaf
    return arrays


def with_arrays(tree: Any, arrays: Mapping[str, Any]) -> Any:
    """Returns a stored tree with the arrays of these paths in the place of its own."""
    leaves = [_with_arrays(path, leaf, arrays) for path, leaf in named_leaves(tree)]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _with_arrays(path: str, leaf: Any, arrays: Mapping[str, Any]) -> Any:
    return Quantized(arrays[path], arrays[f"{path}_scale"]) if isinstance(leaf, Quantized) else arrays[path]
