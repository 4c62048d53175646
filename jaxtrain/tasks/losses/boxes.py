"""The loss of boxes on a grid of cells."""

import jax
import jax.numpy as jnp
import optax

from jaxtrain.config.schema import Fraction, NonNegative
from jaxtrain.tasks.boxes import centre_cells, decode, giou
from jaxtrain.tasks.losses.classification import finite_where_right
from jaxtrain.tasks.shapes import as_cells_and_boxes


def focal_giou(
    predictions: jax.Array,
    targets: jax.Array,
    gamma: NonNegative = 2.0,
    alpha: Fraction = 0.25,
    box_weight: NonNegative = 1.0,
) -> jax.Array:
    """Focal loss of the classes of cells, and 1 - GIoU of boxes, for outputs (batch, rows, columns, 4 + classes).

    Targets (batch, most, 5) are (class, y, x, height, width) in fractions of the picture, class -1 for no box.
    A cell has the class of the boxes whose centre lies in it. Both terms are summed over a picture and divided by its
    number of boxes, at least 1, as (batch,). Lin et al. (2017), https://arxiv.org/abs/1708.02002, and
    Rezatofighi et al. (2019), https://arxiv.org/abs/1902.09630.

    >>> box = jnp.array([[[0, 0.25, 0.25, 0.5, 0.5]]])  # in one cell, whose outputs of 0 say a box over all of it
    >>> focal_giou(jnp.zeros((1, 1, 1, 5)), box).round(4)
    Array([1.8784], dtype=float32)
    """
    outputs, boxes = as_cells_and_boxes(predictions, targets)
    exists = boxes[..., 0] >= 0
    true = jnp.where(exists[..., None], boxes[..., 1:], 1.0)  # any box that has an area
    cells = centre_cells(true, *outputs.shape[1:3])
    found, logits = decode(outputs)
    matched = jnp.take_along_axis(found, cells[..., None], axis=1)
    apart = jnp.where(exists, 1.0 - giou(matched, true), 0.0).sum(axis=1)
    truth = _mark(cells, jnp.where(exists, boxes[..., 0], -1.0), logits)
    of_classes = optax.sigmoid_focal_loss(*finite_where_right(logits, truth), alpha=alpha, gamma=gamma).sum(axis=(1, 2))
    return (of_classes + box_weight * apart) / jnp.maximum(exists.sum(axis=1, dtype=apart.dtype), 1.0)


def _mark(cells: jax.Array, classes: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns 1 at the cells and classes of boxes, (batch, most) each, and otherwise 0, in the shape of the logits."""
    examples = jnp.arange(len(cells))[:, None]
    places = jnp.where(classes >= 0, classes, logits.shape[2]).astype(jnp.int32)  # those beyond the last are dropped
    return jnp.zeros_like(logits).at[examples, cells, places].set(1.0, mode="drop")
