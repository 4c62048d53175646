"""Classification losses: logits against labels, binary targets or distributions.

Logits may be infinite: -inf rules out a class that is not the target, and then losses and gradients are those of the
other classes alone. In the binary losses an infinite logit whose sign agrees with a target of 0 or 1 costs nothing. An
infinite logit that contradicts the target makes the loss infinite. `kept` (batch, ...) says which targets count.
"""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxtrain.config.schema import Fraction, NonNegative
from jaxtrain.core.floats import as_floats
from jaxtrain.tasks.shapes import as_float_pair, as_logits_and_labels, mean_per_example

CERTAIN = 1e30  # stands for an infinite logit: the sigmoid is exactly 0 or 1, and 0 times its logarithm is 0, not nan


def cross_entropy(
    predictions: jax.Array, targets: jax.Array, label_smoothing: Fraction = 0.0, kept: jax.Array | None = None
) -> jax.Array:
    """Cross-entropy of logits (batch, ..., classes) against labels (batch, ...), as (batch,) in nats.

    log Σ exp z - z[label], averaged over axes between batch and classes, such as pixels. With smoothing s the target
    is (1 - s) at the label plus s / classes everywhere: Szegedy et al. (2016), https://arxiv.org/abs/1512.00567. With s
    above 0 a class whose logit is -inf makes the loss infinite. Class weights: see `task.class_balance`.

    >>> cross_entropy(jnp.zeros((1, 4)), jnp.array([2])).round(4)
    Array([1.3863], dtype=float32)
    """
    logits, labels = as_logits_and_labels(predictions, targets)
    chosen = jnp.take_along_axis(logits, labels, axis=-1)[..., 0]
    # Logits whose share is 0 are left out: they may be infinite, and 0 * inf is nan.
    chosen = jnp.where(label_smoothing < 1.0, chosen, 0.0)
    spread = jnp.where(label_smoothing > 0.0, logits, 0.0)
    expected = (1.0 - label_smoothing) * chosen + label_smoothing * spread.mean(axis=-1)
    return mean_per_example(jax.nn.logsumexp(logits, axis=-1) - expected, kept)


def binary_cross_entropy(predictions: jax.Array, targets: jax.Array, kept: jax.Array | None = None) -> jax.Array:
    """Cross-entropy of one logit per target of 0 or 1, both (batch, ...), as (batch,) in nats.

    -t log p - (1 - t) log (1 - p) with p = sigmoid(z), averaged over all but the batch axis; targets between 0 and 1
    are probabilities, and 0 log 0 is 0. As `optax.sigmoid_binary_cross_entropy` for finite logits.

    >>> binary_cross_entropy(jnp.array([0.0, 2.0]), jnp.array([1, 1])).round(4)
    Array([0.6931, 0.1269], dtype=float32)
    """
    logits, truth = as_float_pair(predictions, targets)
    log_p = jnp.where(truth != 0.0, jax.nn.log_sigmoid(logits), 0.0)
    log_not_p = jnp.where(truth != 1.0, jax.nn.log_sigmoid(-logits), 0.0)
    return mean_per_example(-truth * log_p - (1.0 - truth) * log_not_p, kept)


def focal(
    predictions: jax.Array, targets: jax.Array, gamma: NonNegative = 2.0, kept: jax.Array | None = None
) -> jax.Array:
    """Focal loss of logits (batch, ..., classes) against labels (batch, ...), as (batch,).

    -(1 - p)^gamma log p with p the probability of the label: well-classified examples count less; gamma 0
    is cross-entropy. Lin et al. (2017), https://arxiv.org/abs/1708.02002, with softmax in place of their sigmoid.

    >>> focal(jnp.array([[0.0, 0.0], [4.0, 0.0]]), jnp.array([0, 0])).round(4)
    Array([0.1733, 0.    ], dtype=float32)
    """
    logits, labels = as_logits_and_labels(predictions, targets)
    total = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, labels, axis=-1)[..., 0]
    # log(1 - p) is summed over the other classes: computed from p, it would be -inf once p rounds to 1.
    classes = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    others = jnp.where(labels == classes, -jnp.inf, logits)
    # Where every other class is ruled out, log p is 0: any weight serves, but 0 * -inf for gamma * log(1 - p) is nan.
    some = (others > -jnp.inf).any(axis=-1)
    log_one_minus_p = jnp.where(some, jax.nn.logsumexp(jnp.where(some[..., None], others, 0.0), axis=-1) - total, 0.0)
    return mean_per_example(jnp.exp(gamma * log_one_minus_p) * (total - chosen), kept)


def binary_focal(
    predictions: jax.Array,
    targets: jax.Array,
    gamma: NonNegative = 2.0,
    alpha: Fraction = 0.25,
    kept: jax.Array | None = None,
) -> jax.Array:
    """Focal loss of one logit per target of 0 or 1, both (batch, ...), as (batch,).

    -a (1 - p)^gamma log p with p the probability of the target, a = alpha where it is 1 and 1 - alpha where it is 0;
    averaged over all but the batch axis. Lin et al. (2017), https://arxiv.org/abs/1708.02002, with their defaults;
    `optax.sigmoid_focal_loss`.

    >>> binary_focal(jnp.array([0.0, 4.0]), jnp.array([1, 1])).round(4)
    Array([0.0433, 0.    ], dtype=float32)
    """
    logits, truth = finite_where_right(predictions, targets)
    return mean_per_example(optax.sigmoid_focal_loss(logits, truth, alpha=alpha, gamma=gamma), kept)


def kl_divergence(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Kullback–Leibler divergence from softmax of logits to target distributions, both (batch, ..., classes).

    Σ t (log t - log softmax(z)), averaged over the axes between batch and classes, as (batch,) in nats. Its gradients
    equal those of cross-entropy with soft targets, and its minimum is 0. Kullback and Leibler (1951), Annals
    of Mathematical Statistics 22(1); `optax.kl_divergence`.

    >>> kl_divergence(jnp.zeros((2, 2)), jnp.array([[0.5, 0.5], [1.0, 0.0]])).round(4)
    Array([0.    , 0.6931], dtype=float32)
    """
    logits, truth = as_float_pair(predictions, targets)
    log_predictions = jnp.where(truth != 0.0, jax.nn.log_softmax(logits), 0.0)  # it may be -inf, and 0 * -inf is nan
    return mean_per_example(optax.kl_divergence(log_predictions, truth))


def class_weights(counts: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Class weights (classes,) by the effective number of examples, with mean 1 over all examples.

    w = (1 - beta) / (1 - beta^n) for a class of n examples: beta 0 weights all classes equally, beta 1 by 1 / n
    ("balanced"). A class without examples counts as one with a single example. Cui et al. (2019),
    https://arxiv.org/abs/1901.05555, but with another normalisation: their weights sum to the number of classes, these
    keep the scale of the loss, so that the same learning rate fits.

    >>> class_weights(jnp.array([30, 10]), 1.0).round(4)
    Array([0.6667, 2.    ], dtype=float32)
    """
    beta = as_floats(beta)
    counts = jnp.asarray(counts, beta.dtype)
    sizes = jnp.maximum(counts, 1.0)
    safe_beta = jnp.where(beta < 1.0, beta, 0.5)  # at beta = 1 the ratio is 0 / 0, with the limit 1 / n
    effective = -jnp.expm1(sizes * jnp.log(safe_beta)) / (1.0 - safe_beta)
    weights = 1.0 / jnp.where(beta < 1.0, effective, sizes)
    return weights * counts.sum() / (weights * counts).sum()


def finite_where_right(predictions: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns both as floats, with infinite logits that agree with targets of 0 or 1 replaced by CERTAIN ones."""
    logits, truth = as_float_pair(predictions, targets)
    logits = jnp.where((logits == jnp.inf) & (truth == 1.0), CERTAIN, logits)
    return jnp.where((logits == -jnp.inf) & (truth == 0.0), -CERTAIN, logits), truth
