"""Metrics as mergeable sums and counts, from which the reported numbers are computed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxtrain.core.floats import float_type
from jaxtrain.errors import Words, message


def _ratio(total: Any, count: Any) -> Any:
    return total / count


class Mean(struct.PyTreeNode):
    """The one form of a metric: a sum and a count, which are added over batches, steps and devices.

    `finish(sum, count)` computes the reported number from the totals, so no value depends on batch size, padding or
    device count. `sum` may be an array, for numbers other than a plain mean. If `finish` returns an array, its elements
    are reported as "name/0", "name/1" or "name/0/1". `finish` must be a module-level function, since it is part of the
    key of the compiled program.
    """

    sum: jax.Array
    count: jax.Array
    finish: Callable[[Any, Any], Any] = struct.field(pytree_node=False, default=_ratio)
    higher_is_better: bool = struct.field(pytree_node=False, default=False)

    @classmethod
    def of(cls, per_example: jax.Array, mask: jax.Array, **static: Any) -> "Mean":
        """Sums values of shape (batch, ...) over the examples, weighted by `mask` (batch,), 0 for padding."""
        mask = mask.astype(float_type(per_example, mask))
        weights = mask.reshape(mask.shape + (1,) * (per_example.ndim - 1))
        # Padding rows may hold infinities, and 0 * inf is nan: so select, not only multiply.
        kept = jnp.where(weights > 0, per_example.astype(mask.dtype) * weights, 0.0)
        return cls(kept.sum(axis=0), mask.sum(), **static)

    def result(self) -> float:
        """Returns the value of a metric of one number; nan if nothing was counted.

        Raises TypeError for a metric of several numbers: use `numbers`.
        """
        value = self._finish()
        if value.shape:
            got = Words(f"{value.size} numbers of shape {value.shape}")
            raise TypeError(message("metric", got, "one number", "Call numbers(name) for several"))
        return float(value)

    def loss(self) -> float:
        """Returns the value, negated if higher is better: lower is always better."""
        return as_loss(self.result(), self.higher_is_better)

    def numbers(self, name: str) -> dict[str, float]:
        """Returns {name: value}, or {"name/0": value, ...} for an array; one nan if nothing was counted."""
        return {"/".join((name, *map(str, at))): float(number) for at, number in np.ndenumerate(self._finish())}

    def _finish(self) -> np.ndarray:
        return np.asarray(self.finish(self.sum, self.count) if float(self.count) > 0 else np.nan)


Metrics = dict[str, Mean]


def as_loss(value: Any, higher_is_better: bool) -> Any:
    """Returns the value of a metric, a number or an array, such that lower is better."""
    return -value if higher_is_better else value


def merge(left: Metrics, right: Metrics) -> Metrics:
    """Adds two dicts of metrics with equal names."""
    return jax.tree.map(lambda a, b: a + b, left, right)


def check_metrics(metrics: Metrics) -> Metrics:
    """Raises TypeError, when a step is traced, for metrics other than a dict `{name: Mean}` with a "loss"."""
    if not isinstance(metrics, dict) or not all(isinstance(metric, Mean) for metric in metrics.values()):
        expected = "a dict of name -> jaxtrain.Mean(sum, count)"
        raise TypeError(message("metrics of the task", metrics, expected))
    if "loss" not in metrics:
        expected = "'loss' among them, the Mean that runs are judged by"
        raise TypeError(message("metrics of the task", sorted(metrics), expected))
    return metrics
