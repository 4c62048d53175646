"""Augmentations that move pixels; targets with a value for each pixel, and boxes, move along."""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxtrain.config.schema import Bounds, Count, Fraction, NonNegative
from jaxtrain.core.state import Batch
from jaxtrain.errors import ConfigError, Words
from jaxtrain.tasks.augment.box_moves import along_lines, turn_boxes
from jaxtrain.tasks.augment.pictures import gather_lines, move, picture_size, take_lines, take_pixels, warp

Scalar = float | jax.Array


def pad_and_crop(key: jax.Array, batch: Batch, pixels: NonNegative = 4.0) -> Batch:
    """Shifts each picture by up to `pixels` whole pixels along both axes, filled with the mean.

    A crop at a random place of the picture with a border of `pixels` around it: He et al. (2016),
    https://arxiv.org/abs/1512.03385, section 4.2.
    """
    examples, height, width = picture_size(batch)
    reach = pixels + 0.5  # rounding gives every whole number up to `pixels` the same probability
    shifts = jnp.round(jax.random.uniform(key, (2, examples, 1), minval=-reach, maxval=reach)).astype(jnp.int32)
    return gather_lines(batch, _places(height) + shifts[0], _places(width) + shifts[1])


def crop(key: jax.Array, batch: Batch, height: Count, width: Count | None = None) -> Batch:
    """Cuts a part of `height` times `width` pixels (None: a square) at a random place of each picture.

    Evaluation sees whole pictures, so the model has to take any size, as fully convolutional ones do.
    """
    examples, old_height, old_width = picture_size(batch)
    width = height if width is None else width
    if height > old_height or width > old_width:
        got = Words(f"a crop of {height} x {width}")
        raise ConfigError("augment", got, f"one within pictures of {old_height} x {old_width}", "Make it smaller")
    places = []
    for stream, new, old in zip(jax.random.split(key), (height, width), (old_height, old_width), strict=True):
        places.append(_places(new) + jax.random.randint(stream, (examples, 1), 0, old - new + 1))
    return gather_lines(batch, *places)


def random_resized_crop(
    key: jax.Array,
    batch: Batch,
    smallest: Annotated[float, Bounds(0, 1, open_low=True)] = 0.25,
    stretch: Annotated[float, Bounds(1)] = 4 / 3,
) -> Batch:
    """Cuts a part of at least the fraction `smallest` of the area of each picture, and resizes it to the old size.

    Height and width are scaled by factors with a ratio between 1 / `stretch` and `stretch`. Pixels are interpolated
    linearly, those of masks are the nearest ones. Szegedy et al. (2015), https://arxiv.org/abs/1409.4842, section 6,
    who take areas from 0.08.
    """
    examples, height, width = picture_size(batch)
    keys = jax.random.split(key, 4)
    area = jax.random.uniform(keys[0], (examples, 1), minval=smallest, maxval=1.0)
    ratio = jnp.exp(_symmetric(keys[1], (examples, 1), jnp.log(stretch)))
    rows = _part(keys[2], height, jnp.minimum(jnp.sqrt(area * ratio), 1.0))
    columns = _part(keys[3], width, jnp.minimum(jnp.sqrt(area / ratio), 1.0))

    def linear(pictures: jax.Array) -> jax.Array:
        return _between_lines(_between_lines(pictures, rows, 1), columns, 2)

    def nearest(maps: jax.Array) -> jax.Array:
        return take_lines(take_lines(maps, _nearest(rows), 1), _nearest(columns), 2)

    return move(batch, linear, nearest, lambda boxes: along_lines(boxes, rows, columns, (height, width)))


def flip(key: jax.Array, batch: Batch, probability: Fraction = 0.5) -> Batch:
    """Mirrors each picture, left to right, with a probability.

    Krizhevsky et al. (2012), https://doi.org/10.1145/3065386, section 4.1.
    """
    examples, _, width = picture_size(batch)
    return gather_lines(batch, columns=_mirrored(key, examples, width, probability))


def flip_vertical(key: jax.Array, batch: Batch, probability: Fraction = 0.5) -> Batch:
    """Mirrors each picture, top to bottom, with a probability: for pictures without an upright direction."""
    examples, height, _ = picture_size(batch)
    return gather_lines(batch, rows=_mirrored(key, examples, height, probability))


def quarter_turns(key: jax.Array, batch: Batch, probability: Fraction = 0.75) -> Batch:
    """Turns each square picture, with a probability, by 90, 180 or 270 degrees, each as likely as the others."""
    examples, height, width = picture_size(batch)
    if height != width:
        raise ConfigError("augment", Words(f"pictures of {height} x {width}"), "square ones for quarter turns")
    whether, which = jax.random.split(key)
    turned = jax.random.bernoulli(whether, probability, (examples, 1, 1))
    turns = jnp.where(turned, jax.random.randint(which, (examples, 1, 1), 1, 4), 0)
    down = _places(height)[..., None]
    right = _places(width)[:, None]
    up = height - 1 - down
    left = width - 1 - right
    shape = (examples, height, width)

    def pixels(pictures: jax.Array) -> jax.Array:
        rows, columns = (_choose(turns, places, shape) for places in ((down, right, up, left), (right, up, left, down)))
        return take_pixels(pictures, rows, columns)

    return move(batch, pixels, pixels, lambda boxes: turn_boxes(boxes, turns, height))


def rotate(key: jax.Array, batch: Batch, degrees: NonNegative = 15.0) -> Batch:
    """Turns each picture about its centre by up to `degrees` in both directions, filled with the mean.

    Pixels are interpolated linearly, those of masks are the nearest ones.
    """
    examples = picture_size(batch)[0]
    return _transform(batch, _turn(_symmetric(key, (examples,), jnp.deg2rad(degrees))), jnp.zeros((examples, 2)))


def affine(
    key: jax.Array,
    batch: Batch,
    degrees: NonNegative = 10.0,
    shift: NonNegative = 0.1,
    zoom: NonNegative = 0.1,
    shear: Annotated[float, Bounds(0, 80)] = 0.0,
) -> Batch:
    """Turns, shifts, zooms and shears each picture about its centre, filled with the mean.

    By up to `degrees` in both directions, a fraction `shift` of height and width, a factor 1 + `zoom` or its inverse,
    and `shear` degrees along the rows. Pixels are interpolated linearly, those of masks are the nearest ones. Simard et
    al. (2003), https://doi.org/10.1109/ICDAR.2003.1227801.
    """
    examples, height, width = picture_size(batch)
    keys = jax.random.split(key, 4)
    turn = _turn(_symmetric(keys[0], (examples,), jnp.deg2rad(degrees)))
    scale = jnp.exp(_symmetric(keys[1], (examples, 1, 1), jnp.log1p(zoom)))
    slope = jnp.tan(_symmetric(keys[2], (examples, 1, 1), jnp.deg2rad(shear)))
    sheared = turn + slope * turn[:, :, :1] * jnp.array([[[0.0, 1.0]]])  # times [[1, slope], [0, 1]]
    shifts = _symmetric(keys[3], (examples, 2), shift) * jnp.array([[height, width]], jnp.float32)
    return _transform(batch, scale * sheared, shifts)


def _transform(batch: Batch, matrices: jax.Array, shifts: jax.Array) -> Batch:
    """Moves pixels: each takes the value at `matrices` (batch, 2, 2) times its place from the centre, plus `shifts`."""
    _, height, width = picture_size(batch)
    centre = ((height - 1) / 2, (width - 1) / 2)
    down = jnp.arange(height, dtype=jnp.float32)[None, :, None] - centre[0]
    right = jnp.arange(width, dtype=jnp.float32)[None, None, :] - centre[1]
    m = matrices[..., None, None]
    s = shifts[..., None, None]
    rows = m[:, 0, 0] * down + m[:, 0, 1] * right + s[:, 0] + centre[0]
    columns = m[:, 1, 0] * down + m[:, 1, 1] * right + s[:, 1] + centre[1]
    return warp(batch, rows, columns)


def _turn(radians: jax.Array) -> jax.Array:
    """Returns matrices (batch, 2, 2) that turn places (row, column)."""
    cos = jnp.cos(radians)
    sin = jnp.sin(radians)
    return jnp.stack([jnp.stack([cos, sin], -1), jnp.stack([-sin, cos], -1)], -2)


def _symmetric(key: jax.Array, shape: tuple[int, ...], reach: Scalar) -> jax.Array:
    """Draws numbers between -reach and reach; exactly 0 for a reach of 0."""
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) * reach


def _places(length: int) -> jax.Array:
    """Returns the places 0 to length - 1 of a line, (1, length)."""
    return jnp.arange(length, dtype=jnp.int32)[None]


def _mirrored(key: jax.Array, examples: int, length: int, probability: Scalar) -> jax.Array:
    """Returns the places of a line, (examples, length), in reverse with a probability."""
    mirrored = jax.random.bernoulli(key, probability, (examples, 1))
    return jnp.where(mirrored, length - 1 - _places(length), _places(length))


def _part(key: jax.Array, length: int, fraction: jax.Array) -> jax.Array:
    """Returns places (examples, length) at equal distances in a random part of a line, a `fraction` of it long."""
    start = jax.random.uniform(key, fraction.shape) * (1.0 - fraction) * length
    return start + (_places(length).astype(jnp.float32) + 0.5) * fraction - 0.5


def _nearest(places: jax.Array) -> jax.Array:
    return jnp.floor(places + 0.5).astype(jnp.int32)


def _between_lines(pictures: jax.Array, places: jax.Array, axis: int) -> jax.Array:
    """Interpolates linearly between lines along an axis, at places (batch, n); beyond the last line it is repeated."""
    inside = jnp.clip(places, 0.0, pictures.shape[axis] - 1.0)
    first = jnp.floor(inside).astype(jnp.int32)
    second = jnp.minimum(first + 1, pictures.shape[axis] - 1)
    shape = [len(places), 1, 1, 1]
    shape[axis] = -1
    weight = (inside - jnp.floor(inside)).reshape(shape)
    return take_lines(pictures, first, axis) * (1.0 - weight) + take_lines(pictures, second, axis) * weight


def _choose(turns: jax.Array, places: tuple[jax.Array, ...], shape: tuple[int, ...]) -> jax.Array:
    """Returns the places of as many quarter turns as `turns` says."""
    return jnp.select(
        [jnp.broadcast_to(turns == k, shape) for k in range(4)], [jnp.broadcast_to(p, shape) for p in places]
    )
