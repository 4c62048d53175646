"""Augmentations that change values and move nothing: colours, noise, and squares that are covered.

Strengths are in deviations of the training split, as the inputs are.
"""

import jax
import jax.numpy as jnp

from jaxtrain.config.schema import Fraction, NonNegative
from jaxtrain.core.state import Batch
from jaxtrain.tasks.augment.pictures import demand_numbers, picture_size


def color_jitter(
    key: jax.Array,
    batch: Batch,
    brightness: NonNegative = 0.2,
    contrast: NonNegative = 0.2,
    saturation: NonNegative = 0.2,
) -> Batch:
    """Changes brightness, then contrast, then saturation of each picture.

    Adds up to `brightness` deviations, and multiplies the distance from the picture's mean by up to 1 ± `contrast` and
    that from grey, the mean of a pixel's channels, by up to 1 ± `saturation`. Howard (2013),
    https://arxiv.org/abs/1312.5402, section 2.
    """
    examples = picture_size(batch)[0]
    reaches = jnp.stack([jnp.asarray(reach, jnp.float32) for reach in (brightness, contrast, saturation)])
    changes = jax.random.uniform(key, (3, examples, 1, 1, 1), minval=-1.0, maxval=1.0) * reaches.reshape(3, 1, 1, 1, 1)
    added, *factors = changes
    # A factor below 0 would invert the picture.
    contrasted, saturated = (jnp.maximum(change, -1.0) for change in factors)
    inputs = batch["inputs"] + added
    # Inside loops on a CPU these forms of the two means take a thirtieth of the time of `mean` over several axes.
    mean = inputs.reshape(examples, -1).mean(axis=1).reshape(examples, 1, 1, 1)
    inputs += contrasted * (inputs - mean)
    channels = [inputs[..., i : i + 1] for i in range(inputs.shape[3])]
    inputs += saturated * (inputs - sum(channels[1:], channels[0]) / len(channels))
    return {**batch, "inputs": inputs}


def noise(key: jax.Array, batch: Batch, deviation: NonNegative = 0.1) -> Batch:
    """Adds normal noise to every number of the inputs; `deviation` is in deviations of the training split.

    Sietsma and Dow (1991), Neural Networks 4(1).
    """
    inputs = demand_numbers(batch)
    return {**batch, "inputs": inputs + deviation * jax.random.normal(key, inputs.shape)}


def cutout(key: jax.Array, batch: Batch, side: Fraction = 0.5, probability: Fraction = 1.0) -> Batch:
    """Covers a square of each picture with the mean, with a probability; masks stay.

    Its centre is anywhere in the picture, and its `side` a fraction of the picture's shorter one. DeVries and Taylor
    (2017), https://arxiv.org/abs/1708.04552.
    """
    examples, height, width = picture_size(batch)
    whether, place = jax.random.split(key)
    chosen = jax.random.bernoulli(whether, probability, (examples,))
    sides = jnp.where(chosen, side * min(height, width), 0.0)
    return {**batch, "inputs": jnp.where(boxes(place, batch, sides, sides)[..., None], 0.0, batch["inputs"])}


def boxes(key: jax.Array, batch: Batch, heights: jax.Array, widths: jax.Array) -> jax.Array:
    """Returns which pixels have their centre in a box, (batch, height, width), at a random place of each picture.

    `heights` and `widths`, (batch,), are in pixels. The centre of a box is in the picture, its ends may be outside.
    """
    examples, height, width = picture_size(batch)
    lines = []
    for stream, length, extents in zip(jax.random.split(key), (height, width), (heights, widths), strict=True):
        centres = jax.random.uniform(stream, (examples, 1)) * length
        distances = jnp.abs(jnp.arange(length, dtype=jnp.float32)[None] + 0.5 - centres)
        lines.append(distances < extents[:, None] / 2)
    return lines[0][:, :, None] & lines[1][:, None, :]
