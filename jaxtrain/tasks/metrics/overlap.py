"""Overlap metrics of masks, over all pixels seen or of each image.

A pixel is predicted by one logit, thresholded at 0, or by the largest of the logits of its classes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.metric import Mean
from jaxtrain.tasks.metrics.counts import divide
from jaxtrain.tasks.metrics.precision_recall import chosen_labels, class_counts
from jaxtrain.tasks.shapes import flatten_examples, is_binary


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


def image_dice(predictions: jax.Array, targets: jax.Array, mask: jax.Array, kept: jax.Array | None = None) -> Mean:
    """Dice coefficient of each image, averaged over the images; 1 for an empty mask that is predicted empty.

    Shapes as in `dice`; with classes, that of an image is the mean over the classes that occur in it. `kept` (batch,
    ...) says which pixels count. The score of nucleus and organ segmentations, as in Antonelli et al. (2022),
    https://doi.org/10.1038/s41467-022-30695-9.

    >>> image_dice(jnp.array([[1.0, -1.0], [-1.0, -1.0]]), jnp.array([[1, 0], [1, 0]]), jnp.ones(2)).result()
    0.5
    """
    overlap, predicted, true = _areas(predictions, targets, kept)
    return Mean.of(_mean_score(2.0 * overlap, predicted + true), mask, higher_is_better=True)


def image_iou(predictions: jax.Array, targets: jax.Array, mask: jax.Array, kept: jax.Array | None = None) -> Mean:
    """Intersection over union of each image, averaged over the images; shapes and empty masks as in `image_dice`.

    Csurka et al. (2013), https://doi.org/10.5244/C.27.32.

    >>> image_iou(jnp.array([[1.0, 1.0], [-1.0, -1.0]]), jnp.array([[1, 0], [0, 0]]), jnp.ones(2)).result()
    0.75
    """
    overlap, predicted, true = _areas(predictions, targets, kept)
    return Mean.of(_mean_score(overlap, predicted + true - overlap), mask, higher_is_better=True)


def _areas(
    predictions: jax.Array, targets: jax.Array, kept: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Counts pixels that are predicted and true, predicted, and true: (batch, classes), or (batch, 1) for one logit."""
    labels = range(1, 2) if is_binary(predictions, targets) else range(predictions.shape[-1])
    chosen = flatten_examples(chosen_labels(predictions, targets))
    truth = flatten_examples(targets.astype(jnp.int32))
    inside = True if kept is None else flatten_examples(kept)
    predicted = jnp.stack([(chosen == label) & inside for label in labels], axis=1)
    true = jnp.stack([(truth == label) & inside for label in labels], axis=1)
    overlap, predicted, true = (area.sum(axis=2).astype(jnp.float32) for area in (predicted & true, predicted, true))
    return overlap, predicted, true


def _mean_score(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Averages ratios (batch, classes) over the classes with a denominator above 0; 1 without any."""
    occurs = denominator > 0
    ratios = jnp.where(occurs, numerator / jnp.maximum(denominator, 1.0), 0.0)
    count = occurs.sum(axis=1).astype(jnp.float32)
    return jnp.where(count > 0, ratios.sum(axis=1) / jnp.maximum(count, 1.0), 1.0)


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
