"""Classification metrics: accuracy, confidence and calibration.

Predictions are logits (batch, ..., classes) for labels (batch, ...), or one logit per target of 0 or 1, both
(batch, ...). Axes between batch and classes (pixels, several labels) are averaged, or counted like examples.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.floats import as_floats
from jaxtrain.core.metric import Mean
from jaxtrain.tasks.losses.classification import binary_cross_entropy, cross_entropy
from jaxtrain.tasks.metrics.counts import count_places, divide
from jaxtrain.tasks.metrics.precision_recall import chosen_labels, class_counts
from jaxtrain.tasks.shapes import is_binary, mean_per_example

CALIBRATION_BINS = 15


def accuracy(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Share of correct predictions of targets (batch, ...): the largest logit, or whether a single logit is above 0.

    scikit-learn's `accuracy_score`.

    >>> accuracy(jnp.array([[2.0, 1.0], [0.0, 1.0]]), jnp.array([0, 0]), jnp.ones(2)).result()
    0.5
    """
    hits = chosen_labels(predictions, targets) == targets.astype(jnp.int32)
    return Mean.of(mean_per_example(hits.astype(jnp.float32)), mask, higher_is_better=True)


def balanced_accuracy(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Recall of each class that occurs among the targets, averaged over those classes.

    Brodersen et al. (2010), https://doi.org/10.1109/ICPR.2010.764; scikit-learn's `balanced_accuracy_score`.

    >>> balanced_accuracy(jnp.eye(2)[jnp.zeros(4, int)], jnp.array([0, 0, 0, 1]), jnp.ones(4)).result()
    0.5
    """
    counts = class_counts(predictions, targets, mask)
    return Mean(counts, mask.sum(), finish=_balanced_accuracy, higher_is_better=True)


def top_3(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Share of targets (batch, ...) that are among the three largest logits (batch, ..., classes).

    scikit-learn's `top_k_accuracy_score(k=3)`; ties go to the lower class, as in `accuracy`.

    >>> top_3(jnp.array([[4.0, 3.0, 2.0, 1.0]]), jnp.array([2]), jnp.ones(1)).result()
    1.0
    """
    return _top(3, predictions, targets, mask)


def top_5(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Share of targets (batch, ...) that are among the five largest logits (batch, ..., classes).

    scikit-learn's `top_k_accuracy_score(k=5)`; ties go to the lower class, as in `accuracy`.

    >>> top_5(jnp.arange(12.0).reshape(2, 6), jnp.array([0, 1]), jnp.ones(2)).result()
    0.5
    """
    return _top(5, predictions, targets, mask)


def confusion_matrix(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Number of targets of each class predicted as each class, as confusion_matrix/<true>/<predicted>.

    scikit-learn's `confusion_matrix`. Training stores one matrix per step of a call: use it for tens of classes.

    >>> confusion_matrix(jnp.eye(2), jnp.array([0, 0]), jnp.ones(2)).numbers("m")
    {'m/0/0': 1.0, 'm/0/1': 1.0, 'm/1/0': 0.0, 'm/1/1': 0.0}
    """
    classes = 2 if is_binary(predictions, targets) else predictions.shape[-1]
    pairs = targets.astype(jnp.int32) * classes + chosen_labels(predictions, targets)
    return Mean(count_places(pairs, mask, classes**2).reshape(classes, classes), mask.sum(), finish=_total)


def perplexity(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Exponential of the mean cross-entropy: the equivalent number of equally likely classes.

    exp(-Σ log p[label] / n). Jelinek et al. (1977), Journal of the Acoustical Society of America 62(S1).

    >>> round(perplexity(jnp.zeros((1, 5)), jnp.array([2]), jnp.ones(1)).result(), 4)
    5.0
    """
    entropy = binary_cross_entropy if is_binary(predictions, targets) else cross_entropy
    return Mean.of(entropy(predictions, targets), mask, finish=_exponential)


def calibration_error(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Expected calibration error: mean gap between confidence and accuracy, over 15 equal bins of confidence.

    Σ n_b abs(confidence_b - accuracy_b) / n, where confidence is the probability of the chosen class. Guo et al.
    (2017), https://arxiv.org/abs/1706.04599.

    >>> round(calibration_error(jnp.zeros((4, 2)), jnp.array([0, 0, 0, 1]), jnp.ones(4)).result(), 4)
    0.25
    """
    confidence = _confidence(predictions, targets)
    hits = (chosen_labels(predictions, targets) == targets.astype(jnp.int32)).astype(jnp.float32)
    bins = jnp.clip((confidence * CALIBRATION_BINS).astype(jnp.int32), 0, CALIBRATION_BINS - 1)
    gaps = jax.nn.one_hot(bins, CALIBRATION_BINS) * (confidence - hits)[..., None]
    return Mean.of(_mean_per_column(gaps), mask, finish=_calibration_error)


def _mean_per_column(values: jax.Array) -> jax.Array:
    """Averages over all axes but the first and last: (batch, ..., n) -> (batch, n)."""
    return values.reshape(values.shape[0], -1, values.shape[-1]).mean(axis=1)


def _confidence(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the probability of the chosen class."""
    logits = as_floats(predictions)
    if is_binary(predictions, targets):
        return jax.nn.sigmoid(jnp.abs(logits))
    return jax.nn.softmax(logits).max(axis=-1)


def _top(k: int, predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    _, best = jax.lax.top_k(predictions, min(k, predictions.shape[-1]))
    hits = (best == targets.astype(jnp.int32)[..., None]).any(axis=-1)
    return Mean.of(mean_per_example(hits.astype(jnp.float32)), mask, higher_is_better=True)


def _balanced_accuracy(total: Any, count: Any) -> Any:
    true_positives, _, true = np.asarray(total, np.float64)
    return divide(true_positives, true)[true > 0].mean()


def _total(total: Any, count: Any) -> Any:
    return total


def _exponential(total: Any, count: Any) -> Any:
    with np.errstate(over="ignore"):  # infinite for a model that diverged
        return np.exp(np.asarray(total, np.float64) / count)


def _calibration_error(total: Any, count: Any) -> Any:
    return np.abs(np.asarray(total, np.float64)).sum() / count
