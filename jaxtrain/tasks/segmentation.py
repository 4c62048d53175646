"""The task whose targets are masks."""

import math

from jaxtrain.core.state import Task
from jaxtrain.data.info import DataInfo
from jaxtrain.tasks.linen import LossFunction, ModelFunction, linen_task


def segmentation(
    model: ModelFunction, loss: LossFunction, info: DataInfo, metrics: tuple[str, ...] = ("dice",)
) -> Task:
    """Tells the regions of an image apart: a foreground, targets masks of 0 and 1, or classes, targets labels from 0.

    The model gives a logit for each pixel, or, where the data state more than two classes, one for each class.
    """
    classes = info.classes or 2
    axes = (classes,) if classes > 2 else ()
    return linen_task(
        lambda values: model(values, math.prod(axes)),
        loss,
        metrics,
        shaped=lambda outputs: outputs.reshape(outputs.shape[0], *info.target_shape, *axes),
    )
