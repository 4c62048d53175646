"""Metrics: sums and counts that merge over batches, devices and steps, and the result computed from them."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

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
from jaxtrain.tasks.metrics.language import bits_per_byte
from jaxtrain.tasks.metrics.overlap import dice, image_dice, image_iou, iou, iou_per_class, mean_iou
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
from jaxtrain.tasks.shapes import as_examples

METRICS = Family(
    "task",
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
        "bits_per_byte": bits_per_byte,
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
        "image_dice": image_dice,
        "image_iou": image_iou,
    },
    supplied=("predictions", "targets", "mask"),
    key="metrics",
)

OVER_CLASSES = frozenset(name for name in METRICS.members if name.endswith("_per_class")) | {"confusion_matrix"}
"""Metrics with a value for each class, or pair of them."""

OVER_TARGETS = frozenset(name for name in METRICS.members if name.endswith(("_per_label", "_per_output")))
"""Metrics with a value for each column of targets (n, columns): labels or outputs."""

OF_BOXES = frozenset({"mean_average_precision", "mean_average_precision_50"})
"""Metrics of detections and boxes; other ones would compare their numbers."""

LOWER_IS_BETTER = frozenset(
    {
        *("perplexity", "bits_per_byte", "calibration_error"),
        *("mse", "rmse", "mae", "mse_per_output", "rmse_per_output", "mae_per_output"),
    }
)
"""The metrics that are errors, as losses are; a confusion matrix has no direction."""

SEVERAL = OVER_CLASSES | OVER_TARGETS
"""Metrics with more than one value, which cannot be used as `eval.metric`."""


def measure(
    metric: Callable[..., Mean],
    predictions: jax.Array,
    targets: jax.Array,
    mask: jax.Array,
    known: Mapping[str, Callable[[], Any]],
) -> Mean:
    """Calls a metric, and gives it the values in `known`, made when they are asked for, that its arguments name.

    Where `known` has "kept", which is false at pixels that do not count, a metric without that argument gets each pixel
    as an example, and those pixels as masked ones.
    """
    names = inspect.signature(metric).parameters
    if "kept" in known and "kept" not in names:
        predictions, targets, mask = as_examples(predictions, targets, mask, known["kept"]())
    return metric(predictions, targets, mask, **{name: make() for name, make in known.items() if name in names})


__all__ = [
    "LOWER_IS_BETTER",
    "METRICS",
    "OF_BOXES",
    "OVER_CLASSES",
    "OVER_TARGETS",
    "SEVERAL",
    "Mean",
    "measure",
    "merge",
]
