"""Adam and its variants: a running mean of the gradients over the root of a running mean of their squares.

In the formulas w are the weights, g their gradients and lr the learning rate. m and v start at 0; a hat divides by
1 - b1ᵗ or 1 - b2ᵗ at step t, counted from 1. All arrays have the shapes of the parameters.
"""

import optax

from jaxtrain.config.schema import NonNegative, Pattern, Probability
from jaxtrain.optimizers.wrappers import decay_mask


def adam(
    learning_rate: NonNegative, b1: Probability = 0.9, b2: Probability = 0.999, eps: NonNegative = 1e-8
) -> optax.GradientTransformation:
    """Adam: steps of about the learning rate, whatever the size of the gradients.

    m ← b1 m + (1 - b1) g, v ← b2 v + (1 - b2) g², w ← w - lr m̂ / (√v̂ + eps).
    Kingma and Ba (2015), https://arxiv.org/abs/1412.6980.

    >>> optimizer, weights = adam(learning_rate=0.1), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(3)
    Array([-0.1,  0.1], dtype=float32)
    """
    return optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)


def adamw(
    learning_rate: NonNegative,
    b1: Probability = 0.9,
    b2: Probability = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-4,
    decayed: Pattern | None = None,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay, which skips biases and norms.

    Adam's step, and w ← w - lr weight_decay w for parameters whose path matches `decayed` (None: arrays with at least
    two axes). Loshchilov and Hutter (2019), https://arxiv.org/abs/1711.05101.

    >>> optimizer, weights = adamw(learning_rate=0.1, weight_decay=0.5), jnp.array([[3.0, -4.0]])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(3)
    Array([[-0.25,  0.3 ]], dtype=float32)
    """
    return optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decay_mask(decayed))


def nadam(
    learning_rate: NonNegative, b1: Probability = 0.9, b2: Probability = 0.999, eps: NonNegative = 1e-8
) -> optax.GradientTransformation:
    """Adam with Nesterov's momentum.

    Adam, with b1 m / (1 - b1ᵗ⁺¹) + (1 - b1) g / (1 - b1ᵗ) in place of m̂.
    Dozat (2016), https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ.

    >>> optimizer, weights = nadam(learning_rate=0.1), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(3)
    Array([-0.147,  0.147], dtype=float32)
    """
    return optax.nadam(learning_rate, b1=b1, b2=b2, eps=eps)


def radam(
    learning_rate: NonNegative,
    b1: Probability = 0.9,
    b2: Probability = 0.999,
    eps: NonNegative = 1e-8,
    threshold: NonNegative = 5.0,
) -> optax.GradientTransformation:
    """Rectified Adam: momentum alone until the variance estimate is reliable, then Adam with a built-in warm-up.

    Adam's step times √((n - 4)(n - 2) k / ((k - 4)(k - 2) n)), k = 2 / (1 - b2) - 1, once n = k - 2 t b2ᵗ / (1 - b2ᵗ)
    is at least `threshold`; before that w ← w - lr m̂. Liu et al. (2020), https://arxiv.org/abs/1908.03265.

    >>> optimizer, weights = radam(learning_rate=0.1), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(3)
    Array([-0.3,  0.4], dtype=float32)
    """
    return optax.radam(learning_rate, b1=b1, b2=b2, eps=eps, threshold=threshold)


def adabelief(
    learning_rate: NonNegative, b1: Probability = 0.9, b2: Probability = 0.999, eps: NonNegative = 1e-16
) -> optax.GradientTransformation:
    """AdaBelief: larger steps where gradients are close to their running mean.

    Adam, with v ← b2 v + (1 - b2) (g - m)². Zhuang et al. (2020), https://arxiv.org/abs/2010.07468.

    >>> optimizer, weights = adabelief(learning_rate=0.1), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(2)
    Array([-0.11,  0.11], dtype=float32)
    """
    return optax.adabelief(learning_rate, b1=b1, b2=b2, eps=eps)


def amsgrad(
    learning_rate: NonNegative, b1: Probability = 0.9, b2: Probability = 0.999, eps: NonNegative = 1e-8
) -> optax.GradientTransformation:
    """AMSGrad: Adam whose step sizes never grow.

    Adam, with the largest v̂ so far in place of v̂. Reddi et al. (2018), https://openreview.net/forum?id=ryQu7f-RZ.

    >>> optimizer, weights = amsgrad(learning_rate=0.1), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(3)
    Array([-0.1,  0.1], dtype=float32)
    """
    return optax.amsgrad(learning_rate, b1=b1, b2=b2, eps=eps)


def yogi(
    learning_rate: NonNegative, b1: Probability = 0.9, b2: Probability = 0.999, eps: NonNegative = 1e-3
) -> optax.GradientTransformation:
    """Yogi: Adam with a bounded change of the mean of squares in each step.

    Adam, with v ← v - (1 - b2) sign(v - g²) g², m and v from 1e-6.
    Zaheer et al. (2018), https://proceedings.neurips.cc/paper/2018/hash/90365351ccc7437a1309dc64e4db32a3-Abstract.html.

    >>> optimizer, weights = yogi(learning_rate=0.1), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(3)
    Array([-0.1,  0.1], dtype=float32)
    """
    return optax.yogi(learning_rate, b1=b1, b2=b2, eps=eps)


def adan(
    learning_rate: NonNegative,
    b1: Probability = 0.98,
    b2: Probability = 0.92,
    b3: Probability = 0.99,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    decayed: Pattern | None = None,
) -> optax.GradientTransformation:
    """Adan: Nesterov's momentum, estimated from differences between successive gradients.

    With d = g - (g of the previous step): m ← b1 m + (1 - b1) g, δ ← b2 δ + (1 - b2) d,
    n ← b3 n + (1 - b3) (g + (1 - b2) d)², w ← w - lr ((m̂ + (1 - b2) δ̂) / (√n̂ + eps) + weight_decay w), with decay of
    parameters whose path matches `decayed` (None: arrays with at least two axes).
    Xie et al. (2024), https://arxiv.org/abs/2208.06677, as in optax; the paper has b2 for the factor 1 - b2 of d and δ̂.

    >>> optimizer, weights = adan(learning_rate=0.1), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(3)
    Array([-0.1,  0.1], dtype=float32)
    """
    mask = decay_mask(decayed)
    return optax.adan(learning_rate, b1=b1, b2=b2, b3=b3, eps=eps, weight_decay=weight_decay, mask=mask)


def lamb(
    learning_rate: NonNegative,
    b1: Probability = 0.9,
    b2: Probability = 0.999,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    decayed: Pattern | None = None,
) -> optax.GradientTransformation:
    """LAMB: AdamW with the step of each array scaled to the norm of its weights, for large batches.

    With u = m̂ / (√v̂ + eps) + weight_decay w in each array: w ← w - lr ‖w‖ / ‖u‖ u, and w ← w - lr u where a norm is
    0. Decay applies to parameters whose path matches `decayed` (None: arrays with at least two axes).
    You et al. (2020), https://arxiv.org/abs/1904.00962.

    >>> optimizer, weights = lamb(learning_rate=0.1), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(3)
    Array([-0.354,  0.354], dtype=float32)
    """
    return optax.lamb(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decay_mask(decayed))
