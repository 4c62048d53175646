"""Overlap losses of masks: the overlap of predicted and true regions in each example.

All take one logit per pixel and masks of 0 and 1, both (batch, ...), or logits (batch, ..., classes) and labels
(batch, ...). Then each class is a mask, and the loss is averaged over classes, background included. For an empty mask,
or a class that an example lacks: with `smooth` above 0 the loss is 0 if nothing is predicted and close to 1 if much is;
with `smooth` 0 it is 1, or 0 if all predicted probabilities are exactly 0. `kept` (batch, ...) says which pixels count.
"""

import jax
import jax.numpy as jnp

from jaxtrain.config.schema import NonNegative
from jaxtrain.tasks.losses.classification import binary_cross_entropy, cross_entropy
from jaxtrain.tasks.shapes import as_float_pair, as_logits_and_labels, flatten_examples, is_binary


def dice(
    predictions: jax.Array,
    targets: jax.Array,
    smooth: NonNegative = 1.0,
    squared: bool = False,
    kept: jax.Array | None = None,
) -> jax.Array:
    """Soft Dice loss of logits against masks of 0 and 1, or of classes, per example, as (batch,).

    1 - (2 Σ p t + smooth) / (Σ p + Σ t + smooth); with `smooth` above 0 an empty mask that is predicted empty costs 0.
    Milletari et al. (2016), https://arxiv.org/abs/1606.04797; `squared` has Σ p² + Σ t² in the denominator, as in their
    paper.

    >>> dice(jnp.array([[9.0, -9.0], [9.0, 9.0]]), jnp.array([[1, 0], [1, 0]])).round(2)
    Array([0.  , 0.25], dtype=float32)
    """
    probability, truth = _masks(predictions, targets, kept)
    power = 2 if squared else 1
    size = (probability**power).sum(axis=2) + (truth**power).sum(axis=2)
    return 1.0 - _ratio(2.0 * (probability * truth).sum(axis=2) + smooth, size + smooth).mean(axis=1)


def iou(
    predictions: jax.Array, targets: jax.Array, smooth: NonNegative = 1.0, kept: jax.Array | None = None
) -> jax.Array:
    """Soft intersection over union of logits against masks of 0 and 1, or of classes, per example, as (batch,).

    1 - (Σ p t + smooth) / (Σ p + Σ t - Σ p t + smooth), the Jaccard index of probabilities. Rahman and Wang (2016),
    https://doi.org/10.1007/978-3-319-50835-1_22.

    >>> iou(jnp.array([[9.0, -9.0], [9.0, 9.0]]), jnp.array([[1, 0], [1, 0]])).round(1)
    Array([0. , 0.3], dtype=float32)
    """
    return tversky(predictions, targets, 1.0, 1.0, smooth, kept)


def tversky(
    predictions: jax.Array,
    targets: jax.Array,
    alpha: NonNegative = 0.3,
    beta: NonNegative = 0.7,
    smooth: NonNegative = 1.0,
    kept: jax.Array | None = None,
) -> jax.Array:
    """Tversky loss of logits against masks of 0 and 1, or of classes, per example, as (batch,).

    1 - (T + smooth) / (T + alpha F + beta M + smooth), with true positives T = Σ p t, false positives
    F = Σ p (1 - t) and false negatives M = Σ (1 - p) t: beta above alpha favours recall. 0.5 and 0.5 is Dice with half
    its `smooth`, 1 and 1 is intersection over union. Salehi et al. (2017), https://arxiv.org/abs/1706.05721.

    >>> tversky(jnp.array([[-9.0, -9.0], [9.0, 9.0]]), jnp.array([[1, 0], [1, 0]])).round(2)
    Array([0.41, 0.13], dtype=float32)
    """
    probability, truth = _masks(predictions, targets, kept)
    hits = (probability * truth).sum(axis=2)
    false_positives = (probability * (1.0 - truth)).sum(axis=2)
    false_negatives = ((1.0 - probability) * truth).sum(axis=2)
    size = hits + alpha * false_positives + beta * false_negatives
    return 1.0 - _ratio(hits + smooth, size + smooth).mean(axis=1)


def dice_cross_entropy(
    predictions: jax.Array,
    targets: jax.Array,
    dice_weight: NonNegative = 1.0,
    smooth: NonNegative = 1.0,
    squared: bool = False,
    kept: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy plus `dice_weight` times soft Dice, per example, as (batch,).

    Uses `binary_cross_entropy` for masks of 0 and 1, `cross_entropy` for classes, averaged over pixels. Its gradients
    do not vanish where nothing overlaps yet. Isensee et al. (2021), https://doi.org/10.1038/s41592-020-01008-z, with
    equal weights.

    >>> dice_cross_entropy(jnp.zeros((1, 2)), jnp.array([[1, 0]])).round(4)
    Array([1.0265], dtype=float32)
    """
    entropy = binary_cross_entropy if is_binary(predictions, targets) else cross_entropy
    return entropy(predictions, targets, kept=kept) + dice_weight * dice(predictions, targets, smooth, squared, kept)


def _masks(predictions: jax.Array, targets: jax.Array, kept: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Returns predicted probabilities and true masks, both (batch, classes, pixels), and 0 at pixels left out."""
    if is_binary(predictions, targets):
        logits, truth = as_float_pair(predictions, targets)
        masks = flatten_examples(jax.nn.sigmoid(logits))[:, None], flatten_examples(truth)[:, None]
    else:
        logits, labels = as_logits_and_labels(predictions, targets)
        shape = (len(logits), -1, logits.shape[-1])
        truth = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        masks = jax.nn.softmax(logits).reshape(shape).swapaxes(1, 2), truth.reshape(shape).swapaxes(1, 2)
    if kept is None:
        return masks
    inside = flatten_examples(kept)[:, None]
    return jnp.where(inside, masks[0], 0.0), jnp.where(inside, masks[1], 0.0)


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Divides; 0 / 0, an empty mask that is predicted empty, is 1."""
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1.0), 1.0)
