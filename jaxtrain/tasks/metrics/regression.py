"""Regression metrics, in the targets' own units."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.floats import as_floats
from jaxtrain.core.metric import Mean
from jaxtrain.tasks.shapes import flatten_examples, mean_per_example


def mse(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Mean squared error over examples and outputs, in the targets' own units squared.

    Σ (prediction - target)² / n of (batch, ...); scikit-learn's `mean_squared_error`.

    >>> mse(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]), jnp.ones(2)).result()
    2.0
    """
    return Mean.of(mean_per_example(_errors(predictions, targets) ** 2), mask)


def rmse(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Root of the mean squared error of each output, averaged over outputs, in the targets' own units.

    √(Σ (prediction - target)² / n) of (batch, ...); scikit-learn's `root_mean_squared_error`.

    >>> rmse(jnp.array([4.0, 6.0]), jnp.array([1.0, 3.0]), jnp.ones(2)).result()
    3.0
    """
    return Mean.of(flatten_examples(_errors(predictions, targets) ** 2), mask, finish=_rmse)


def mae(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Mean absolute error over examples and outputs, in the targets' own units.

    Σ abs(prediction - target) / n of (batch, ...); scikit-learn's `mean_absolute_error`.

    >>> mae(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]), jnp.ones(2)).result()
    1.0
    """
    return Mean.of(mean_per_example(jnp.abs(_errors(predictions, targets))), mask)


def r2(predictions: jax.Array, targets: jax.Array, mask: jax.Array, centre: jax.Array | float = 0.0) -> Mean:
    """Coefficient of determination, 1 - residual / total sum of squares, averaged over outputs.

    scikit-learn's `r2_score` with its default, uniform average; for constant targets 1 if they are predicted, else 0.
    Undefined, hence nan, for a single example. Sums are taken about `centre`, which tasks set to the mean of the
    training targets; where targets lie more than 300 of their standard deviations from it, float32 sums lose their
    spread, and the result is nan.

    >>> r2(jnp.array([1.0, 2.0, 6.0]), jnp.array([1.0, 3.0, 5.0]), jnp.ones(3)).result()
    0.75
    """
    squared_errors = _errors(predictions, targets) ** 2
    centred = as_floats(targets) - centre
    sums = jnp.stack([flatten_examples(values) for values in (squared_errors, centred, centred**2)], axis=1)
    return Mean.of(sums, mask, finish=_r2, higher_is_better=True)


def mse_per_output(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Mean squared error of each output, as mse_per_output/0 and so on, in the targets' own units squared.

    scikit-learn's `mean_squared_error(multioutput="raw_values")`.

    >>> mse_per_output(jnp.array([[1.0, 3.0]]), jnp.array([[1.0, 1.0]]), jnp.ones(1)).numbers("mse")
    {'mse/0': 0.0, 'mse/1': 4.0}
    """
    return Mean.of(flatten_examples(_errors(predictions, targets) ** 2), mask)


def rmse_per_output(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Root of the mean squared error of each output, as rmse_per_output/0 and so on, in the targets' own units.

    scikit-learn's `root_mean_squared_error(multioutput="raw_values")`.

    >>> rmse_per_output(jnp.array([[1.0, 3.0]]), jnp.array([[1.0, 1.0]]), jnp.ones(1)).numbers("rmse")
    {'rmse/0': 0.0, 'rmse/1': 2.0}
    """
    return Mean.of(flatten_examples(_errors(predictions, targets) ** 2), mask, finish=_each_rmse)


def mae_per_output(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Mean absolute error of each output, as mae_per_output/0 and so on, in the targets' own units.

    scikit-learn's `mean_absolute_error(multioutput="raw_values")`.

    >>> mae_per_output(jnp.array([[1.0, 3.0]]), jnp.array([[1.0, 1.0]]), jnp.ones(1)).numbers("mae")
    {'mae/0': 0.0, 'mae/1': 2.0}
    """
    return Mean.of(flatten_examples(jnp.abs(_errors(predictions, targets))), mask)


def r2_per_output(predictions: jax.Array, targets: jax.Array, mask: jax.Array, centre: jax.Array | float = 0.0) -> Mean:
    """Coefficient of determination of each output, as r2_per_output/0 and so on; otherwise as `r2`.

    scikit-learn's `r2_score(multioutput="raw_values")`.

    >>> targets = jnp.array([[1.0, 1.0], [3.0, 3.0]])
    >>> r2_per_output(jnp.array([[1.0, 2.0], [3.0, 2.0]]), targets, jnp.ones(2)).numbers("r2")
    {'r2/0': 1.0, 'r2/1': 0.0}
    """
    return r2(predictions, targets, mask, centre).replace(finish=_each_r2)


def _errors(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    return as_floats(predictions) - as_floats(targets)


def _rmse(total: Any, count: Any) -> Any:
    return _each_rmse(total, count).mean()


def _each_rmse(total: Any, count: Any) -> Any:
    return np.sqrt(np.asarray(total, np.float64) / count)


LOST = 1e-5
"""Share of the mean square below which a variance is no more than rounding: 300 deviations from the centre."""


def _r2(total: Any, count: Any) -> Any:
    return _each_r2(total, count).mean()


def _each_r2(total: Any, count: Any) -> Any:
    if count < 2:
        return np.full(np.shape(total)[1:], np.nan)
    residual, mean, square = np.asarray(total, np.float64) / count
    variance = square - mean**2
    explained = 1.0 - residual / np.where(variance > 0, variance, 1.0)
    lost = (variance != 0) & (variance < LOST * square)
    return np.where(lost, np.nan, np.where(variance > 0, explained, residual == 0))
