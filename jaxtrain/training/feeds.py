"""Feeds: where the batches of a run are gathered. On the devices, or on the host, where files are decoded meanwhile.

All feeds make the same `Batches` of the same examples, so the numbers of a run do not depend on its feed.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import jax
import numpy as np

from jaxtrain.config.defaults import Config
from jaxtrain.core.batches import Batches
from jaxtrain.data.buffers import Buffers
from jaxtrain.data.dataset import Dataset, Rows
from jaxtrain.data.order import batch_indices, eval_batches
from jaxtrain.data.streaming import Stream
from jaxtrain.parallel.mesh import Devices, replicate, replicated_shapes

CAPACITY = 500
"""Most steps of one call; a single compiled program serves all lengths up to it."""

BLOCK_BYTES = 2**24
"""Most bytes of the batches that the host sends for one call, unless a single batch is larger."""

AHEAD = 2
"""Calls whose batches are decoded ahead of the one that trains."""


class Feed(Protocol):
    """Makes the batches of a run."""

    @property
    def capacity(self) -> int:
        """The most steps of one call."""
        ...

    def batches(self, step: int, count: int, capacity: int) -> Batches:
        """Returns the training batches of `count` steps starting at `step`, with rows for `capacity` steps."""
        ...

    def shapes(self, size: int) -> Batches:
        """Returns the shapes of training batches of `size` examples, without placing data on the devices."""
        ...

    def eval_batches(self, split: str) -> "Pieces":
        """Returns the batches that cover a split once, in one piece or several; the last one has masked rows."""
        ...

    def close(self) -> None:
        """Ends the threads that read ahead."""
        ...


@dataclass(frozen=True)
class Pieces:
    """Batches that come in pieces; they may be gone through again and again."""

    count: int
    piece: Callable[[int], Batches]

    def __len__(self) -> int:
        """Returns the number of pieces."""
        return self.count

    def __iter__(self) -> Iterator[Batches]:
        """Yields the pieces in order."""
        return map(self.piece, range(self.count))


@dataclass(frozen=True, eq=False)
class DeviceFeed:
    """Keeps whole splits on the devices; the host sends the rows of each batch."""

    section: Config
    dataset: Dataset
    mesh: Devices
    placed: dict[tuple[str, Devices], dict[str, jax.Array]] = field(repr=False)
    capacity: int = CAPACITY

    def batches(self, step: int, count: int, capacity: int) -> Batches:
        """Returns the placed split with the rows of each batch, 0 beyond `count`."""
        rows = np.zeros((capacity, self.section["batch_size"]), np.int32)
        rows[:count] = rows_of(self.section, self.dataset, step, count)
        return Batches(self.on_devices("train"), rows)

    def shapes(self, size: int) -> Batches:
        """Returns the shapes of training batches of `size` examples."""
        return Batches(
            data_shapes(self.dataset, self.dataset.sizes["train"], self.mesh), row_shapes(self.capacity, size)
        )

    def eval_batches(self, split: str) -> Pieces:
        """Returns all batches of a split in one piece."""
        rows, mask = eval_batches(self.dataset.sizes[split], self.section["eval_batch_size"])
        return Pieces(1, lambda _: Batches(self.on_devices(split), rows, mask))

    def close(self) -> None:
        """Does nothing: there are no threads."""

    def on_devices(self, split: str) -> dict[str, jax.Array]:
        """Returns a split, replicated over the devices on first use."""
        key = (split, self.mesh)
        if key not in self.placed:
            self.placed[key] = replicate(self.dataset.split(split), self.mesh)
        return self.placed[key]


@dataclass(frozen=True, eq=False)
class HostFeed:
    """Sends each call its batches, gathered on the host; data that are decoded are read ahead by threads."""

    section: Config
    dataset: Dataset
    mesh: Devices

    @property
    def capacity(self) -> int:
        """As many steps as fit into BLOCK_BYTES."""
        return batches_in_block(self.dataset, self.section["batch_size"], CAPACITY)

    def batches(self, step: int, count: int, capacity: int) -> Batches:
        """Returns a block of `capacity` batches, of which the first `count` are filled."""
        size = self.section["batch_size"]
        block = self._buffers(capacity * size).take()
        self.fill(step, count, block)
        return Batches(replicate(block, self.mesh), np.arange(capacity * size, dtype=np.int32).reshape(capacity, size))

    def fill(self, step: int, count: int, block: Rows) -> None:
        """Writes the training batches of `count` steps into the leading rows of a block."""
        if self.dataset.parts["train"].is_decoded:
            self._stream.take(step, count, block)
            return
        rows = rows_of(self.section, self.dataset, step, count).reshape(-1)
        self.dataset.read("train", rows, {name: array[: len(rows)] for name, array in block.items()})

    def shapes(self, size: int) -> Batches:
        """Returns the shapes of training batches of `size` examples."""
        capacity = batches_in_block(self.dataset, size, CAPACITY)
        return Batches(data_shapes(self.dataset, capacity * size, self.mesh), row_shapes(capacity, size))

    def eval_batches(self, split: str) -> Pieces:
        """Returns the batches of a split in pieces of about BLOCK_BYTES."""
        examples = self.dataset.sizes[split]
        size = self.section["eval_batch_size"]
        rows, mask = eval_batches(examples, size)
        count = -(-len(rows) // batches_in_block(self.dataset, size, len(rows)))
        length = -(-len(rows) // count)

        def piece(i: int) -> Batches:
            own = slice(i * length, (i + 1) * length)
            block = self._buffers(rows[own].size).take()
            self.fill_rows(split, rows[own].reshape(-1), block)
            positions = np.arange(rows[own].size, dtype=np.int32).reshape(rows[own].shape)
            return Batches(replicate(block, self.mesh), positions, mask[own])

        return Pieces(-(-len(rows) // length), piece)

    def close(self) -> None:
        """Ends the threads of the training batches."""
        self._stream.close()

    def fill_rows(self, split: str, rows: np.ndarray, block: Rows) -> None:
        """Reads whole batches of an evaluation into a block, by several threads where they are decoded."""
        if not self.dataset.parts[split].is_decoded:
            self.dataset.read(split, rows, block)
            return
        size = self.section["eval_batch_size"]
        stream = Stream(lambda i: self.dataset.read(split, rows[i * size : (i + 1) * size]), self._workers, 0)
        try:
            stream.take(0, len(rows) // size, block)
        finally:
            stream.close()

    @cached_property
    def _stream(self) -> Stream:
        return Stream(self._read, self._workers, AHEAD)

    def _read(self, step: int) -> dict[str, np.ndarray]:
        return self.dataset.read("train", rows_of(self.section, self.dataset, step, 1)[0])

    @property
    def _workers(self) -> int:
        chosen = self.section["workers"]
        return (os.cpu_count() or 1) if chosen is None else chosen

    @cached_property
    def _pools(self) -> dict[int, Buffers]:
        return {}

    def _buffers(self, examples: int) -> Buffers:
        """Returns the buffers of blocks of a number of examples."""
        return buffers_of(self._pools, self.dataset, examples)


def rows_of(section: Config, dataset: Dataset, step: int, count: int) -> np.ndarray:
    """Returns the rows of the training batches of `count` steps, int32 (count, batch)."""
    examples = dataset.sizes["train"]
    size = section["batch_size"]
    seed = section["seed"]
    drawn = {"weights": dataset.weights, "groups": dataset.groups}
    return batch_indices(step, count, examples=examples, batch_size=size, seed=seed, **drawn)


def buffers_of(pools: dict[int, Buffers], dataset: Dataset, examples: int) -> Buffers:
    """Returns the buffers of blocks of a number of examples, from the pools by that number, made on first use."""
    if examples not in pools:
        shapes = {name: ((examples, *leaf.shape[1:]), leaf.dtype) for name, leaf in dataset.example.items()}
        pools[examples] = Buffers(shapes)
    return pools[examples]


def batches_in_block(dataset: Dataset, size: int, most: int) -> int:
    """Returns how many batches of `size` examples, at most `most`, fit into BLOCK_BYTES; at least one."""
    return max(1, min(most, BLOCK_BYTES // max(1, size * dataset.example_bytes)))


def data_shapes(dataset: Dataset, examples: int, mesh: Devices) -> Any:
    """Returns the shapes of a number of prepared examples on the devices."""
    shapes = {
        name: jax.ShapeDtypeStruct((examples, *leaf.shape[1:]), leaf.dtype) for name, leaf in dataset.example.items()
    }
    return replicated_shapes(shapes, mesh)


def row_shapes(capacity: int, size: int, *lanes: int) -> Any:
    """Returns the shape of the rows of `capacity` batches, or of those of each of the `lanes`."""
    return jax.ShapeDtypeStruct((*lanes, capacity, size), np.int32)
