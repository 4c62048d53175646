"""Normalises inputs inside the program: raw integers, so that a byte of a picture takes a byte on the device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.state import Batch
from jaxtrain.data.info import DataInfo


def normalise_inputs(inputs: Any, info: DataInfo) -> Any:
    """Returns raw integers (batch, ...) as float32 of mean 0 and deviation 1; floats are normalised already.

    The statistics are those of the training split, for each feature or for the last axis, or each example's own
    (`DataInfo`).
    """
    if info.is_raw and not jnp.issubdtype(inputs.dtype, jnp.floating):
        shape = (1,) * (inputs.ndim - 1) + (-1,)
        mean, std = (np.asarray(values, np.float32).reshape(shape) for values in (info.input_mean, info.input_std))
        inputs = (jnp.asarray(inputs, jnp.float32) - mean) / std
    return normalise_each(inputs) if info.per_example else inputs


def normalise_each(inputs: jax.Array) -> jax.Array:
    """Brings each example (batch, ..., channels) to mean 0 and deviation 1 in each channel; a constant one is 0."""
    axes = tuple(range(1, inputs.ndim - 1))
    centred = inputs - inputs.mean(axis=axes, keepdims=True)
    deviation = jnp.sqrt(jnp.square(centred).mean(axis=axes, keepdims=True))
    return centred / jnp.where(deviation > CONSTANT, deviation, 1.0)


CONSTANT = 1e-6
"""The deviation, of inputs normalised over the training split, up to which an example is one value but for rounding."""


def normalise_batch(batch: Batch, info: DataInfo) -> Batch:
    """Returns the batch with its inputs normalised."""
    is_plain = not info.is_raw and not info.per_example
    return batch if is_plain else {**batch, "inputs": normalise_inputs(batch["inputs"], info)}
