"""Mean average precision of detected boxes.

Within a picture, detections are matched to true boxes from the highest score down, each to the free one that it covers
best, by an intersection over union of at least a threshold. What is summed over pictures are, for each class and
threshold, histograms of the scores of matches and of other detections, and the number of true boxes. Scores are counted
in 1,000 bins of equal width in log (p / (1 - p)) from -10 to 10; detections of one bin are ties. So average precision
is that of exact scores as long as no bin holds a match beside another detection.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.metric import Mean
from jaxtrain.errors import ConfigError, Words
from jaxtrain.tasks.boxes import iou
from jaxtrain.tasks.metrics.counts import count_places, divide

BINS = 1000
FARTHEST = 10.0
"""Logit of a score beyond which scores are in the same bin."""

COCO = tuple((np.arange(50, 100, 5) / 100).tolist())


def mean_average_precision(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Average precision of detected boxes, mean over classes and over the IoU thresholds 0.5, 0.55, ... 0.95.

    Area under the highest precision at each recall or above it, for detections (batch, n, 4 + classes), with scores
    of classes, and boxes (batch, m, 5); nan without boxes. Lin et al. (2014), https://arxiv.org/abs/1405.0312, but at
    all recalls in place of 101; scores are binned (see this module).

    >>> boxes = jnp.array([[[0, 0, 0, 10, 10.0]]])
    >>> found = jnp.array([[[0, 0, 10, 8, 0.9]]])  # 8 of 10 columns, a match up to the threshold 0.8
    >>> round(mean_average_precision(found, boxes, jnp.ones(1)).result(), 4)
    0.7
    """
    return _average_precision(predictions, targets, mask, COCO)


def mean_average_precision_50(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Average precision of detected boxes, mean over classes, where a match has an IoU of at least 0.5.

    As `mean_average_precision`, with one threshold. Everingham et al. (2010), https://doi.org/10.1007/s11263-009-0275-4.

    >>> boxes = jnp.array([[[0, 0, 0, 10, 10], [0, 0, 20, 10, 10.0]]])
    >>> found = jnp.array([[[0, 0, 10, 10, 0.9], [50, 50, 10, 10, 0.8]]])
    >>> mean_average_precision_50(found, boxes, jnp.ones(1)).result()
    0.5
    """
    return _average_precision(predictions, targets, mask, COCO[:1])


def _average_precision(predictions: jax.Array, targets: jax.Array, mask: jax.Array, thresholds: Any) -> Mean:
    """Sums (thresholds, classes, 2 * BINS + 1): other detections and matches from the highest score down, and boxes."""
    if predictions.ndim != 3 or targets.ndim != 3 or targets.shape[-1] != 5 or predictions.shape[-1] < 5:
        got = Words(f"predictions of shape {predictions.shape} and targets of shape {targets.shape}")
        hint = "Leave it out: it is a metric of the task 'detection'"
        raise ConfigError("task.metrics", got, "detections (n, 4 + classes) and boxes (m, 5) an example", hint)
    boxes = predictions[..., :4].astype(jnp.float32)
    scores = predictions[..., 4:].astype(jnp.float32)
    classes = scores.shape[-1]
    true = targets[..., 1:].astype(jnp.float32)
    labels = targets[..., 0]
    labels = jnp.where((labels >= 0) & (labels < classes), labels, classes).astype(jnp.int32)
    levels = jnp.array(thresholds, jnp.float32)

    def match_classes(boxes: jax.Array, scores: jax.Array, true: jax.Array, labels: jax.Array) -> jax.Array:
        of_class = jax.vmap(lambda scores, c: match(boxes, scores, true, labels == c, levels))
        return of_class(scores.T, jnp.arange(classes))

    hits = jax.vmap(match_classes)(boxes, scores, true, labels)  # (batch, classes, n, thresholds)
    rows = np.arange(len(thresholds)) * classes + np.arange(classes)[:, None, None]
    ranked = jnp.moveaxis(scores, 2, 1)[..., None]
    places = (rows[None].astype(np.int32) * 2 + hits.astype(jnp.int32)) * BINS + _bins(ranked)
    length = len(thresholds) * classes * 2 * BINS
    counted = count_places(jnp.where(ranked > 0, places, length), mask, length + 1)[:-1]
    existing = count_places(labels, mask, classes + 1)[:-1]
    shape = (len(thresholds), classes)
    parts = [counted.reshape(*shape, 2 * BINS), jnp.broadcast_to(existing[None, :, None], (*shape, 1))]
    return Mean(jnp.concatenate(parts, axis=-1), mask.sum(), finish=_mean_area, higher_is_better=True)


def match(boxes: jax.Array, scores: jax.Array, true: jax.Array, exists: jax.Array, levels: jax.Array) -> jax.Array:
    """Returns which detections (n,) match a true box, (n, thresholds), each true box once.

    `boxes` (n, 4) with `scores` (n,), `true` boxes (m, 4) that count where `exists` (m,), and `levels` of IoU.
    """
    order = jnp.argsort(-scores)
    overlaps = jnp.where(exists[None], iou(boxes[order][:, None], true[None]), -1.0)

    def take(free: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Takes the free true box (thresholds, m) that a detection covers best."""
        covered = jnp.where(free, row[None], -1.0)
        best = covered.argmax(axis=1)
        hit = covered.max(axis=1) >= levels
        return free & ~(hit[:, None] & (jnp.arange(row.size)[None] == best[:, None])), hit

    free = jnp.ones((levels.size, exists.size), bool)
    return jax.lax.scan(take, free, overlaps)[1][jnp.argsort(order)]


def _bins(scores: jax.Array) -> jax.Array:
    """Returns the bin of each score, int32, counted from the highest down."""
    logits = jnp.log(scores) - jnp.log1p(-scores)
    return jnp.clip((FARTHEST - logits) / (2 * FARTHEST) * BINS, 0, BINS - 1).astype(jnp.int32)


def _mean_area(total: Any, count: Any) -> Any:
    """Returns the area under the precision envelope, averaged over thresholds and the classes that have boxes."""
    sums = np.asarray(total, np.float64)
    others = sums[..., :BINS]
    matches = sums[..., BINS:-1]
    boxes = sums[..., -1:]
    true_positives = np.cumsum(matches, axis=-1)
    precision = divide(true_positives, true_positives + np.cumsum(others, axis=-1))
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    areas = (divide(matches, boxes) * envelope).sum(axis=-1)
    known = boxes[0, :, 0] > 0
    return areas[:, known].mean() if known.any() else np.nan
