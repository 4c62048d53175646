"""Normalises raw integer inputs inside the program, so that a byte of a picture takes a byte on the device."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxtrain.core.state import Batch
from jaxtrain.data.info import DataInfo


def normalise_inputs(inputs: Any, info: DataInfo) -> Any:
    """Returns raw integers (batch, ...) as float32 of mean 0 and deviation 1; floats are normalised already.

    The statistics are those of the training split, for each feature or for the last axis (`DataInfo`).
    """
    if not info.is_raw or jnp.issubdtype(inputs.dtype, jnp.floating):
        return inputs
    shape = (1,) * (inputs.ndim - 1) + (-1,)
    mean, std = (np.asarray(values, np.float32).reshape(shape) for values in (info.input_mean, info.input_std))
    return (jnp.asarray(inputs, jnp.float32) - mean) / std


def normalise_batch(batch: Batch, info: DataInfo) -> Batch:
    """Returns the batch with its inputs normalised."""
    return {**batch, "inputs": normalise_inputs(batch["inputs"], info)} if info.is_raw else batch
