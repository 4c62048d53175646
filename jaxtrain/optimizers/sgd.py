"""Descent along gradients, their mean, its signs, or its orthogonal factor: nothing keeps a mean of squares.

In the formulas w are the weights, g their gradients, lr the learning rate; m starts at 0. All shapes are those of the
parameters.
"""

from typing import Annotated

import optax

from jaxtrain.config.schema import Count, Fraction, NonNegative, OncePerRun, Pattern, Positive, Probability
from jaxtrain.optimizers.wrappers import decay_mask


def sgd(
    learning_rate: NonNegative,
    momentum: Fraction | None = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegative | None = None,
    decayed: Pattern | None = None,
) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum, Nesterov's on request; decay is added to the gradients (L2).

    With g ← g + weight_decay w for the parameters whose path matches `decayed` (None: all of two axes and more, neither
    biases nor norms): m ← momentum m + g, w ← w - lr m, Nesterov's w ← w - lr (momentum m + g).
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
    """LARS: momentum whose step in each array is as long as its weights allow, for large batches.

    With g ← g + weight_decay w, m ← momentum m + lr trust_coefficient ‖w‖ / (‖g‖ + eps) g, w ← w - m in each array
    whose path matches `decayed` (None: all of two axes and more); the others, biases and norms, take plain steps of
    momentum, m ← momentum m + lr g. You et al. (2017), https://arxiv.org/abs/1708.03888.

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
    """Lion: the signs of a mean gradient, with decoupled weight decay; wants a rate 3 to 10 times below Adam's.

    w ← w - lr (sign(b1 m + (1 - b1) g) + weight_decay w), m ← b2 m + (1 - b2) g, the decay for the parameters whose
    path matches `decayed` (None: all of two axes and more). Chen et al. (2023), https://arxiv.org/abs/2302.06675.

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
    """Muon: matrices move by the orthogonal factor of their mean gradient, all else by AdamW.

    For arrays of two axes m ← beta m + (1 - beta) g, w ← w - lr s UVᵀ, where UΣVᵀ is the mean and UVᵀ is approached by
    `ns_steps` of Newton and Schulz, s = √max(1, columns / rows), or √max(rows, columns) `consistent_rms`, of which 0.2
    makes Adam's rates fit. All other arrays take steps of AdamW, of `adam_learning_rate` (None: the same).
    w ← w - lr weight_decay w for the parameters of either kind whose path matches `decayed` (None: all of two axes and
    more). Jordan et al. (2024), https://kellerjordan.github.io/posts/muon/; Liu et al. (2025),
    https://arxiv.org/abs/2502.16982.

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
    # optax's own decay takes a mask for the matrices alone.
    return optax.chain(steps, optax.add_decayed_weights(-learning_rate * weight_decay, mask=decay_mask(decayed)))


def rprop(
    learning_rate: Annotated[Positive, OncePerRun()],
    eta_minus: Probability = 0.5,
    eta_plus: NonNegative = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: Positive = 50.0,
) -> optax.GradientTransformation:
    """Rprop: a step size for each weight, grown and shrunk by the gradients' signs; made for the whole set as a batch.

    w ← w - s sign(g), where s grows by `eta_plus` while the sign of g stays and shrinks by `eta_minus` when it turns,
    between `min_step_size` and `max_step_size`; the weight then rests for a step. `learning_rate` is the initial step
    size, read once; optax takes each step one call later, the first call none. Riedmiller and Braun (1993), https://doi.org/10.1109/ICNN.1993.298623.

    >>> optimizer, weights = rprop(learning_rate=0.1), jnp.array([3.0, -4.0])
    >>> _, state = optimizer.update(weights, optimizer.init(weights), weights)
    >>> optimizer.update(weights, state, weights)[0].round(3)
    Array([-0.1,  0.1], dtype=float32)
    """
    return optax.rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size)
