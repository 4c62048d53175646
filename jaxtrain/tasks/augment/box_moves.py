"""Boxes that move with pictures: a box whose centre leaves the picture is gone, and the others are cut at its edges."""

import jax
import jax.numpy as jnp

from jaxtrain.tasks.boxes import Boxes


def along_lines(boxes: Boxes, rows: jax.Array | None, columns: jax.Array | None, size: tuple[int, int]) -> Boxes:
    """Moves boxes as pictures of a new height and width, whose lines are at places of the old picture.

    `rows` (batch, new height) and `columns` (batch, new width) are at equal distances, in either order; None: all.
    """
    vertical = _along(boxes.values, 1, rows, size[0])
    return _within(boxes, vertical, _along(boxes.values, 2, columns, size[1]), size)


def turn_boxes(boxes: Boxes, turns: jax.Array, length: int) -> Boxes:
    """Turns boxes as square pictures of a side `length`, by as many quarters as `turns` (batch, 1, 1) says."""
    y, x, height, width = (boxes.values[..., i] for i in range(1, 5))
    quarters = [(y, x), (length - x - width, y), (length - y - height, length - x - width), (x, length - y - height)]
    chosen = [jnp.choose(turns[..., 0], [quarter[axis] for quarter in quarters], mode="clip") for axis in (0, 1)]
    sideways = turns[..., 0] % 2 == 1
    sides = (jnp.where(sideways, width, height), jnp.where(sideways, height, width))
    return _within(boxes, (chosen[0], sides[0]), (chosen[1], sides[1]), (length, length))


def _along(values: jax.Array, place: int, lines: jax.Array | None, length: int) -> tuple[jax.Array, jax.Array]:
    """Returns start and side of boxes along an axis, (batch, most) each; `lines` are (batch, length)."""
    start = values[..., place]
    side = values[..., place + 2]
    if lines is None:
        return start, side
    first, last = (lines[:, i, None].astype(jnp.float32) for i in (0, -1))
    step = (last - first) / (length - 1) if length > 1 else jnp.ones_like(first)
    edge = first + 0.5 - 0.5 * step  # the old place of the new picture's edge: lines are at the centres of pixels
    return (jnp.where(step > 0, start, start + side) - edge) / step, side / jnp.abs(step)


def _within(
    boxes: Boxes, vertical: tuple[jax.Array, jax.Array], horizontal: tuple[jax.Array, jax.Array], size: tuple[int, int]
) -> Boxes:
    """Returns boxes of these (start, side), cut at the edges of a picture, with the old classes, or -1 if outside."""
    inside = boxes.values[..., 0] >= 0
    starts = []
    sides = []
    for (start, side), length in zip((vertical, horizontal), size, strict=True):
        centre = start + side / 2
        inside &= (centre >= 0) & (centre < length)
        starts.append(jnp.maximum(start, 0.0))
        sides.append(side - jnp.maximum(-start, 0.0) - jnp.maximum(start + side - length, 0.0))
    moved = jnp.stack([boxes.values[..., 0], *starts, *sides], axis=-1)
    return Boxes(jnp.where(inside[..., None], moved, -1.0))
