"""The task whose targets are real numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.config.registry import Values
from jaxtrain.core.state import Task
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import DataError, Words
from jaxtrain.tasks.linen import LossFunction, ModelFunction, linen_task


def regression(
    model: ModelFunction, loss: LossFunction, info: DataInfo, metrics: tuple[str, ...] = ("mse", "r2")
) -> Task:
    """Predicts numbers; the loss gets standardised targets, metrics and predictions are in the targets' own units."""
    shape = info.target_shape
    if len(info.target_mean) != math.prod(shape):
        got = Words(f"'regression' for targets of shape {shape} an example")
        raise DataError("task.name", got, "a number or a row of numbers for each example")
    mean = np.asarray(info.target_mean, np.float32).reshape(1, *shape)
    std = np.asarray(info.target_std, np.float32).reshape(1, *shape)

    def standardised_loss(values: Values, predictions: jax.Array, targets: jax.Array) -> jax.Array:
        return loss(values, predictions, (targets - mean) / std)

    return linen_task(
        lambda values: model(values, math.prod(shape)),
        standardised_loss,
        metrics,
        shaped=lambda outputs: outputs.reshape(outputs.shape[0], *shape),
        # Targets are centred, so that sums of squares are accurate in float32 even for targets far from 0.
        measured=lambda predictions, targets: (predictions * std, targets - mean),
        in_units=lambda predictions: predictions * std + mean,
        prepared=lambda targets: targets.astype(jnp.float32),
    )
