"""The task whose targets are segmentation masks."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxtrain.config.registry import Values
from jaxtrain.core.state import Task
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import ConfigError, Words
from jaxtrain.tasks.linen import LossFunction, ModelFunction, linen_task
from jaxtrain.tasks.shapes import PerExample, name_of, reshape_outputs
from jaxtrain.tasks.show.masks import views_of_masks


def segmentation(
    model: ModelFunction, loss: LossFunction, info: DataInfo, metrics: tuple[str, ...] = ("dice",)
) -> Task:
    """Segments images into foreground and background (targets are masks of 0 and 1) or into classes (labels from 0).

    The model returns one logit per pixel, or one per pixel and class if the data have more than two classes. No loss
    and no metric counts pixels with the void label of the data.
    """
    classes = info.classes or 2
    axes = (classes,) if classes > 2 else ()

    def kept(targets: jax.Array) -> jax.Array:
        return targets != info.void

    def labels(targets: jax.Array) -> jax.Array:
        return jnp.where(kept(targets), targets, 0)

    has_void = info.void is not None
    task = linen_task(
        lambda values: model(values, math.prod(axes)),
        _without_void(loss, kept, labels) if has_void else loss,
        metrics,
        shaped=lambda outputs: reshape_outputs(outputs, (*info.target_shape, *axes), model),
        measured=lambda outputs, targets: (outputs, labels(targets) if has_void else targets),
        known={"kept": kept} if has_void else {},
    )
    return task._replace(**views_of_masks(info)._asdict())


def _without_void(
    loss: LossFunction, kept: Callable[[jax.Array], jax.Array], labels: Callable[[jax.Array], jax.Array]
) -> LossFunction:
    """Returns the loss over the pixels that are kept; raises ConfigError for one that cannot leave pixels out."""
    if not (isinstance(loss, PerExample) and loss.takes("kept")):
        got = Words(f"{name_of(loss)!r} for masks with a void label")
        expected = "a loss with an argument `kept`, which is false at pixels that do not count"
        raise ConfigError("loss.name", got, expected, "Add it, or take a loss such as dice_cross_entropy")

    def loss_of_kept(values: Values, predictions: jax.Array, targets: jax.Array) -> jax.Array:
        return loss(values, predictions, labels(targets), kept=kept(targets))

    return loss_of_kept
