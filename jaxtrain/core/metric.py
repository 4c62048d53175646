"""The one form of a metric: sums and counts that merge, and the number or numbers that they come to."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


def _ratio(total: Any, count: Any) -> Any:
    return total / count


class Mean(struct.PyTreeNode):
    """The one form of a metric: a sum and a count, added up wherever metrics meet.

    `sum` may be an array, for numbers that are no plain mean: `finish(sum, count)` turns the totals into the number
    that is reported, so no value depends on batch size, padding or device count; an array that it returns is reported
    element by element, as "name/0", "name/1" or "name/0/1". `finish` is a function at module level, since it is part of
    what identifies the compiled program.
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
        """Returns the number that sum and count come to; nan where nothing was counted.

        Raises TypeError where they come to several: those are for `numbers`.
        """
        found = self._finished()
        if found.shape:
            raise TypeError(f"a metric of {found.size} numbers, of shape {found.shape}, where one number is needed")
        return float(found)

    def loss(self) -> float:
        """Returns the same number such that lower is better."""
        return -self.result() if self.higher_is_better else self.result()

    def numbers(self, name: str) -> dict[str, float]:
        """Returns {name: number}, of an array {"name/0": number, ...}; one nan where nothing was counted."""
        return {"/".join((name, *map(str, at))): float(number) for at, number in np.ndenumerate(self._finished())}

    def _finished(self) -> np.ndarray:
        return np.asarray(self.finish(self.sum, self.count) if float(self.count) > 0 else np.nan)


def merge(left: dict[str, Mean], right: dict[str, Mean]) -> dict[str, Mean]:
    """Adds two sets of metrics, name by name."""
    return jax.tree.map(lambda a, b: a + b, left, right)


NORMS = "norm_"  # how the names of what only a call's last step measures begin


SEED = "seed_"  # how the names of a single seed's numbers begin: "seed_3/loss"


DIAGNOSTICS = (NORMS, SEED)
"""How the names begin of what is read as curves, never as a line."""


def is_printed(name: str) -> bool:
    """Tells whether a number is shown in lines to read: no diagnostic, nor one of several, such as "f1_per_class/3"."""
    metric, _, place = name.rpartition("/")
    return not (name.startswith(DIAGNOSTICS) or (metric and place.isdecimal()))
