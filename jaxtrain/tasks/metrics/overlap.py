"""Overlap metrics of masks, over all pixels seen: one logit per pixel thresholded at 0, or the largest class logit."""

from typing import Any

import jax
import numpy as np

from jaxtrain.core.metric import Mean
from jaxtrain.tasks.metrics.counts import divide
from jaxtrain.tasks.metrics.precision_recall import class_counts
from jaxtrain.tasks.shapes import is_binary


def dice(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Dice coefficient of thresholded masks over all pixels seen, 2 |P ∩ T| / (|P| + |T|); 1 if both are empty.

    `predictions` are logits, thresholded at 0; both have the shape (batch, ...). For logits (batch, ..., classes) it is
    the mean over the classes that occur, background included. Dice (1945), Ecology 26(3).

    >>> round(dice(jnp.array([[1.0, 1.0, -1.0]]), jnp.array([[1, 0, 0]]), jnp.ones(1)).result(), 4)
    0.6667
    """
    finish = _dice if is_binary(predictions, targets) else _mean_dice
    return Mean(class_counts(predictions, targets, mask), mask.sum(), finish=finish, higher_is_better=True)


def iou(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Intersection over union of thresholded masks over all pixels seen, |P ∩ T| / |P or T|; 1 if both are empty.

    Shapes as in `dice`; with classes it equals `mean_iou`. Jaccard (1912), New Phytologist 11(2); scikit-learn's
    `jaccard_score`.

    >>> iou(jnp.array([[1.0, 1.0, -1.0]]), jnp.array([[1, 0, 0]]), jnp.ones(1)).result()
    0.5
    """
    finish = _iou if is_binary(predictions, targets) else _mean_iou
    return Mean(class_counts(predictions, targets, mask), mask.sum(), finish=finish, higher_is_better=True)


def mean_iou(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Intersection over union of each class, background included, averaged over the classes that occur.

    Everingham et al. (2015), https://doi.org/10.1007/s11263-014-0733-5; scikit-learn's
    `jaccard_score(average="macro")`.

    >>> round(mean_iou(jnp.array([[1.0, 1.0, -1.0, -1.0]]), jnp.array([[1, 0, 0, 0]]), jnp.ones(1)).result(), 4)
    0.5833
    """
    return Mean(class_counts(predictions, targets, mask), mask.sum(), finish=_mean_iou, higher_is_better=True)


def iou_per_class(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Intersection over union of each class, as iou_per_class/0 and so on; 0 for a class that does not occur.

    scikit-learn's `jaccard_score(average=None)` with every class among `labels`.

    >>> iou_per_class(jnp.array([[1.0, 1.0, -1.0]]), jnp.array([[1, 0, 0]]), jnp.ones(1)).numbers("iou")
    {'iou/0': 0.5, 'iou/1': 0.5}
    """
    return Mean(class_counts(predictions, targets, mask), mask.sum(), finish=_ious, higher_is_better=True)


def _dice(total: Any, count: Any) -> Any:
    overlap, predicted, true = np.asarray(total, np.float64)[:, 1]
    return divide(2 * overlap, predicted + true, otherwise=1.0)


def _mean_dice(total: Any, count: Any) -> Any:
    overlap, predicted, true = np.asarray(total, np.float64)
    return divide(2 * overlap, predicted + true)[predicted + true > 0].mean()


def _iou(total: Any, count: Any) -> Any:
    overlap, predicted, true = np.asarray(total, np.float64)[:, 1]
    return divide(overlap, predicted + true - overlap, otherwise=1.0)


def _mean_iou(total: Any, count: Any) -> Any:
    _, predicted, true = np.asarray(total)
    return _ious(total, count)[predicted + true > 0].mean()


def _ious(total: Any, count: Any) -> Any:
    overlap, predicted, true = np.asarray(total, np.float64)
    return divide(overlap, predicted + true - overlap)
