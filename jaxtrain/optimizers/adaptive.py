"""Adaptive optimizers without Adam's momentum: gradients over the root of a mean, or a sum, of their squares.

In the formulas w are the weights, g their gradients and lr the learning rate. Accumulators start at 0 unless stated
otherwise. All arrays have the shapes of the parameters.
"""

from typing import Annotated

import optax

from jaxtrain.config.schema import Bounds, Count, Fraction, NonNegative, OncePerRun, Pattern, Probability
from jaxtrain.optimizers.wrappers import decay_mask


def rmsprop(
    learning_rate: NonNegative,
    decay: Probability = 0.9,
    eps: NonNegative = 1e-8,
    centered: bool = False,
    momentum: Fraction | None = None,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """RMSprop: gradients over the root of a running mean of their squares.

    v ← decay v + (1 - decay) g², w ← w - lr g / √(v + eps); `centered` subtracts the square of the mean gradient from
    v, and `momentum` applies to the steps. Tieleman and Hinton (2012),
    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf.

    >>> optimizer, weights = rmsprop(learning_rate=0.1), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(3)
    Array([-0.316,  0.316], dtype=float32)
    """
    return optax.rmsprop(learning_rate, decay, eps, centered=centered, momentum=momentum, nesterov=nesterov)


def adagrad(
    learning_rate: NonNegative,
    initial_accumulator_value: Annotated[NonNegative, OncePerRun()] = 0.1,
    eps: NonNegative = 1e-7,
) -> optax.GradientTransformation:
    """Adagrad: gradients over the root of the sum of their squares, so that steps shrink.

    v ← v + g² from `initial_accumulator_value`, w ← w - lr g / √(v + eps), 0 where v is 0.
    Duchi et al. (2011), https://jmlr.org/papers/v12/duchi11a.html.

    >>> optimizer, weights = adagrad(learning_rate=1.0), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(1)
    Array([-1.,  1.], dtype=float32)
    """
    return optax.adagrad(learning_rate, initial_accumulator_value, eps)


def adadelta(
    learning_rate: NonNegative,
    rho: Probability = 0.9,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    decayed: Pattern | None = None,
) -> optax.GradientTransformation:
    """Adadelta: steps in the units of the weights, from running means of squared steps and squared gradients.

    With g ← g + weight_decay w for parameters whose path matches `decayed` (None: arrays with at least two axes):
    v ← rho v + (1 - rho) g², d = g √(u + eps) / √(v + eps), u ← rho u + (1 - rho) d², w ← w - lr d; the paper has
    lr = 1. Zeiler (2012), https://arxiv.org/abs/1212.5701.

    >>> optimizer, weights = adadelta(learning_rate=1.0), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(4)
    Array([-0.0032,  0.0032], dtype=float32)
    """
    mask = decay_mask(decayed)
    return optax.adadelta(learning_rate, rho=rho, eps=eps, weight_decay=weight_decay, weight_decay_mask=mask)


def adafactor(
    learning_rate: NonNegative,
    decay_rate: NonNegative = 0.8,
    clipping_threshold: Annotated[float, Bounds(1)] | None = 1.0,
    momentum: Probability | None = None,
    weight_decay: NonNegative | None = None,
    eps: NonNegative = 1e-30,
    multiply_by_parameter_scale: bool = True,
    factored: bool = True,
    min_dim_size_to_factor: Count = 128,
    decayed: Pattern | None = None,
) -> optax.GradientTransformation:
    """Adafactor: stores the mean of squares of a large matrix as its row and column sums only.

    v ← b v + (1 - b) (g² + eps) with b = 1 - t^-decay_rate, factored into rows and columns for matrices whose sides are
    at least `min_dim_size_to_factor`; u = g / √v, with its root mean square clipped to `clipping_threshold`;
    w ← w - lr rms(w) u, where rms(w) is at least 1e-3, and left out if `multiply_by_parameter_scale` is off. The decay
    w ← w - weight_decay w, not multiplied by lr, applies to parameters whose path matches `decayed` (None: arrays with
    at least two axes).
    Shazeer and Stern (2018), https://arxiv.org/abs/1804.04235.

    >>> optimizer, weights = adafactor(learning_rate=0.1), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(3)
    Array([-0.354,  0.354], dtype=float32)
    """
    return optax.adafactor(
        learning_rate,
        min_dim_size_to_factor=min_dim_size_to_factor,
        decay_rate=decay_rate,
        multiply_by_parameter_scale=multiply_by_parameter_scale,
        clipping_threshold=clipping_threshold,
        momentum=momentum,
        weight_decay_rate=weight_decay,
        eps=eps,
        factored=factored,
        weight_decay_mask=decay_mask(decayed),
    )
