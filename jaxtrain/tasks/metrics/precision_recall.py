"""Precision, recall and F1: of the positive class, over all classes together, averaged over them, and of each.

Predictions are logits (batch, ..., classes) for labels (batch, ...), the largest one chosen, or one logit for each
target of 0 or 1, both (batch, ...), cut at 0. All three are T / (w P + (1 - w) N) of T true positives, P predicted and
N true members of a class, with w 1 for precision, 0 for recall and 1/2 for F1: van Rijsbergen (1979), Information
Retrieval, chapter 7. As in scikit-learn with `zero_division=0`, 0 / 0 is 0, and an average is one over the classes
that occur among predictions or targets.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.metric import Mean
from jaxtrain.errors import ConfigError
from jaxtrain.tasks.metrics.counts import counted, divided
from jaxtrain.tasks.shapes import is_binary


def precision(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Share of the predicted members of class 1, of two classes, that are true ones.

    T / P; scikit-learn's `precision_score`.

    >>> precision(jnp.array([1.0, 1.0, -1.0]), jnp.array([1, 0, 1]), jnp.ones(3)).result()
    0.5
    """
    return _of_two("precision", predictions, targets, mask, PRECISION)


def precision_micro(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Precision of all classes together, which of one label an example is the accuracy.

    Σ T / Σ P; scikit-learn's `precision_score(average="micro")`.

    >>> round(precision_micro(jnp.eye(3), jnp.array([0, 1, 1]), jnp.ones(3)).result(), 4)
    0.6667
    """
    return _scored(predictions, targets, mask, PRECISION, "micro")


def precision_macro(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Precision of each class, averaged over the classes.

    Mean of T / P; scikit-learn's `precision_score(average="macro")`.

    >>> precision_macro(jnp.eye(3)[:2], jnp.array([0, 0]), jnp.ones(2)).result()
    0.5
    """
    return _scored(predictions, targets, mask, PRECISION, "macro")


def precision_per_class(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Precision of each class, as precision_per_class/0 and so on.

    T / P; scikit-learn's `precision_score(average=None)` with every class among `labels`.

    >>> precision_per_class(jnp.eye(2), jnp.array([0, 0]), jnp.ones(2)).numbers("precision")
    {'precision/0': 1.0, 'precision/1': 0.0}
    """
    return _scored(predictions, targets, mask, PRECISION, "per class")


def recall(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Share of the true members of class 1, of two classes, that are predicted.

    T / N; scikit-learn's `recall_score`.

    >>> recall(jnp.array([1.0, 1.0, -1.0]), jnp.array([1, 0, 1]), jnp.ones(3)).result()
    0.5
    """
    return _of_two("recall", predictions, targets, mask, RECALL)


def recall_micro(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Recall of all classes together, which of one label an example is the accuracy.

    Σ T / Σ N; scikit-learn's `recall_score(average="micro")`.

    >>> recall_micro(jnp.eye(2), jnp.array([0, 0]), jnp.ones(2)).result()
    0.5
    """
    return _scored(predictions, targets, mask, RECALL, "micro")


def recall_macro(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Recall of each class, averaged over the classes that are predicted or true.

    Mean of T / N; scikit-learn's `recall_score(average="macro")`. `balanced_accuracy` averages over true classes alone.

    >>> recall_macro(jnp.eye(2), jnp.array([0, 0]), jnp.ones(2)).result()
    0.25
    """
    return _scored(predictions, targets, mask, RECALL, "macro")


def recall_per_class(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Recall of each class, as recall_per_class/0 and so on.

    T / N; scikit-learn's `recall_score(average=None)` with every class among `labels`.

    >>> recall_per_class(jnp.eye(2), jnp.array([0, 0]), jnp.ones(2)).numbers("recall")
    {'recall/0': 0.5, 'recall/1': 0.0}
    """
    return _scored(predictions, targets, mask, RECALL, "per class")


def f1(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Harmonic mean of precision and recall of class 1, of two classes.

    2 T / (P + N); scikit-learn's `f1_score`.

    >>> f1(jnp.array([1.0, 1.0, 1.0]), jnp.array([1, 0, 0]), jnp.ones(3)).result()
    0.5
    """
    return _of_two("f1", predictions, targets, mask, F1)


def f1_micro(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """F1 of all classes together, which of one label an example is the accuracy.

    2 Σ T / Σ (P + N); scikit-learn's `f1_score(average="micro")`.

    >>> f1_micro(jnp.eye(2), jnp.array([0, 0]), jnp.ones(2)).result()
    0.5
    """
    return _scored(predictions, targets, mask, F1, "micro")


def f1_macro(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """F1 of each class, averaged over the classes.

    Mean of 2 T / (P + N); scikit-learn's `f1_score(average="macro")`.

    >>> f1_macro(jnp.eye(2)[jnp.array([0, 1, 1])], jnp.array([0, 0, 0]), jnp.ones(3)).result()
    0.25
    """
    return _scored(predictions, targets, mask, F1, "macro")


def f1_per_class(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """F1 of each class, as f1_per_class/0 and so on.

    2 T / (P + N); scikit-learn's `f1_score(average=None)` with every class among `labels`.

    >>> f1_per_class(jnp.eye(2)[jnp.array([0, 1, 1])], jnp.array([0, 0, 0]), jnp.ones(3)).numbers("f1")
    {'f1/0': 0.5, 'f1/1': 0.0}
    """
    return _scored(predictions, targets, mask, F1, "per class")


PRECISION, RECALL, F1 = 1.0, 0.0, 0.5


@dataclass(frozen=True)
class _Score:
    """The score with the weight w, of class 1, of all classes, of their average or of each."""

    weight: float
    of: str

    def __call__(self, total: Any, count: Any) -> Any:
        true_positives, predicted, true = np.asarray(total, np.float64)
        below = self.weight * predicted + (1.0 - self.weight) * true
        each = divided(true_positives, below)
        if self.of == "micro":
            return divided(true_positives.sum(), below.sum())
        return {"positive": each[1], "macro": each[predicted + true > 0].mean(), "per class": each}[self.of]


def class_counts(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> jax.Array:
    """Counts (true positives, predicted, true) of each class, as (3, classes)."""
    chosen, labels = chosen_labels(predictions, targets), targets.astype(jnp.int32)
    classes = 2 if is_binary(predictions, targets) else predictions.shape[-1]
    missed = jnp.where(chosen == labels, labels, classes)  # what is missed is counted beyond the last class
    return jnp.stack(
        [counted(missed, mask, classes + 1)[:classes], counted(chosen, mask, classes), counted(labels, mask, classes)]
    )


def chosen_labels(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the class of the largest logit, or of one logit for each target whether it is above 0."""
    return ((predictions > 0) if is_binary(predictions, targets) else jnp.argmax(predictions, axis=-1)).astype(
        jnp.int32
    )


def _scored(predictions: jax.Array, targets: jax.Array, mask: jax.Array, weight: float, of: str) -> Mean:
    counts = class_counts(predictions, targets, mask)
    return Mean(counts, mask.sum(), finish=_Score(weight, of), higher_is_better=True)


def _of_two(name: str, predictions: jax.Array, targets: jax.Array, mask: jax.Array, weight: float) -> Mean:
    if not is_binary(predictions, targets) and predictions.shape[-1] != 2:
        expected = f"{name}_micro, {name}_macro or {name}_per_class for {predictions.shape[-1]} classes"
        raise ConfigError("task.metrics", name, expected)
    return _scored(predictions, targets, mask, weight, "positive")
