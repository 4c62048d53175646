"""Regression losses: a function of the error of each output, averaged over all but the batch axis."""

import jax
import jax.numpy as jnp
import optax

from jaxtrain.config.schema import Positive
from jaxtrain.tasks.shapes import as_float_pair, mean_per_example


def mse(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Squared error of (batch, ...), averaged over all but the batch axis, as (batch,).

    (prediction - target)², least squares: Legendre (1805); `optax.squared_error`.

    >>> mse(jnp.array([[1.0, 3.0]]), jnp.array([[1.0, 1.0]]))
    Array([2.], dtype=float32)
    """
    return mean_per_example(optax.squared_error(*as_float_pair(predictions, targets)))


def mae(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Absolute error of (batch, ...), averaged over all but the batch axis, as (batch,).

    abs(prediction - target): minimised by the median, hence robust to outliers. Boscovich (1757).

    >>> mae(jnp.array([[1.0, 3.0]]), jnp.array([[1.0, 1.0]]))
    Array([1.], dtype=float32)
    """
    predictions, targets = as_float_pair(predictions, targets)
    return mean_per_example(jnp.abs(predictions - targets))


def huber(predictions: jax.Array, targets: jax.Array, delta: Positive = 1.0) -> jax.Array:
    """Huber's loss of (batch, ...), averaged over all but the batch axis, as (batch,).

    e² / 2 for errors e up to delta, delta (abs(e) - delta / 2) beyond. Huber (1964), Annals of Mathematical Statistics
    35(1); `optax.huber_loss`.

    >>> huber(jnp.array([[0.5], [3.0]]), jnp.zeros((2, 1)))
    Array([0.125, 2.5  ], dtype=float32)
    """
    return mean_per_example(optax.huber_loss(*as_float_pair(predictions, targets), delta=delta))


def log_cosh(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Logarithm of the hyperbolic cosine of the error of (batch, ...), averaged over all but the batch axis.

    log cosh e, as (batch,): about e² / 2 for small errors and abs(e) - log 2 for large ones, smooth everywhere. Saleh
    and Saleh (2022), https://arxiv.org/abs/2208.04564; `optax.log_cosh`.

    >>> log_cosh(jnp.array([[0.0], [1.0]]), jnp.zeros((2, 1))).round(1)
    Array([0. , 0.4], dtype=float32)
    """
    return mean_per_example(optax.log_cosh(*as_float_pair(predictions, targets)))
