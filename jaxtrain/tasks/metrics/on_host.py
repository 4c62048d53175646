"""Metrics that are no sums: functions of all predictions and targets of a split, called on the host with NumPy arrays.

Functions of a user's own are named in `eval.host` beside these: `config.eval.host = ("my_package.module:bleu",)`.
"""

import numpy as np

from jaxtrain.config.registry import Family
from jaxtrain.errors import ConfigError, Words


def roc_auc_exact(predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Area under the ROC curve of two classes, without the bins of `roc_auc`; nan if a class is missing.

    scikit-learn's `roc_auc_score`.

    >>> roc_auc_exact(np.array([3.0, 1.0, 2.0, 0.0]), np.array([1, 1, 0, 0]))
    {'roc_auc_exact': 0.75}
    """
    from sklearn.metrics import roc_auc_score

    scores = _scores("roc_auc_exact", predictions, targets)
    value = roc_auc_score(targets.ravel(), _ranks(scores)) if len(np.unique(targets)) > 1 else np.nan
    return {"roc_auc_exact": float(value)}


def average_precision_exact(predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Mean precision at each member of class 1, without the bins of `average_precision`; nan if class 1 is missing.

    scikit-learn's `average_precision_score`.

    >>> average_precision_exact(np.array([3.0, 1.0, 2.0, 0.0]), np.array([1, 0, 0, 1]))
    {'average_precision_exact': 0.75}
    """
    from sklearn.metrics import average_precision_score

    scores = _scores("average_precision_exact", predictions, targets)
    value = average_precision_score(targets.ravel(), _ranks(scores)) if np.any(targets == 1) else np.nan
    return {"average_precision_exact": float(value)}


def _scores(name: str, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns one score for each target: its logit, or the difference of the two logits of a label."""
    if predictions.size == targets.size:
        return predictions.ravel()
    if predictions.shape[-1] == 2 and predictions.size == 2 * targets.size:
        return (predictions[..., 1] - predictions[..., 0]).ravel()
    got = Words(f"{name!r} for predictions of shape {predictions.shape[1:]} and targets of shape {targets.shape[1:]}")
    raise ConfigError("eval.host", got, "a metric that fits them", f"Leave {name} out: it is a metric of two classes")


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Returns the place of each score among those that differ: only their order counts, and they may be infinite."""
    return np.unique(scores, return_inverse=True)[1]


HOST_METRICS = Family(
    "eval",
    {"roc_auc_exact": roc_auc_exact, "average_precision_exact": average_precision_exact},
    supplied=("predictions", "targets"),
    key="host",
)
