"""Looks at segmentations: outlines of truth and prediction on the pictures, and how well whole splits are met."""

import functools

import numpy as np

from jaxtrain.core.pictures import Chart, Curve, Description, Matrix, Outline, Panel, Panels
from jaxtrain.data.info import DataInfo
from jaxtrain.tasks.show.views import Views, picture_of


def views_of_masks(info: DataInfo) -> Views:
    """Returns the views of masks (n, height, width), and logits of the foreground or of each class."""
    classes = info.classes or 2
    names = info.class_names or (("background", "foreground") if classes == 2 else tuple(map(str, range(classes))))
    return Views(
        functools.partial(_show, void=info.void, classes=classes),
        functools.partial(_summarise, void=info.void, names=names),
        functools.partial(_wrongness, void=info.void, classes=classes),
    )


def _predicted(targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    return predictions.argmax(axis=-1) if predictions.ndim > targets.ndim else predictions > 0


def _scores(targets: np.ndarray, predictions: np.ndarray, void: int | None, classes: int) -> np.ndarray:
    """Returns the Dice score of the foreground of each picture, or with more classes the share of pixels right."""
    said = _predicted(targets, predictions).reshape(len(targets), -1)
    true = targets.reshape(len(targets), -1)
    kept = np.ones(true.shape, bool) if void is None else true != void
    if classes > 2:
        return ((said == true) & kept).sum(axis=1) / np.maximum(kept.sum(axis=1), 1)
    said = (said > 0) & kept
    true = (true > 0) & kept
    sizes = said.sum(axis=1) + true.sum(axis=1)
    return np.where(sizes, 2 * (said & true).sum(axis=1) / np.maximum(sizes, 1), 1.0)


def _score_name(classes: int) -> str:
    return "Dice" if classes == 2 else "pixels right"


def _show(inputs: np.ndarray, targets: np.ndarray, predictions: np.ndarray, void: int | None, classes: int) -> Panels:
    said = _predicted(targets, predictions)
    scores = _scores(targets, predictions, void, classes)
    panels = [
        Panel(
            picture_of(example),
            (f"{_score_name(classes)} {score:.2f}",),
            outlines=(Outline(target, "truth"), Outline(own, "prediction")),
        )
        for example, target, own, score in zip(inputs, targets, said, scores, strict=True)
    ]
    return Panels("Masks", tuple(panels))


def _summarise(
    targets: np.ndarray, predictions: np.ndarray, void: int | None, names: tuple[str, ...]
) -> dict[str, Description]:
    scores = np.sort(_scores(targets, predictions, void, len(names)))
    share = (np.arange(len(scores)) + 0.5) / len(scores)
    label = "Dice score" if len(names) == 2 else "share of pixels right"
    curve = Curve(f"mean {scores.mean():.3f}, median {np.median(scores):.3f}", share, scores)
    x_label = "share of the pictures, worst first"
    chart = Chart(
        f"{label} of {len(scores):,} pictures", x_label, label, (curve,), x_limits=(0.0, 1.0), y_limits=(0.0, 1.02)
    )
    return {"scores": chart, "confusion matrix": _confusion(targets, predictions, void, names)}


def _confusion(targets: np.ndarray, predictions: np.ndarray, void: int | None, names: tuple[str, ...]) -> Matrix:
    true = targets.ravel().astype(np.int64)
    said = _predicted(targets, predictions).ravel().astype(np.int64)
    kept = np.ones(true.shape, bool) if void is None else true != void
    size = len(names)
    counts = np.bincount(true[kept] * size + said[kept], minlength=size * size).reshape(size, size)
    percent = np.rint(100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    title = "Confusion matrix, % of the pixels of a true class"
    return Matrix(title, percent, names, names, "true class", "predicted class")


def _wrongness(targets: np.ndarray, predictions: np.ndarray, void: int | None, classes: int) -> np.ndarray:
    return 1 - _scores(targets, predictions, void, classes)
