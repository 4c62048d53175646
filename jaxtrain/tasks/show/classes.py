"""Looks at classifications: examples with true and predicted class, confusion matrix, curves, calibration."""

import functools

import numpy as np

from jaxtrain.core.pictures import Charts, Description, Matrix, Panel, Panels
from jaxtrain.data.info import DataInfo
from jaxtrain.tasks.show.scores import calibration_chart, score_charts
from jaxtrain.tasks.show.views import Views, picture_of, sigmoid, softmax


def views_of_classes(info: DataInfo) -> Views:
    """Returns the views of labels and logits (n, classes), or logits (n,) or (n, 1) of the class 1."""
    classes = info.classes or 2
    names = info.class_names or tuple(map(str, range(classes)))
    return Views(
        functools.partial(_show, names=names),
        functools.partial(_summarise, names=names),
        _wrongness,
    )


def _probabilities(predictions: np.ndarray) -> np.ndarray:
    """Returns the probability of each class, (n, classes)."""
    if predictions.ndim == 2 and predictions.shape[1] > 1:
        return softmax(predictions)
    positive = sigmoid(predictions.reshape(len(predictions)))
    return np.stack([1 - positive, positive], axis=1)


def _labels(targets: np.ndarray) -> np.ndarray:
    """Returns labels (n,) of labels or of distributions, whose most probable class counts."""
    if targets.ndim == 2 and targets.shape[1] > 1:
        return targets.argmax(axis=1)
    return targets.reshape(len(targets)).astype(np.int64)


def _show(inputs: np.ndarray, targets: np.ndarray, predictions: np.ndarray, names: tuple[str, ...]) -> Panels:
    probabilities = _probabilities(predictions)
    panels = []
    for example, label, own in zip(inputs, _labels(targets), probabilities, strict=True):
        said = int(own.argmax())
        lines = (f"true: {names[label]}", f"says: {names[said]} ({own[said]:.2f})")
        panels.append(Panel(picture_of(example), lines, bool(said == label)))
    return Panels("Classes", tuple(panels))


def _summarise(targets: np.ndarray, predictions: np.ndarray, names: tuple[str, ...]) -> dict[str, Description]:
    probabilities = _probabilities(predictions)
    labels = _labels(targets)
    said = probabilities.argmax(axis=1)
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (labels, said), 1)
    right = float((labels == said).mean())
    title = f"Confusion matrix of {len(labels):,} examples, {right:.1%} right"
    found: dict[str, Description] = {
        "confusion matrix": Matrix(title, counts, names, names, "true class", "predicted class")
    }
    columns = slice(1, 2) if len(names) == 2 else slice(None)
    positive = labels[:, None] == np.arange(len(names))[columns]
    curves = score_charts(positive, probabilities[:, columns], names[columns], "classes")
    calibration = calibration_chart(probabilities.max(axis=1), labels == said)
    found["curves"] = Charts((*(curves.charts if curves else ()), calibration))
    return found


def _wrongness(targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Returns the negative log-probability of the true class."""
    own = np.take_along_axis(_probabilities(predictions), _labels(targets)[:, None], axis=1)
    return -np.log(np.maximum(own[:, 0], 1e-300))
