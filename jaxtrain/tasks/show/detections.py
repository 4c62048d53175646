"""Looks at detections: boxes of truth and prediction on the pictures."""

import functools

import numpy as np

from jaxtrain.core.pictures import Box, Panel, Panels, Side
from jaxtrain.data.info import DataInfo
from jaxtrain.tasks.show.views import Views, picture_of

LEAST_SCORE = 0.3
"""Score from which a box is drawn."""


def views_of_boxes(info: DataInfo) -> Views:
    """Returns the views of boxes (n, m, 5), a class of -1 for none, and predictions (n, candidates, 4 + classes)."""
    return Views(functools.partial(_show, names=info.class_names), wrongness=_wrongness)


def _found(own: np.ndarray) -> np.ndarray:
    return own[own[:, 4:].max(axis=1) >= LEAST_SCORE]


def _show(inputs: np.ndarray, targets: np.ndarray, predictions: np.ndarray, names: tuple[str, ...]) -> Panels:
    panels = []
    for example, boxes, own in zip(inputs, targets, predictions, strict=True):
        true = boxes[boxes[:, 0] >= 0]
        found = _found(own)
        drawn = [_box(box[1:], "truth") for box in true]
        drawn += [_box(box, "prediction", _text(box[4:], names, len(found))) for box in found]
        panels.append(Panel(picture_of(example), (f"{len(true)} true, {len(found)} found",), boxes=tuple(drawn)))
    return Panels("Boxes", tuple(panels), columns=3)


def _box(numbers: np.ndarray, side: Side, text: str = "") -> Box:
    y, x, height, width = map(float, numbers[:4])
    return Box(y, x, height, width, side, text)


def _text(scores: np.ndarray, names: tuple[str, ...], boxes: int) -> str:
    """Returns the class and the score of a box; nothing where the boxes leave no room for it."""
    if boxes > 12:
        return ""
    best = int(scores.argmax())
    return f"{names[best]} {scores[best]:.2f}" if names else f"{scores[best]:.2f}"


def _wrongness(targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Returns 1 minus the mean of the best IoU of each box, true or found, with the other side."""
    return np.array(
        [
            _distance(boxes[boxes[:, 0] >= 0][:, 1:], _found(own)[:, :4])
            for boxes, own in zip(targets, predictions, strict=True)
        ]
    )


def _distance(true: np.ndarray, found: np.ndarray) -> float:
    if not len(true) or not len(found):
        return float(len(true) != len(found))
    corner = np.maximum(true[:, None, :2], found[None, :, :2])
    end = np.minimum(true[:, None, :2] + true[:, None, 2:], found[None, :, :2] + found[None, :, 2:])
    shared = np.prod(np.maximum(end - corner, 0), axis=-1)
    areas = np.prod(true[:, None, 2:], axis=-1) + np.prod(found[None, :, 2:], axis=-1)
    overlaps = shared / np.maximum(areas - shared, 1e-12)
    return 1 - float(np.concatenate([overlaps.max(axis=1), overlaps.max(axis=0)]).mean())
