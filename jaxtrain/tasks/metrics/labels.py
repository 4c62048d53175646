"""Metrics of several labels: predictions are one logit for each, targets 0 or 1, both (batch, labels)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.metric import Mean
from jaxtrain.errors import ConfigError, Words
from jaxtrain.tasks.metrics.counts import count_places, divide
from jaxtrain.tasks.metrics.ranking import area, bins_of

BINS = 512
"""Bins of the logits of a label, a quarter of those of `roc_auc`: every label has its own."""


def exact_match(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Share of examples all of whose labels are predicted; scikit-learn's `accuracy_score` of several labels.

    >>> exact_match(jnp.array([[1.0, -1.0], [1.0, 1.0]]), jnp.array([[1, 0], [1, 0]]), jnp.ones(2)).result()
    0.5
    """
    return Mean.of(_hits("exact_match", predictions, targets).all(axis=1), mask, higher_is_better=True)


def accuracy_per_label(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Share of examples for which each label is predicted, as accuracy_per_label/0 and so on; `accuracy` is the mean.

    scikit-learn's `accuracy_score` of each label alone.

    >>> accuracy_per_label(jnp.array([[1.0, 1.0]]), jnp.array([[1, 0]]), jnp.ones(1)).numbers("accuracy")
    {'accuracy/0': 1.0, 'accuracy/1': 0.0}
    """
    return Mean.of(_hits("accuracy_per_label", predictions, targets), mask, higher_is_better=True)


def f1_label_mean(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """F1 of each label, averaged over the labels; 0 for one that is neither predicted nor listed.

    scikit-learn's `f1_score(average="macro")` of several labels.

    >>> f1_label_mean(jnp.array([[1.0, 1.0]]), jnp.array([[1, 0]]), jnp.ones(1)).result()
    0.5
    """
    return _f1("f1_label_mean", predictions, targets, mask, _mean_f1)


def f1_per_label(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """F1 of each label, as f1_per_label/0 and so on; 0 for one that is neither predicted nor listed.

    scikit-learn's `f1_score(average=None)` of several labels.

    >>> f1_per_label(jnp.array([[1.0, 1.0]]), jnp.array([[1, 0]]), jnp.ones(1)).numbers("f1")
    {'f1/0': 1.0, 'f1/1': 0.0}
    """
    return _f1("f1_per_label", predictions, targets, mask, _each_f1)


def roc_auc_label_mean(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Area under the ROC curve of each label, averaged over those that some examples have and some have not.

    scikit-learn's `roc_auc_score` of several labels, by bins as in `roc_auc`, four times as wide.

    >>> roc_auc_label_mean(jnp.array([[3.0], [1.0], [2.0]]), jnp.array([[1], [0], [0]]), jnp.ones(3)).result()
    1.0
    """
    return _roc_auc("roc_auc_label_mean", predictions, targets, mask, _mean_area)


def roc_auc_per_label(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Area under the ROC curve of each label, as roc_auc_per_label/0 and so on; nan where all or no examples have it.

    scikit-learn's `roc_auc_score(average=None)` of several labels, by bins as in `roc_auc`, four times as wide.

    >>> roc_auc_per_label(jnp.array([[3.0, 1.0], [1.0, 2.0]]), jnp.array([[1, 1], [0, 0]]), jnp.ones(2)).numbers("auc")
    {'auc/0': 1.0, 'auc/1': 0.0}
    """
    return _roc_auc("roc_auc_per_label", predictions, targets, mask, _each_area)


def _hits(name: str, predictions: jax.Array, targets: jax.Array) -> jax.Array:
    _check(name, predictions, targets)
    return (predictions > 0) == (targets.astype(jnp.int32) > 0)


def _check(name: str, predictions: jax.Array, targets: jax.Array) -> None:
    if targets.ndim != 2 or predictions.shape != targets.shape:
        got = Words(f"{name!r} for predictions of shape {predictions.shape} and targets of shape {targets.shape}")
        raise ConfigError("task.metrics", got, "one logit for each of several labels, both (batch, labels)")


def _f1(name: str, predictions: jax.Array, targets: jax.Array, mask: jax.Array, finish: Any) -> Mean:
    _check(name, predictions, targets)
    chosen = predictions > 0
    truth = targets.astype(jnp.int32) > 0
    counts = jnp.stack([chosen & truth, chosen, truth], axis=1)
    return Mean.of(counts, mask, finish=finish, higher_is_better=True)


def _each_f1(total: Any, count: Any) -> Any:
    hits, predicted, true = np.asarray(total, np.float64)
    return divide(2 * hits, predicted + true)


def _mean_f1(total: Any, count: Any) -> Any:
    return _each_f1(total, count).mean()


def _roc_auc(name: str, predictions: jax.Array, targets: jax.Array, mask: jax.Array, finish: Any) -> Mean:
    _check(name, predictions, targets)
    labels = targets.shape[1]
    histograms = 2 * jnp.arange(labels)[None] + targets.astype(jnp.int32)
    counts = count_places(histograms * BINS + bins_of(predictions, BINS), mask, labels * 2 * BINS)
    return Mean(counts.reshape(labels, 2, BINS), mask.sum(), finish=finish, higher_is_better=True)


def _each_area(total: Any, count: Any) -> Any:
    return np.array([area(histograms) for histograms in total])


def _mean_area(total: Any, count: Any) -> Any:
    areas = _each_area(total, count)
    return np.nan if np.isnan(areas).all() else np.nanmean(areas)
