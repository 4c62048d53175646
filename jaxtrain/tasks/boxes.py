"""Boxes in pictures: their overlap, what cells of a grid say of them, and which of several that overlap are kept.

A box is (y, x, height, width), with y and x of its top left corner. Functions of single boxes take any leading axes,
and broadcast them. Units are pixels in batches and predictions, and fractions of the picture's height and width
between, so that no function needs the size of a picture or of a cell.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

PRIOR = np.float32(np.log(0.01 / 0.99))
"""Logit of a cell before training, as boxes are rare: Lin et al. (2017), https://arxiv.org/abs/1708.02002, 4.1."""

LARGEST = 8.0
"""Logarithm of the largest side, in cells, that outputs can say: further ones would leave the range of float32."""


class Boxes(struct.PyTreeNode):
    """Targets of a batch that are boxes, so that augmentations move them: (batch, most, 5), float32.

    Each row is (class, y, x, height, width) in pixels; a class of -1 is no box.
    """

    values: jax.Array


def iou(boxes: jax.Array, others: jax.Array) -> jax.Array:
    """Returns intersection over union of boxes (..., 4) and (..., 4), as (...); 0 for empty boxes."""
    return _overlap(boxes, others)[0]


def giou(boxes: jax.Array, others: jax.Array) -> jax.Array:
    """Returns generalised intersection over union of boxes (..., 4) and (..., 4), from -1 to 1, as (...).

    IoU - (H - U) / H with the area H of the smallest box around both and that of their union U, so that boxes apart
    have a gradient, too. Rezatofighi et al. (2019), https://arxiv.org/abs/1902.09630.
    """
    share, union = _overlap(boxes, others)
    start, end = _ends(boxes)
    other_start, other_end = _ends(others)
    around = jnp.maximum(end, other_end) - jnp.minimum(start, other_start)
    hull = around[..., 0] * around[..., 1]
    return share - _divide(hull - union, hull)


def decode(outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Reads outputs (batch, rows, columns, 4 + classes) as boxes and logits, (batch, cells, 4) and (.., classes).

    Boxes are in fractions of the picture. The first two outputs of a cell place the centre of its box within the cell,
    by their sigmoid; the next two are the logarithms of its height and width in cells.
    """
    examples, rows, columns, size = outputs.shape
    grid = np.moveaxis(np.mgrid[:rows, :columns], 0, -1).astype(np.float32)[None]
    cells = np.array([rows, columns], np.float32).reshape(1, 1, 1, 2)
    centres = (grid + jax.nn.sigmoid(outputs[..., :2])) / cells
    sides = jnp.exp(jnp.clip(outputs[..., 2:4], -LARGEST, LARGEST)) / cells
    boxes = jnp.concatenate([centres - sides / 2, sides], axis=-1)
    logits = outputs[..., 4:] + PRIOR
    return boxes.reshape(examples, -1, 4), logits.reshape(examples, -1, size - 4)


def centre_cells(boxes: jax.Array, rows: int, columns: int) -> jax.Array:
    """Returns the cell (...) in which the centre of each box (..., 4) in fractions lies, int32, counted along rows."""
    centres = boxes[..., :2] + boxes[..., 2:] / 2
    row, column = (
        jnp.clip(jnp.floor(centres[..., i] * length), 0, length - 1).astype(jnp.int32)
        for i, length in enumerate((rows, columns))
    )
    return row * columns + column


def detect(outputs: jax.Array, candidates: int, overlap: float | jax.Array) -> jax.Array:
    """Returns what outputs detect, (batch, candidates, 4 + classes): boxes in fractions, and scores.

    The cells with the highest scores are candidates. A score is a probability, or 0 where a box with a higher score of
    the same class covers it by an IoU above `overlap` (non-maximum suppression).
    """
    boxes, logits = decode(outputs)
    count = min(candidates, boxes.shape[1])
    places = jax.lax.top_k(logits.max(axis=-1), count)[1][..., None]
    boxes, logits = (jnp.take_along_axis(values, places, axis=1) for values in (boxes, logits))
    suppress_classes = jax.vmap(suppress, in_axes=(None, 1, None), out_axes=1)
    scores = jax.vmap(suppress_classes, in_axes=(0, 0, None))(boxes, jax.nn.sigmoid(logits), overlap)
    return jnp.concatenate([boxes, scores], axis=-1)


def suppress(boxes: jax.Array, scores: jax.Array, overlap: float | jax.Array) -> jax.Array:
    """Returns the scores (n,) of boxes (n, 4), 0 for those that a kept box with a higher score covers.

    Covered means an IoU above `overlap`. Boxes are taken from the highest score down.
    """
    order = jnp.argsort(-scores)
    ranked = boxes[order]
    covers = iou(ranked[:, None], ranked[None]) > overlap
    later = jnp.arange(len(scores))

    def take(i: jax.Array, kept: jax.Array) -> jax.Array:
        return kept & ~(covers[i] & kept[i] & (later > i))

    kept = jax.lax.fori_loop(0, len(scores), take, jnp.ones(len(scores), bool))
    return jnp.where(kept[jnp.argsort(order)], scores, 0.0)


def _ends(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the corners (top, left) and (bottom, right), (..., 2) each."""
    return boxes[..., :2], boxes[..., :2] + boxes[..., 2:]


def _overlap(boxes: jax.Array, others: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns IoU and the area of the union, (...) each."""
    start, end = _ends(boxes)
    other_start, other_end = _ends(others)
    sides = jnp.maximum(jnp.minimum(end, other_end) - jnp.maximum(start, other_start), 0.0)
    common = sides[..., 0] * sides[..., 1]
    union = boxes[..., 2] * boxes[..., 3] + others[..., 2] * others[..., 3] - common
    return _divide(common, union), union


def _divide(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Divides; 0 where the denominator is 0, with finite gradients."""
    return jnp.where(denominator > 0.0, numerator / jnp.where(denominator > 0.0, denominator, 1.0), 0.0)
