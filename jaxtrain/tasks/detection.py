"""The task whose targets are boxes."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.config.schema import Count, Fraction
from jaxtrain.core.state import Task
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import ConfigError, DataError, Words
from jaxtrain.tasks.boxes import Boxes, detect
from jaxtrain.tasks.linen import LossFunction, ModelFunction, linen_task
from jaxtrain.tasks.metrics import METRICS, OF_BOXES
from jaxtrain.tasks.shapes import describe, name_of
from jaxtrain.tasks.show.detections import views_of_boxes


def detection(
    model: ModelFunction,
    loss: LossFunction,
    info: DataInfo,
    candidates: Count = 256,
    overlap: Fraction = 0.5,
    metrics: tuple[str, ...] = ("mean_average_precision_50",),
) -> Task:
    """Detects objects on one scale: the model returns 4 + classes numbers for each cell of a grid over the picture.

    Predictions are (candidates, 4 + classes) for each picture: y, x, height and width of boxes in pixels, y and x of
    the top left corner, and a score from 0 to 1 for each class. The `candidates` are the cells with the highest scores.
    A score is 0 where a better box of its class overlaps by an IoU above `overlap`. Take `focal_giou` as loss.
    """
    if info.box_classes is None:
        got = Words(f"'detection' for targets of shape {info.target_shape} an example")
        hint = "Take data.name=image_boxes, set data.most_boxes of image_masks, or give Source(..., box_classes=1)"
        raise DataError("task.name", got, "boxes", hint)
    for name in metrics:
        if name in METRICS.members and name not in OF_BOXES:
            raise ConfigError("task.metrics", name, "a metric of boxes, such as mean_average_precision")
    size = 4 + info.box_classes
    height, width, _ = info.input_shape
    pixels = np.array([height, width, height, width], np.float32).reshape(1, 1, 4)

    def shaped(outputs: jax.Array) -> jax.Array:
        if outputs.ndim != 4 or outputs.shape[3] != size:
            got = Words(f"{name_of(model)!r}, which returns {describe(outputs)}")
            expected = f"outputs of shape (batch, rows, columns, {size}) for 'detection'"
            raise ConfigError("model.name", got, expected, "Take a fully convolutional model, such as grid_resnet")
        return outputs

    def in_fractions(targets: Boxes | jax.Array) -> jax.Array:
        values = targets.values if isinstance(targets, Boxes) else targets
        return jnp.concatenate([values[..., :1], values[..., 1:] / pixels], axis=-1)

    def in_pixels(outputs: jax.Array) -> jax.Array:
        found = detect(outputs.astype(jnp.float32), candidates, overlap)
        return jnp.concatenate([found[..., :4] * pixels, found[..., 4:]], axis=-1)

    task = linen_task(
        lambda values: model(values, size),
        loss,
        metrics,
        shaped=shaped,
        prepared=in_fractions,
        measured=lambda outputs, targets: (detect(outputs.astype(jnp.float32), candidates, overlap), targets),
        in_units=in_pixels,
    )
    return task._replace(**views_of_boxes(info)._asdict())
