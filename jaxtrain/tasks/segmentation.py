"""The task whose targets are segmentation masks."""

import math

from jaxtrain.core.state import Task
from jaxtrain.data.info import DataInfo
from jaxtrain.tasks.linen import LossFunction, ModelFunction, linen_task
from jaxtrain.tasks.shapes import reshape_outputs


def segmentation(
    model: ModelFunction, loss: LossFunction, info: DataInfo, metrics: tuple[str, ...] = ("dice",)
) -> Task:
    """Segments images into foreground and background (targets are masks of 0 and 1) or into classes (labels from 0).

    The model returns one logit per pixel, or one per pixel and class if the data have more than two classes.
    """
    classes = info.classes or 2
    axes = (classes,) if classes > 2 else ()
    return linen_task(
        lambda values: model(values, math.prod(axes)),
        loss,
        metrics,
        shaped=lambda outputs: reshape_outputs(outputs, (*info.target_shape, *axes), model),
    )
