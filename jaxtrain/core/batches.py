"""Batches: arrays on the devices and the row indices of each batch.

The interface between data and steps. A split that is kept on the devices, batches stacked on the host and a stream all
make the same object, and a step does not know which of them made its batch.
"""

from collections.abc import Iterable
from typing import Any

import jax
from flax import struct

from jaxtrain.core.state import Batch


class Batches(struct.PyTreeNode):
    """Up to `capacity` batches of one size.

    data: tree of arrays (n, ...); rows: int32 (capacity, size), indices into `data` for each batch;
    mask: float32 (capacity, size), 0 for padding rows, or None without padding.
    Where each lane has batches of its own, rows and mask have a leading lane axis.
    """

    data: Any
    rows: Any
    mask: Any = None

    @property
    def capacity(self) -> int:
        """The maximum number of batches."""
        return self.rows.shape[-2]

    @property
    def size(self) -> int:
        """The number of examples in each batch."""
        return self.rows.shape[-1]

    @property
    def by_lane(self) -> bool:
        """Tells whether each lane has batches of its own, out of the same data."""
        return len(self.rows.shape) == 3

    @property
    def own(self) -> tuple[Any, Any] | None:
        """Rows and mask with their leading lane axis; None where all lanes share them."""
        return (self.rows, self.mask) if self.by_lane else None

    def of_lane(self, own: tuple[Any, Any] | None) -> "Batches":
        """Returns the batches of one lane, given its part of `own`."""
        return self if own is None else self.replace(rows=own[0], mask=own[1])

    def pick(self, lanes: Any) -> "Batches":
        """Returns the batches of these lanes, an index or several; the same where all lanes share them."""
        if not self.by_lane:
            return self
        return self.replace(rows=self.rows[lanes], mask=None if self.mask is None else self.mask[lanes])

    @property
    def example(self) -> Batch:
        """The first row of the data as a batch of one, to initialise weights with; shapes if the data are shapes."""
        return jax.tree.map(_first, self.data)

    def take(self, i: jax.Array | int) -> Batch:
        """Gathers batch i: `data` at `rows[i]`, with its mask if there is one."""
        batch = jax.tree.map(lambda array: array.at[self.rows[i]].get(mode="promise_in_bounds"), self.data)
        return batch if self.mask is None else {**batch, "mask": self.mask[i]}


def pieces_of(batches: Batches | Iterable[Batches]) -> Iterable[Batches]:
    """Returns batches that come in pieces as they are, and others as one piece."""
    return [batches] if isinstance(batches, Batches) else batches


def _first(leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype)
    return leaf[:1]
