"""Schedule-free optimizers: an average of the weights replaces a decaying learning rate.

There are three sequences: z descends, x is its average, and gradients are taken at y = (1 - b1) z + b1 x. The
parameters in the state are y; a model is evaluated and used at x, which is computed from y and z. Do not combine with a
decaying schedule; for warm-up alone use `warmup_stable_decay` with `decay=0`. Batch norm statistics are taken at y.
Defazio et al. (2024), https://arxiv.org/abs/2405.15682.
"""

from typing import Annotated

import optax

from jaxtrain.config.schema import Bounds, NonNegative, OncePerRun, Pattern, Probability
from jaxtrain.optimizers.wrappers import decay_mask

Interpolation = Annotated[float, Bounds(0, 1, open_low=True), OncePerRun()]
"""The weight of x in y; fixed for the whole run, since x is computed from it."""


def schedule_free_sgd(
    learning_rate: NonNegative,
    b1: Interpolation = 0.9,
    weight_decay: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
    decayed: Pattern | None = None,
) -> optax.GradientTransformation:
    """Schedule-free SGD: use a rate 10 to 50 times that of SGD with momentum, and no schedule but a warm-up.

    z ← z - lr (g + weight_decay y), with decay of parameters whose path matches `decayed` (None: arrays with at least
    two axes); x ← (1 - c) x + c z with c = lr^p / (sum of lr^p so far), where lr is the largest rate so far and p is
    `weight_lr_power`.
    Defazio et al. (2024), https://arxiv.org/abs/2405.15682.

    >>> optimizer, weights = schedule_free_sgd(learning_rate=0.1), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(3)
    Array([-0.3,  0.4], dtype=float32)
    """
    descent = optax.chain(optax.add_decayed_weights(weight_decay, mask=decay_mask(decayed)), optax.sgd(learning_rate))
    return optax.contrib.schedule_free(descent, learning_rate, b1=b1, weight_lr_power=weight_lr_power)


def schedule_free_adamw(
    learning_rate: NonNegative,
    b1: Interpolation = 0.9,
    b2: Probability = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
    decayed: Pattern | None = None,
) -> optax.GradientTransformation:
    """Schedule-free AdamW: use a rate 1 to 10 times that of AdamW, and no schedule but a warm-up.

    z ← z - lr (g / (√v̂ + eps) + weight_decay y) with AdamW's v̂ and decay of parameters whose path matches
    `decayed` (None: arrays with at least two axes); x as in schedule_free_sgd.
    Defazio et al. (2024), https://arxiv.org/abs/2405.15682.

    >>> optimizer, weights = schedule_free_adamw(learning_rate=0.1), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(3)
    Array([-0.1,  0.1], dtype=float32)
    """
    descent = optax.chain(
        optax.scale_by_rms(decay=b2, eps=eps, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(weight_decay, mask=decay_mask(decayed)),
        optax.scale_by_learning_rate(learning_rate),
    )
    return optax.contrib.schedule_free(descent, learning_rate, b1=b1, weight_lr_power=weight_lr_power)
