"""The task whose targets are real numbers."""

import math

import jax
import numpy as np

from jaxtrain.core.floats import as_floats
from jaxtrain.core.state import Task
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import DataError, Words
from jaxtrain.tasks.linen import LossFunction, ModelFunction, linen_task
from jaxtrain.tasks.shapes import reshape_outputs
from jaxtrain.tasks.show.numbers import views_of_numbers


def regression(
    model: ModelFunction, loss: LossFunction, info: DataInfo, metrics: tuple[str, ...] = ("mse", "r2")
) -> Task:
    """Predicts numbers; the loss gets standardised targets, metrics and predictions are in the targets' own units.

    Targets are standardised in float64 before they are placed on the devices, and `Run.predict` brings predictions back
    in float64, so targets may lie as far from 0 as float64 holds them.
    """
    shape = info.target_shape
    if len(info.target_mean) != math.prod(shape):
        got = Words(f"'regression' for targets of shape {shape} an example")
        raise DataError("task.name", got, "a number or a row of numbers for each example")
    mean, std = (np.asarray(values).reshape(1, *shape) for values in (info.target_mean, info.target_std))
    if not info.standardised:
        _check_resolution(mean, std)
    own_mean = mean.astype(info.floats)
    own_std = std.astype(info.floats)

    def standardise(targets: jax.Array) -> jax.Array:
        targets = as_floats(targets)
        return targets if info.standardised else (targets - own_mean) / own_std

    task = linen_task(
        lambda values: model(values, math.prod(shape)),
        loss,
        metrics,
        shaped=lambda outputs: reshape_outputs(outputs, shape, model),
        prepared=standardise,
        # In units of the targets, but about the training mean: float32 would round sums of squares far from 0.
        measured=lambda predictions, targets: (predictions * own_std, targets * own_std),
        in_units=lambda predictions: predictions if info.standardised else predictions * own_std + own_mean,
    )
    return task._replace(**views_of_numbers(info)._asdict())


FARTHEST = 1e5
"""The distance from 0, in standard deviations, up to which float32 targets are taken; they are then off by 0.01."""


def _check_resolution(mean: np.ndarray, std: np.ndarray) -> None:
    """Raises DataError for targets that were rounded to float32 far from 0, which a wrapped `regression` gets."""
    farthest = np.argmax(np.abs(mean) / std)
    if abs(mean.flat[farthest]) > FARTHEST * std.flat[farthest]:
        got = Words(f"targets of mean {mean.flat[farthest]:.9g} and deviation {std.flat[farthest]:.3g} in float32")
        expected = f"a mean within {FARTHEST:.0e} deviations from 0 in a task that wraps 'regression'"
        raise DataError("task.name", got, expected, "Subtract the mean in the data source, in float64")
