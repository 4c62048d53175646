"""The order of the batches: a pure function of seed and step, so that any step can be asked for alone."""

from functools import lru_cache

import numpy as np

from jaxtrain.errors import ConfigError


def steps_per_epoch(examples: int, batch_size: int) -> float:
    """Returns how many batches make up one pass over the examples; no whole number where they do not divide."""
    return examples / batch_size


def batch_indices(step: int, count: int, *, examples: int, batch_size: int, seed: int) -> np.ndarray:
    """Returns the indices, int32 (count, batch_size), of the batches of steps `step` to `step + count - 1`.

    Batch s covers the positions s * batch_size to (s + 1) * batch_size - 1 of one endless row: a permutation of all
    examples for each epoch, one after the other. So nothing is dropped, and a batch may span two epochs.
    Raises ConfigError for a batch larger than the data.
    """
    if not 1 <= batch_size <= examples:
        raise ConfigError("data.batch_size", batch_size, f"1 to {examples}, the number of training examples")
    start, stop = step * batch_size, (step + count) * batch_size
    indices = np.empty(stop - start, np.int32)
    for epoch in range(start // examples, -(-stop // examples)):
        first = epoch * examples
        begin, end = max(start, first), min(stop, first + examples)
        indices[begin - start : end - start] = _permutation(seed, epoch, examples)[begin - first : end - first]
    return indices.reshape(count, batch_size)


@lru_cache(maxsize=4)  # a call spans two epochs, and an evaluation between two calls asks for none
def _permutation(seed: int, epoch: int, examples: int) -> np.ndarray:
    order = np.arange(examples, dtype=np.int32)
    np.random.Generator(np.random.PCG64([seed, epoch])).shuffle(order)
    return order


def eval_batches(examples: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (indices int32, mask float32), both (batches, batch_size), that cover every example once, in order.

    The last batch is filled up with index 0 and mask 0. Raises ConfigError for a batch size below 1.
    """
    if batch_size < 1:
        raise ConfigError("data.eval_batch_size", batch_size, "at least 1")
    positions = np.arange(-(-examples // batch_size) * batch_size, dtype=np.int32).reshape(-1, batch_size)
    real = positions < examples
    return np.where(real, positions, 0).astype(np.int32, copy=False), real.astype(np.float32)
