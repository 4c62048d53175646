"""Precision, recall and F1: of the positive class, pooled over classes, averaged over classes, and per class.

Predictions are logits (batch, ..., classes) for labels (batch, ...), of which the largest is chosen, or one logit per
target of 0 or 1, both (batch, ...), thresholded at 0. All three are T / (w P + (1 - w) N) for T true positives, P
predicted and N true members of a class, with w 1 for precision, 0 for recall and 1/2 for F1: van Rijsbergen (1979),
Information Retrieval, chapter 7. As in scikit-learn with `zero_division=0`, 0 / 0 is 0, and averages are over the
classes that occur among predictions or targets.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.metric import Mean
from jaxtrain.errors import ConfigError
from jaxtrain.tasks.metrics.counts import count_places, divide
from jaxtrain.tasks.shapes import is_binary


def precision(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Share of true members among the predicted members of class 1, for two classes.

    T / P; scikit-learn's `precision_score`.

    >>> precision(jnp.array([1.0, 1.0, -1.0]), jnp.array([1, 0, 1]), jnp.ones(3)).result()
    0.5
    """
    return _positive_score("precision", predictions, targets, mask, PRECISION)


def precision_micro(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Precision pooled over all classes; equal to the accuracy with one label per example.

    Σ T / Σ P; scikit-learn's `precision_score(average="micro")`.

    >>> round(precision_micro(jnp.eye(3), jnp.array([0, 1, 1]), jnp.ones(3)).result(), 4)
    0.6667
    """
    return _score(predictions, targets, mask, PRECISION, "micro")


def precision_macro(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Precision of each class, averaged over the classes.

    Mean of T / P; scikit-learn's `precision_score(average="macro")`.

    >>> precision_macro(jnp.eye(3)[:2], jnp.array([0, 0]), jnp.ones(2)).result()
    0.5
    """
    return _score(predictions, targets, mask, PRECISION, "macro")


def precision_per_class(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Precision of each class, as precision_per_class/0 and so on.

    T / P; scikit-learn's `precision_score(average=None)` with every class among `labels`.

    >>> precision_per_class(jnp.eye(2), jnp.array([0, 0]), jnp.ones(2)).numbers("precision")
    {'precision/0': 1.0, 'precision/1': 0.0}
    """
    return _score(predictions, targets, mask, PRECISION, "per class")


def recall(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Share of predicted members among the true members of class 1, for two classes.

    T / N; scikit-learn's `recall_score`.

    >>> recall(jnp.array([1.0, 1.0, -1.0]), jnp.array([1, 0, 1]), jnp.ones(3)).result()
    0.5
    """
    return _positive_score("recall", predictions, targets, mask, RECALL)


def recall_micro(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Recall pooled over all classes; equal to the accuracy with one label per example.

    Σ T / Σ N; scikit-learn's `recall_score(average="micro")`.

    >>> recall_micro(jnp.eye(2), jnp.array([0, 0]), jnp.ones(2)).result()
    0.5
    """
    return _score(predictions, targets, mask, RECALL, "micro")


def recall_macro(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Recall of each class, averaged over the classes that are predicted or true.

    Mean of T / N; scikit-learn's `recall_score(average="macro")`. `balanced_accuracy` averages over true classes only.

    >>> recall_macro(jnp.eye(2), jnp.array([0, 0]), jnp.ones(2)).result()
    0.25
    """
    return _score(predictions, targets, mask, RECALL, "macro")


def recall_per_class(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Recall of each class, as recall_per_class/0 and so on.

    T / N; scikit-learn's `recall_score(average=None)` with every class among `labels`.

    >>> recall_per_class(jnp.eye(2), jnp.array([0, 0]), jnp.ones(2)).numbers("recall")
    {'recall/0': 0.5, 'recall/1': 0.0}
    """
    return _score(predictions, targets, mask, RECALL, "per class")


def f1(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Harmonic mean of precision and recall of class 1, for two classes.

    2 T / (P + N); scikit-learn's `f1_score`.

    >>> f1(jnp.array([1.0, 1.0, 1.0]), jnp.array([1, 0, 0]), jnp.ones(3)).result()
    0.5
    """
    return _positive_score("f1", predictions, targets, mask, F1)


def f1_micro(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """F1 pooled over all classes; equal to the accuracy with one label per example.

    2 Σ T / Σ (P + N); scikit-learn's `f1_score(average="micro")`.

    >>> f1_micro(jnp.eye(2), jnp.array([0, 0]), jnp.ones(2)).result()
    0.5
    """
    return _score(predictions, targets, mask, F1, "micro")


def f1_macro(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """F1 of each class, averaged over the classes.

    Mean of 2 T / (P + N); scikit-learn's `f1_score(average="macro")`.

    >>> f1_macro(jnp.eye(2)[jnp.array([0, 1, 1])], jnp.array([0, 0, 0]), jnp.ones(3)).result()
    0.25
    """
    return _score(predictions, targets, mask, F1, "macro")


def f1_per_class(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """F1 of each class, as f1_per_class/0 and so on.

    2 T / (P + N); scikit-learn's `f1_score(average=None)` with every class among `labels`.

    >>> f1_per_class(jnp.eye(2)[jnp.array([0, 1, 1])], jnp.array([0, 0, 0]), jnp.ones(3)).numbers("f1")
    {'f1/0': 0.5, 'f1/1': 0.0}
    """
    return _score(predictions, targets, mask, F1, "per class")


# The weight w of each score.
PRECISION = 1.0
RECALL = 0.0
F1 = 0.5


@dataclass(frozen=True)
class _Score:
    """Computes the score with the weight w; `average` is "positive" (class 1), "micro", "macro" or "per class"."""

    weight: float
    average: str

    def __call__(self, total: Any, count: Any) -> Any:
        true_positives, predicted, true = np.asarray(total, np.float64)
        denominator = self.weight * predicted + (1.0 - self.weight) * true
        if self.average == "micro":
            return divide(true_positives.sum(), denominator.sum())
        per_class = divide(true_positives, denominator)
        macro = per_class[predicted + true > 0].mean()
        return {"positive": per_class[1], "macro": macro, "per class": per_class}[self.average]


def class_counts(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> jax.Array:
    """Counts (true positives, predicted, true) of each class, as (3, classes)."""
    predicted = chosen_labels(predictions, targets)
    labels = targets.astype(jnp.int32)
    classes = 2 if is_binary(predictions, targets) else predictions.shape[-1]
    hits = jnp.where(predicted == labels, labels, classes)  # misses are counted beyond the last class, and cut off
    return jnp.stack(
        [
            count_places(hits, mask, classes + 1)[:classes],
            count_places(predicted, mask, classes),
            count_places(labels, mask, classes),
        ]
    )


def chosen_labels(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the predicted class: that of the largest logit, or whether a single logit is above 0, as int32."""
    chosen = predictions > 0 if is_binary(predictions, targets) else jnp.argmax(predictions, axis=-1)
    return chosen.astype(jnp.int32)


def _score(predictions: jax.Array, targets: jax.Array, mask: jax.Array, weight: float, average: str) -> Mean:
    counts = class_counts(predictions, targets, mask)
    return Mean(counts, mask.sum(), finish=_Score(weight, average), higher_is_better=True)


def _positive_score(name: str, predictions: jax.Array, targets: jax.Array, mask: jax.Array, weight: float) -> Mean:
    if not is_binary(predictions, targets) and predictions.shape[-1] != 2:
        expected = f"{name}_micro, {name}_macro or {name}_per_class for {predictions.shape[-1]} classes"
        raise ConfigError("task.metrics", name, expected)
    return _score(predictions, targets, mask, weight, "positive")
