"""Descent along gradients, their running mean, its signs or its orthogonal factor, without a mean of squares.

In the formulas w are the weights, g their gradients and lr the learning rate; m starts at 0. All arrays have the shapes
of the parameters.
"""

import optax

from jaxtrain.config.schema import Count, Fraction, NonNegative, Pattern, Positive, Probability
from jaxtrain.optimizers.wrappers import decay_mask


def sgd(
    learning_rate: NonNegative,
    momentum: Fraction | None = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegative | None = None,
    decayed: Pattern | None = None,
) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum, optionally Nesterov's; weight decay is added to the gradients (L2).

    With g ← g + weight_decay w for parameters whose path matches `decayed` (None: arrays with at least two axes, hence
    not biases and norms): m ← momentum m + g, w ← w - lr m, or w ← w - lr (momentum m + g) with Nesterov's momentum.
    Sutskever et al. (2013), https://proceedings.mlr.press/v28/sutskever13.html.

    >>> optimizer, weights = sgd(learning_rate=0.1), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(3)
    Array([-0.3,  0.4], dtype=float32)
    """
    descent = optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov)
    if weight_decay is None:
        return descent
    return optax.chain(optax.add_decayed_weights(weight_decay, mask=decay_mask(decayed)), descent)


def lars(
    learning_rate: NonNegative,
    momentum: Fraction = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegative = 0.0,
    trust_coefficient: Positive = 0.001,
    eps: NonNegative = 0.0,
    decayed: Pattern | None = None,
) -> optax.GradientTransformation:
    """LARS: momentum with the step of each array scaled to the norm of its weights, for large batches.

    With g ← g + weight_decay w, m ← momentum m + lr trust_coefficient ‖w‖ / (‖g‖ + eps) g, w ← w - m for arrays
    whose path matches `decayed` (None: arrays with at least two axes). The others, biases and norms, take plain
    momentum steps, m ← momentum m + lr g. You et al. (2017), https://arxiv.org/abs/1708.03888.

    >>> optimizer, weights = lars(learning_rate=1.0), jnp.array([[3.0, -4.0]])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(3)
    Array([[-0.003,  0.004]], dtype=float32)
    """
    return optax.lars(
        learning_rate,
        weight_decay=weight_decay,
        weight_decay_mask=decay_mask(decayed),
        trust_coefficient=trust_coefficient,
        eps=eps,
        trust_ratio_mask=decay_mask(decayed),
        momentum=momentum,
        nesterov=nesterov,
    )


def lion(
    learning_rate: NonNegative,
    b1: Probability = 0.9,
    b2: Probability = 0.99,
    weight_decay: NonNegative = 1e-3,
    decayed: Pattern | None = None,
) -> optax.GradientTransformation:
    """Lion: the sign of a mean gradient, with decoupled weight decay; use rates 3 to 10 times below Adam's.

    w ← w - lr (sign(b1 m + (1 - b1) g) + weight_decay w), m ← b2 m + (1 - b2) g, with decay of parameters whose
    path matches `decayed` (None: arrays with at least two axes). Chen et al. (2023), https://arxiv.org/abs/2302.06675.

    >>> optimizer, weights = lion(learning_rate=0.1), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(3)
    Array([-0.1,  0.1], dtype=float32)
    """
    return optax.lion(learning_rate, b1=b1, b2=b2, weight_decay=weight_decay, mask=decay_mask(decayed))


def muon(
    learning_rate: NonNegative,
    beta: Probability = 0.95,
    nesterov: bool = True,
    ns_steps: Count = 5,
    consistent_rms: Positive | None = None,
    weight_decay: NonNegative = 0.0,
    adam_learning_rate: NonNegative | None = None,
    adam_b1: Probability = 0.9,
    adam_b2: Probability = 0.999,
    eps: NonNegative = 1e-8,
    decayed: Pattern | None = None,
) -> optax.GradientTransformation:
    """Muon: matrices move along the orthogonal factor of their mean gradient; other arrays are updated by AdamW.

    For arrays with two axes m ← beta m + (1 - beta) g, w ← w - lr s UVᵀ, where UΣVᵀ is the singular value decomposition
    of the mean, and UVᵀ is approximated by `ns_steps` Newton-Schulz iterations. The scale s is √max(1, columns / rows),
    or √max(rows, columns) `consistent_rms`, with which (at 0.2) Adam's rates fit. Other arrays take AdamW steps at
    `adam_learning_rate` (None: the same rate). w ← w - lr weight_decay w for parameters of both kinds whose path
    matches `decayed` (None: arrays with at least two axes). Jordan et al. (2024),
    https://kellerjordan.github.io/posts/muon/; Liu et al. (2025), https://arxiv.org/abs/2502.16982.

    >>> optimizer, weights = muon(learning_rate=0.1), jnp.array([[3.0, 0.0], [0.0, -4.0]])
    >>> jnp.abs(optimizer.update(weights, optimizer.init(weights), weights)[0]).round(1)
    Array([[0.1, 0. ],
           [0. , 0.1]], dtype=float32)
    """
    steps = optax.contrib.muon(
        learning_rate,
        ns_steps=ns_steps,
        beta=beta,
        eps=eps,
        nesterov=nesterov,
        adam_b1=adam_b1,
        adam_b2=adam_b2,
        adam_learning_rate=adam_learning_rate,
        consistent_rms=consistent_rms,
    )
    # The weight decay of optax's Muon takes a mask for matrices only.
    return optax.chain(steps, optax.add_decayed_weights(-learning_rate * weight_decay, mask=decay_mask(decayed)))
