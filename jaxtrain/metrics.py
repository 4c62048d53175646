"""Metrics: sums and counts that merge over batches, devices and steps, and the number that they come to at the end."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxtrain.families import Family


def _ratio(total: Any, count: Any) -> Any:
    return total / count


class Mean(struct.PyTreeNode):
    """The one form of a metric: a sum and a count, added up wherever metrics meet.

    `sum` may be an array, for numbers that are no plain mean: `finish(sum, count)` turns the totals into the number
    that is reported, so no value depends on batch size, padding or device count. `finish` is a function at module
    level, since it is part of what identifies the compiled program.
    """

    sum: jax.Array
    count: jax.Array
    finish: Callable[[Any, Any], Any] = struct.field(pytree_node=False, default=_ratio)
    higher_is_better: bool = struct.field(pytree_node=False, default=False)

    @classmethod
    def of(cls, per_example: jax.Array, mask: jax.Array, **static: Any) -> "Mean":
        """Adds up values of shape (batch, ...) over the examples whose entry of `mask` (batch,) is not 0."""
        weights = mask.reshape(mask.shape + (1,) * (per_example.ndim - 1))
        # A padded row may hold anything: a product with 0 would let its infinities through.
        kept = jnp.where(weights > 0, per_example.astype(jnp.float32) * weights, 0.0)
        return cls(kept.sum(axis=0), mask.sum(), **static)

    def result(self) -> float:
        """Returns the number that sum and count come to; nan where nothing was counted."""
        return float(self.finish(self.sum, self.count)) if float(self.count) > 0 else float("nan")


def merge(left: dict[str, Mean], right: dict[str, Mean]) -> dict[str, Mean]:
    """Adds two sets of metrics, name by name."""
    return jax.tree.map(lambda a, b: a + b, left, right)


def accuracy(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Share of examples whose largest logit (batch, classes) stands at the target (batch,)."""
    return Mean.of(jnp.argmax(predictions, axis=-1) == targets, mask, higher_is_better=True)


def mse(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Mean squared error over examples and outputs, in the targets' own units squared."""
    return Mean.of(_rows((predictions - targets) ** 2).mean(axis=1), mask)


def r2(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Coefficient of determination, 1 - residual / total sum of squares, averaged over outputs.

    scikit-learn's `r2_score` with its default, uniform average; of constant targets, too: 1 where they are met, else 0.
    """
    rows = jnp.stack([_rows((predictions - targets) ** 2), _rows(targets), _rows(targets**2)], axis=1)
    return Mean.of(rows, mask, finish=_r2, higher_is_better=True)


def _r2(total: Any, count: Any) -> Any:
    residual, mean, square = np.asarray(total, np.float64) / count
    variance = square - mean**2
    explained = 1.0 - residual / np.where(variance > 0, variance, 1.0)
    return np.where(variance > 0, explained, residual == 0).mean()


def dice(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Mean:
    """Dice coefficient of thresholded masks over all pixels seen, 2 |P ∩ T| / (|P| + |T|); 1 where both are empty.

    `predictions` are logits, cut at 0; both have the shape (batch, ...). Dice (1945), Ecology 26(3).
    """
    chosen, true = _rows(predictions) > 0, _rows(targets) > 0
    overlap, size = 2 * (chosen & true).sum(axis=1), chosen.sum(axis=1) + true.sum(axis=1)
    return Mean.of(jnp.stack([overlap, size], axis=1), mask, finish=_dice, higher_is_better=True)


def _dice(total: Any, count: Any) -> Any:
    overlap, size = total
    return overlap / size if size > 0 else 1.0


def _rows(values: jax.Array) -> jax.Array:
    """Flattens all but the batch axis."""
    return values.reshape(values.shape[0], -1)


METRICS = Family(
    "metric",
    {"accuracy": accuracy, "mse": mse, "r2": r2, "dice": dice},
    supplied=("predictions", "targets", "mask"),
)
