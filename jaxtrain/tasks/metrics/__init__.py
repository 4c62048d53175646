"""Metrics: sums and counts that merge over batches, devices and steps, and the result computed from them."""

import inspect
from collections.abc import Callable

import jax

from jaxtrain.config.registry import Family
from jaxtrain.core.metric import Mean, merge
from jaxtrain.tasks.metrics.classification import (
    accuracy,
    balanced_accuracy,
    calibration_error,
    confusion_matrix,
    perplexity,
    top_3,
    top_5,
)
from jaxtrain.tasks.metrics.detection import mean_average_precision, mean_average_precision_50
from jaxtrain.tasks.metrics.labels import (
    accuracy_per_label,
    exact_match,
    f1_label_mean,
    f1_per_label,
    roc_auc_label_mean,
    roc_auc_per_label,
)
from jaxtrain.tasks.metrics.overlap import dice, iou, iou_per_class, mean_iou
from jaxtrain.tasks.metrics.precision_recall import (
    f1,
    f1_macro,
    f1_micro,
    f1_per_class,
    precision,
    precision_macro,
    precision_micro,
    precision_per_class,
    recall,
    recall_macro,
    recall_micro,
    recall_per_class,
)
from jaxtrain.tasks.metrics.ranking import average_precision, roc_auc
from jaxtrain.tasks.metrics.regression import (
    mae,
    mae_per_output,
    mse,
    mse_per_output,
    r2,
    r2_per_output,
    rmse,
    rmse_per_output,
)

METRICS = Family(
    "metric",
    {
        "accuracy": accuracy,
        "balanced_accuracy": balanced_accuracy,
        "top_3": top_3,
        "top_5": top_5,
        "precision": precision,
        "precision_micro": precision_micro,
        "precision_macro": precision_macro,
        "precision_per_class": precision_per_class,
        "recall": recall,
        "recall_micro": recall_micro,
        "recall_macro": recall_macro,
        "recall_per_class": recall_per_class,
        "f1": f1,
        "f1_micro": f1_micro,
        "f1_macro": f1_macro,
        "f1_per_class": f1_per_class,
        "confusion_matrix": confusion_matrix,
        "roc_auc": roc_auc,
        "average_precision": average_precision,
        "perplexity": perplexity,
        "calibration_error": calibration_error,
        "mse": mse,
        "rmse": rmse,
        "mae": mae,
        "r2": r2,
        "mse_per_output": mse_per_output,
        "rmse_per_output": rmse_per_output,
        "mae_per_output": mae_per_output,
        "r2_per_output": r2_per_output,
        "exact_match": exact_match,
        "accuracy_per_label": accuracy_per_label,
        "f1_label_mean": f1_label_mean,
        "f1_per_label": f1_per_label,
        "roc_auc_label_mean": roc_auc_label_mean,
        "roc_auc_per_label": roc_auc_per_label,
        "dice": dice,
        "iou": iou,
        "mean_iou": mean_iou,
        "iou_per_class": iou_per_class,
        "mean_average_precision": mean_average_precision,
        "mean_average_precision_50": mean_average_precision_50,
    },
    supplied=("predictions", "targets", "mask"),
)

OVER_CLASSES = frozenset(name for name in METRICS.members if name.endswith("_per_class")) | {"confusion_matrix"}
"""Metrics with a value for each class, or pair of them."""

OVER_TARGETS = frozenset(name for name in METRICS.members if name.endswith(("_per_label", "_per_output")))
"""Metrics with a value for each column of targets (n, columns): labels or outputs."""

SEVERAL = OVER_CLASSES | OVER_TARGETS
"""Metrics with more than one value, which cannot be used as `eval.metric`."""


def measure(
    metric: Callable[..., Mean],
    predictions: jax.Array,
    targets: jax.Array,
    mask: jax.Array,
    centre: Callable[[], jax.Array | float],
) -> Mean:
    """Calls a metric, and gives `centre()`, a point near the targets, to one that has an argument of that name."""
    if "centre" in inspect.signature(metric).parameters:
        return metric(predictions, targets, mask, centre=centre())
    return metric(predictions, targets, mask)


__all__ = ["METRICS", "OVER_CLASSES", "OVER_TARGETS", "SEVERAL", "Mean", "measure", "merge"]
