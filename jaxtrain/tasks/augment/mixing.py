"""Augmentations that mix each example with another one of the batch; the loss counts the targets of both."""

import jax
import jax.numpy as jnp

from jaxtrain.config.schema import Fraction, NonNegative
from jaxtrain.core.state import Batch
from jaxtrain.errors import ConfigError, Words
from jaxtrain.tasks.augment.pictures import are_maps, demand_numbers, picture_size, refuse_boxes
from jaxtrain.tasks.augment.values import boxes
from jaxtrain.tasks.boxes import Boxes
from jaxtrain.tasks.mixtures import mix_targets, next_example, partners_of


def mixup(key: jax.Array, batch: Batch, alpha: NonNegative = 0.2, probability: Fraction = 1.0) -> Batch:
    """Mixes the inputs of two examples, with a probability, by a share from Beta(alpha, alpha).

    The loss is the sum of the losses by both targets, weighted by their shares; metrics count the target with the
    larger one. An `alpha` of 0 mixes nothing. Zhang et al. (2018), https://arxiv.org/abs/1710.09412.
    """
    inputs = demand_numbers(batch)
    kept = _kept(key, inputs.shape[0], alpha, probability)
    shares = kept.reshape(-1, *[1] * (inputs.ndim - 1))
    return mix_targets({**batch, "inputs": shares * inputs + (1.0 - shares) * next_example(inputs)}, kept)


def cutmix(key: jax.Array, batch: Batch, alpha: NonNegative = 1.0, probability: Fraction = 1.0) -> Batch:
    """Replaces a box of each picture, with a probability, by that of another example.

    The fraction of the area that stays is from Beta(alpha, alpha). The loss is weighted by the areas, and metrics count
    the target with the larger one; masks are cut like the pictures. An `alpha` of 0 replaces nothing. Yun et al.
    (2019), https://arxiv.org/abs/1905.04899.
    """
    examples, height, width = picture_size(batch)
    inputs = batch["inputs"]
    targets = batch["targets"]
    if isinstance(targets, Boxes):
        refuse_boxes(targets)
    share, place = jax.random.split(key)
    side = jnp.sqrt(1.0 - _kept(share, examples, alpha, probability))
    pasted = boxes(place, batch, side * height, side * width)
    cut = {**batch, "inputs": jnp.where(pasted[..., None], next_example(inputs), inputs)}
    if are_maps(targets, inputs):
        if partners_of(batch):
            raise ConfigError("augment", Words("masks that are mixed already"), "cutmix before mixup for masks")
        where = pasted.reshape(*pasted.shape, *[1] * (targets.ndim - 3))
        return {**cut, "targets": jnp.where(where, next_example(targets), targets)}
    return mix_targets(cut, 1.0 - pasted.mean(axis=(1, 2), dtype=jnp.float32))


def _kept(key: jax.Array, examples: int, alpha: float | jax.Array, probability: float | jax.Array) -> jax.Array:
    """Draws the share of each example that stays its own, (examples,)."""
    whether, share = jax.random.split(key)
    chosen = jax.random.bernoulli(whether, probability, (examples,)) & (alpha > 0.0)
    positive = jnp.where(alpha > 0.0, alpha, 1.0)
    return jnp.where(chosen, jax.random.beta(share, positive, positive, (examples,)), 1.0)
