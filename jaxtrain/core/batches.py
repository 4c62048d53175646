"""Batches: arrays on the devices, and the rows of them that each batch takes.

The seam between data and steps. A split that lies whole on the devices, batches stacked on the host and a stream are
three makers of the same object, and a step cannot tell which one made its batch.
"""

from typing import Any

import jax
from flax import struct

from jaxtrain.core.state import Batch


class Batches(struct.PyTreeNode):
    """Up to `capacity` batches of one size.

    data: a tree of arrays (n, ...); rows: int32 (capacity, size), the rows of `data` that each batch takes;
    mask: float32 (capacity, size), 0 where a row is padding, or None where every row counts.
    """

    data: Any
    rows: Any
    mask: Any = None

    @property
    def capacity(self) -> int:
        """The number of batches there is room for."""
        return self.rows.shape[0]

    @property
    def size(self) -> int:
        """The number of examples in each batch."""
        return self.rows.shape[1]

    @property
    def example(self) -> Batch:
        """The first row of the data, as a batch of one: what weights are made for. Of shapes it is a shape."""
        return jax.tree.map(_first, self.data)

    def take(self, i: jax.Array | int) -> Batch:
        """Gathers batch i: `data` at `rows[i]`, with its mask where there is one."""
        batch = jax.tree.map(lambda array: array.at[self.rows[i]].get(mode="promise_in_bounds"), self.data)
        return batch if self.mask is None else {**batch, "mask": self.mask[i]}


def _first(leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype)
    return leaf[:1]
