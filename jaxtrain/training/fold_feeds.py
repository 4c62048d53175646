"""Feeds of folds, which are trained as lanes: each lane has batches of its own, out of data that all of them share.

A lane gets the examples that a run of its fold alone gets, in the same order, so their numbers are equal.
"""

from dataclasses import dataclass, field
from functools import cached_property

import jax
import numpy as np

from jaxtrain.config.defaults import Config
from jaxtrain.core.batches import Batches
from jaxtrain.data.dataset import Dataset, Rows
from jaxtrain.data.order import eval_batches
from jaxtrain.parallel.mesh import Devices, replicate
from jaxtrain.training.feeds import (
    CAPACITY,
    Buffers,
    HostFeed,
    Pieces,
    batches_in_block,
    buffers_of,
    data_shapes,
    row_shapes,
    rows_of,
)


@dataclass(frozen=True, eq=False)
class FoldsOnDevice:
    """Keeps the splits of all folds on the devices, one after the other; the host sends the rows of each lane."""

    section: Config
    dataset: Dataset
    mesh: Devices
    placed: dict[tuple[str, Devices], dict[str, jax.Array]] = field(repr=False)
    capacity: int = CAPACITY

    def batches(self, step: int, count: int, capacity: int) -> Batches:
        """Returns the placed splits with the rows of each lane and batch, 0 beyond `count`."""
        folds = self.dataset.folds
        rows = np.zeros((len(folds), capacity, self.section["batch_size"]), np.int32)
        for lane, (fold, begin) in enumerate(zip(folds, self._begins("train"), strict=True)):
            rows[lane, :count] = begin + rows_of(self.section, fold, step, count)
        return Batches(self._on_devices("train"), rows)

    def shapes(self, size: int) -> Batches:
        """Returns the shapes of training batches of `size` examples."""
        examples = sum(fold.sizes["train"] for fold in self.dataset.folds)
        return Batches(
            data_shapes(self.dataset, examples, self.mesh), row_shapes(self.capacity, size, len(self.dataset.folds))
        )

    def eval_batches(self, split: str) -> Pieces:
        """Returns all batches of a split of each fold in one piece."""
        rows, mask = _eval_batches(self.dataset, split, self.section["eval_batch_size"])
        begins = np.asarray(self._begins(split), np.int32)[:, None, None]
        return Pieces(1, lambda _: Batches(self._on_devices(split), begins + rows, mask))

    def close(self) -> None:
        """Does nothing: there are no threads."""

    def _begins(self, split: str) -> list[int]:
        """Returns the row at which each fold begins."""
        sizes = [fold.sizes[split] for fold in self.dataset.folds]
        return [sum(sizes[:lane]) for lane in range(len(sizes))]

    def _on_devices(self, split: str) -> dict[str, jax.Array]:
        key = (split, self.mesh)
        if key not in self.placed:
            whole = [fold.split(split) for fold in self.dataset.folds]
            joined = {name: np.concatenate([rows[name] for rows in whole]) for name in whole[0]}
            self.placed[key] = replicate(joined, self.mesh)
        return self.placed[key]


@dataclass(frozen=True, eq=False)
class FoldsOnHost:
    """Sends each call a block of the batches of all lanes, one lane after the other."""

    section: Config
    dataset: Dataset
    mesh: Devices

    @property
    def capacity(self) -> int:
        """As many steps as fit into a block."""
        return self._batches_in_block(self.section["batch_size"], CAPACITY)

    def batches(self, step: int, count: int, capacity: int) -> Batches:
        """Returns a block of `capacity` batches of each lane, of which the first `count` are filled."""
        size = self.section["batch_size"]
        block = self._buffers(capacity * size).take()
        for feed, part in zip(self._feeds, self._parts(block, capacity * size), strict=True):
            feed.fill(step, count, part)
        return Batches(replicate(block, self.mesh), self._rows(capacity, size))

    def shapes(self, size: int) -> Batches:
        """Returns the shapes of training batches of `size` examples."""
        capacity = self._batches_in_block(size, CAPACITY)
        lanes = len(self._feeds)
        return Batches(data_shapes(self.dataset, lanes * capacity * size, self.mesh), row_shapes(capacity, size, lanes))

    def eval_batches(self, split: str) -> Pieces:
        """Returns the batches of a split of each fold in pieces that fit into a block."""
        size = self.section["eval_batch_size"]
        rows, mask = _eval_batches(self.dataset, split, size)
        length = self._batches_in_block(size, rows.shape[1])

        def piece(i: int) -> Batches:
            own = slice(i * length, (i + 1) * length)
            count = rows[:, own].shape[1]
            block = self._buffers(count * size).take()
            for lane, part in enumerate(self._parts(block, count * size)):
                self._feeds[lane].fill_rows(split, rows[lane, own].reshape(-1), part)
            return Batches(replicate(block, self.mesh), self._rows(count, size), mask[:, own])

        return Pieces(-(-rows.shape[1] // length), piece)

    def close(self) -> None:
        """Ends the threads of the training batches."""
        for feed in self._feeds:
            feed.close()

    @cached_property
    def _feeds(self) -> list[HostFeed]:
        return [HostFeed(self.section, fold, self.mesh) for fold in self.dataset.folds]

    def _batches_in_block(self, size: int, most: int) -> int:
        return batches_in_block(self.dataset, len(self._feeds) * size, most)

    def _parts(self, block: Rows, examples: int) -> list[Rows]:
        """Returns the part of each lane in a block, by its number of examples."""
        begins = range(0, len(self._feeds) * examples, examples)
        return [{name: array[begin : begin + examples] for name, array in block.items()} for begin in begins]

    def _rows(self, count: int, size: int) -> np.ndarray:
        lanes = len(self._feeds)
        return np.arange(lanes * count * size, dtype=np.int32).reshape(lanes, count, size)

    @cached_property
    def _pools(self) -> dict[int, Buffers]:
        return {}

    def _buffers(self, examples: int) -> Buffers:
        """Returns the buffers of blocks with a number of examples of each lane."""
        return buffers_of(self._pools, self.dataset, len(self._feeds) * examples)


def _eval_batches(dataset: Dataset, split: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows and mask (folds, batches, size) that cover a split of each fold; short folds end masked."""
    each = [eval_batches(fold.sizes[split], size) for fold in dataset.folds]
    batches = max(len(rows) for rows, _ in each)
    shape = (len(each), batches, size)
    all_rows = np.zeros(shape, np.int32)
    all_masks = np.zeros(shape, np.float32)
    for lane, (rows, mask) in enumerate(each):
        all_rows[lane, : len(rows)] = rows
        all_masks[lane, : len(rows)] = mask
    return all_rows, all_masks
