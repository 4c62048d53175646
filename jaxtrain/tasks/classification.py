"""Tasks whose targets are classes: labels, binary targets, or distributions over classes."""

import math
from typing import Any

import jax
import numpy as np

from jaxtrain.config.registry import Values
from jaxtrain.config.schema import Fraction
from jaxtrain.core.state import Task
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import DataError, Words
from jaxtrain.tasks.linen import LossFunction, ModelFunction, linen_task
from jaxtrain.tasks.losses.classification import class_weights
from jaxtrain.tasks.shapes import reshape_outputs
from jaxtrain.tasks.show.classes import views_of_classes
from jaxtrain.tasks.show.labels import views_of_labels


def classification(
    model: ModelFunction,
    loss: LossFunction,
    info: DataInfo,
    class_balance: Fraction | None = None,
    metrics: tuple[str, ...] = ("accuracy",),
) -> Task:
    """Classifies: the model returns one logit per class, targets are labels from 0.

    `class_balance` weights any loss by the effective number of training examples of each class: 0 weights all classes
    equally, 1 by the inverse number of examples, and Cui et al. (2019) use values near 0.999; see
    `losses.class_weights`.
    """
    if info.classes is None or info.target_shape:
        hint = "Take a task that fits the targets"
        raise DataError("task.name", "classification", "data with integer labels, one for each example", hint)
    classes = info.classes
    task = linen_task(
        lambda values: model(values, classes),
        _balance_classes(loss, info, class_balance),
        metrics,
        shaped=lambda outputs: reshape_outputs(outputs, (classes,), model),
    )
    return task._replace(**views_of_classes(info)._asdict())


def binary_classification(
    model: ModelFunction,
    loss: LossFunction,
    info: DataInfo,
    class_balance: Fraction | None = None,
    metrics: tuple[str, ...] = ("accuracy",),
) -> Task:
    """Binary classification: the model returns one logit per target of 0 or 1; see `multi_label` for several labels.

    `class_balance` is as in `classification`, and needs one target per example.
    """
    shape = info.target_shape
    if (info.classes or 2) > 2:
        got = Words(f"'binary_classification' for {info.classes} classes")
        hint = "Take 'classification' for more"
        raise DataError("task.name", got, "labels 0 and 1", hint)
    task = linen_task(
        lambda values: model(values, math.prod(shape)),
        _balance_classes(loss, info, class_balance),
        metrics,
        shaped=lambda outputs: reshape_outputs(outputs, shape, model),
    )
    views = views_of_labels(info) if math.prod(shape) > 1 else views_of_classes(info)
    return task._replace(**views._asdict())


def multi_label(
    model: ModelFunction,
    loss: LossFunction,
    info: DataInfo,
    metrics: tuple[str, ...] = ("accuracy", "exact_match", "f1_label_mean"),
) -> Task:
    """Predicts which of several labels an example has: the model returns one logit per label, targets are 0 or 1.

    Targets that are lists of names become such rows. Each label is predicted where its logit is above 0.
    """
    if len(info.target_shape) != 1:
        got = Words(f"'multi_label' for targets of shape {info.target_shape} an example")
        raise DataError("task.name", got, "a list of labels, or a row of 0 and 1, for each example")
    (labels,) = info.target_shape
    task = linen_task(
        lambda values: model(values, labels),
        loss,
        metrics,
        shaped=lambda outputs: reshape_outputs(outputs, (labels,), model),
    )
    return task._replace(**views_of_labels(info)._asdict())


def label_distribution(model: ModelFunction, loss: LossFunction, info: DataInfo, metrics: tuple[str, ...] = ()) -> Task:
    """Predicts distributions over classes: the model returns one logit per class, targets are rows of probabilities."""
    if len(info.target_shape) != 1:
        got = Words(f"'label_distribution' for targets of shape {info.target_shape} an example")
        raise DataError("task.name", got, "a row of probabilities for each example")
    shape = info.target_shape
    task = linen_task(
        lambda values: model(values, *shape),
        loss,
        metrics,
        shaped=lambda outputs: reshape_outputs(outputs, shape, model),
    )
    return task._replace(**views_of_classes(info)._asdict())


def _balance_classes(loss: LossFunction, info: DataInfo, beta: Any) -> LossFunction:
    """Weights the loss of each example by its class; None returns the loss unchanged."""
    if beta is None:
        return loss
    if not info.class_counts:
        hint = "Leave task.class_balance out"
        raise DataError("task.class_balance", Words("a float"), "None where examples have no single label", hint)

    def balanced_loss(values: Values, predictions: jax.Array, targets: jax.Array) -> jax.Array:
        return loss(values, predictions, targets) * class_weights(np.asarray(info.class_counts), beta)[targets]

    return balanced_loss
