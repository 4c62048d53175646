"""Looks at predictions of several labels an example."""

import functools

import numpy as np

from jaxtrain.core.pictures import Description, Panel, Panels
from jaxtrain.data.info import DataInfo
from jaxtrain.tasks.show.scores import score_charts
from jaxtrain.tasks.show.views import Views, picture_of, sigmoid


def views_of_labels(info: DataInfo) -> Views:
    """Returns the views of targets (n, labels) of 0 and 1 and as many logits."""
    names = info.target_names or tuple(map(str, range(info.target_shape[0])))
    return Views(
        functools.partial(_show, names=names),
        functools.partial(_summarise, names=names),
        _wrongness,
    )


def _show(inputs: np.ndarray, targets: np.ndarray, predictions: np.ndarray, names: tuple[str, ...]) -> Panels:
    panels = []
    for example, target, own in zip(inputs, targets > 0, sigmoid(predictions), strict=True):
        true = [names[i] for i in np.flatnonzero(target)]
        said = [f"{names[i]} ({own[i]:.2f})" for i in np.argsort(-own, kind="stable") if own[i] > 0.5]
        lines = (f"true: {', '.join(true) or 'none'}", f"says: {', '.join(said) or 'none'}")
        panels.append(Panel(picture_of(example), lines, bool(((own > 0.5) == target).all())))
    return Panels("Labels", tuple(panels))


def _summarise(targets: np.ndarray, predictions: np.ndarray, names: tuple[str, ...]) -> dict[str, Description]:
    charts = score_charts(targets > 0, sigmoid(predictions), names, "labels")
    return {} if charts is None else {"curves": charts}


def _wrongness(targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Returns the mean cross-entropy over the labels."""
    against = np.where(targets > 0, -1.0, 1.0) * np.asarray(predictions, np.float64)  # infinite logits may agree
    return np.logaddexp(0.0, against).reshape(len(against), -1).mean(axis=1)
