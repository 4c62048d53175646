"""Prepares batches inside the program: raw integers are normalised, rows of a table taken apart, boxes marked."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.floats import as_floats
from jaxtrain.core.state import Batch
from jaxtrain.data.info import DataInfo
from jaxtrain.data.table_encoding import Layout
from jaxtrain.tasks.boxes import Boxes


def normalise_inputs(inputs: Any, info: DataInfo) -> Any:
    """Returns raw integers (batch, ...) as float32 of mean 0 and deviation 1; floats are normalised already.

    The statistics are those of the training split, for each feature or for the last axis, or each example's own
    (`DataInfo`), so that a byte of a picture takes a byte on the device. Rows for a model that takes categories are
    taken apart.
    """
    values = _normalise(inputs, info)
    values = normalise_each(values) if info.per_example else values
    return values if info.layout is None else _take_apart(values, info.layout)


def normalise_batch(batch: Batch, info: DataInfo) -> Batch:
    """Returns the batch with its inputs normalised, and targets that are boxes marked as such."""
    targets = {} if info.box_classes is None else {"targets": Boxes(as_floats(batch["targets"]))}
    return {**batch, **targets, "inputs": normalise_inputs(batch["inputs"], info)}


def _normalise(inputs: Any, info: DataInfo) -> Any:
    if not info.is_raw or jnp.issubdtype(inputs.dtype, jnp.floating):
        return inputs
    shape = (1,) * (inputs.ndim - 1) + (-1,)
    mean, std = (np.asarray(values, np.float32).reshape(shape) for values in (info.input_mean, info.input_std))
    return (jnp.asarray(inputs, jnp.float32) - mean) / std


CONSTANT = 1e-6
"""The deviation, of inputs normalised over the training split, up to which an example is one value but for rounding."""


def normalise_each(inputs: jax.Array) -> jax.Array:
    """Brings each example (batch, ..., channels) to mean 0 and deviation 1 in each channel; a constant one is 0."""
    axes = tuple(range(1, inputs.ndim - 1))
    centred = inputs - inputs.mean(axis=axes, keepdims=True)
    deviation = jnp.sqrt(jnp.square(centred).mean(axis=axes, keepdims=True))
    return centred / jnp.where(deviation > CONSTANT, deviation, 1.0)


def _take_apart(rows: Any, layout: Layout) -> dict[str, Any]:
    """Returns {"numbers" and "flags": float32, "codes": int32}, each (batch, columns of the kind)."""
    numbers, flags, codes = (rows[:, np.asarray(p, np.int32)] for p in (layout.numbers, layout.flags, layout.codes))
    return {"numbers": numbers, "flags": flags, "codes": codes.astype(jnp.int32)}
