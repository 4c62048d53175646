"""Augmentations that move pixels; targets with a value for each pixel move along."""

import jax
import jax.numpy as jnp

from jaxtrain.config.schema import Count, Fraction, NonNegative
from jaxtrain.core.state import Batch
from jaxtrain.errors import ConfigError, Words
from jaxtrain.tasks.augment.pictures import gather, picture_size


def pad_and_crop(key: jax.Array, batch: Batch, pixels: NonNegative = 4.0) -> Batch:
    """Shifts each picture by up to `pixels` whole pixels along both axes, filled with the mean.

    A crop at a random place of the picture with a border of `pixels` around it: He et al. (2016),
    https://arxiv.org/abs/1512.03385, section 4.2.
    """
    examples, height, width = picture_size(batch)
    reach = pixels + 0.5  # rounding gives every whole number up to `pixels` the same probability
    shifts = jnp.round(jax.random.uniform(key, (2, examples, 1), minval=-reach, maxval=reach)).astype(jnp.int32)
    return gather(batch, _places(height) + shifts[0], _places(width) + shifts[1])


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
    return gather(batch, *places)


def flip(key: jax.Array, batch: Batch, probability: Fraction = 0.5) -> Batch:
    """Mirrors each picture, left to right, with a probability.

    Krizhevsky et al. (2012), https://doi.org/10.1145/3065386, section 4.1.
    """
    examples, _, width = picture_size(batch)
    return gather(batch, columns=_mirrored(key, examples, width, probability))


def flip_vertical(key: jax.Array, batch: Batch, probability: Fraction = 0.5) -> Batch:
    """Mirrors each picture, top to bottom, with a probability: for pictures without an upright direction."""
    examples, height, _ = picture_size(batch)
    return gather(batch, rows=_mirrored(key, examples, height, probability))


def _places(length: int) -> jax.Array:
    """Returns the places 0 to length - 1 of a line, (1, length)."""
    return jnp.arange(length, dtype=jnp.int32)[None]


def _mirrored(key: jax.Array, examples: int, length: int, probability: float | jax.Array) -> jax.Array:
    """Returns the places of a line, (examples, length), in reverse with a probability."""
    mirrored = jax.random.bernoulli(key, probability, (examples, 1))
    return jnp.where(mirrored, length - 1 - _places(length), _places(length))
