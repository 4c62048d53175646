"""Losses: one number per example, so that masks and weights work with all of them.

Losses of masks have an argument `kept`, like the targets, which is false at pixels that do not count.
"""

from jaxtrain.config.registry import Family
from jaxtrain.tasks.losses.boxes import focal_giou
from jaxtrain.tasks.losses.classification import binary_cross_entropy, binary_focal, cross_entropy, focal, kl_divergence
from jaxtrain.tasks.losses.overlap import dice, dice_cross_entropy, iou, tversky
from jaxtrain.tasks.losses.regression import huber, log_cosh, mae, mse

LOSSES = Family(
    "loss",
    {
        "cross_entropy": cross_entropy,
        "binary_cross_entropy": binary_cross_entropy,
        "focal": focal,
        "binary_focal": binary_focal,
        "kl_divergence": kl_divergence,
        "mse": mse,
        "mae": mae,
        "huber": huber,
        "log_cosh": log_cosh,
        "dice": dice,
        "iou": iou,
        "tversky": tversky,
        "dice_cross_entropy": dice_cross_entropy,
        "focal_giou": focal_giou,
    },
    supplied=("predictions", "targets"),
    offered=("kept",),
)
