"""Order of the batches: a pure function of seed and step, so that the batch of any step can be computed alone."""

from functools import lru_cache

import numpy as np

from jaxtrain.errors import ConfigError, DataError, Words


def steps_per_epoch(examples: float, batch_size: int) -> float:
    """Returns the number of batches in one pass over the examples, which need not be a whole number."""
    return examples / batch_size


def check_batch_size(batch_size: int, examples: int) -> None:
    """Raises ConfigError for a batch without examples, or one larger than the data."""
    if not 1 <= batch_size <= examples:
        raise ConfigError("data.batch_size", batch_size, f"1 to {examples}, the number of training examples")


class Weights:
    """Weights (n,) by which examples are drawn with replacement; one of 0 is never drawn."""

    def __init__(self, values: np.ndarray, where: str, rows: np.ndarray | None = None) -> None:
        """Takes weights of any scale and the rows that are drawn (None: all).

        Raises DataError, naming `where`, for negative or missing ones, or all 0.
        """
        rows = np.arange(len(values)) if rows is None else rows
        values = values[rows]
        weights = np.asarray(values, np.float64) if np.asarray(values).dtype.kind in "biuf" else np.array([np.nan])
        wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
        if len(wrong) or not weights.any():
            got = Words(f"the weight {values[wrong[0]]} of row {rows[wrong[0]]}" if len(wrong) else "only weights of 0")
            raise DataError(where, got, "numbers of at least 0, not all 0, for data.sample")
        self.sums = np.cumsum(weights)

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """Draws as many rows as there are, int32."""
        places = generator.random(len(self.sums)) * self.sums[-1]
        return np.searchsorted(self.sums, places, side="right").astype(np.int32)


class InOrder(Weights):
    """Draws each of `examples` once, always in the same order: all epochs have the same batches."""

    def __init__(self, examples: int) -> None:
        """Takes the number of examples."""
        self.sums = np.arange(1.0, examples + 1.0)

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """Returns all rows in order, int32."""
        return np.arange(len(self.sums), dtype=np.int32)


class Groups:
    """Examples in groups, such as those of texts of about one length, of which batches are made as far as they go."""

    def __init__(self, of: np.ndarray) -> None:
        """Takes the group of each example, (n,) integers."""
        self.of = of

    def arrange(self, order: np.ndarray, begin: int, size: int, generator: np.random.Generator) -> np.ndarray:
        """Returns an order in which each batch of `size` rows, from place `begin` on, has rows of few groups.

        Within a group the rows keep their order; the batches come in random order. The rows before `begin`, and those
        at the end that make no batch, belong to batches that span two epochs: they stay where they are.
        """
        count = (len(order) - begin) // size
        end = begin + count * size
        whole = order[begin:end]
        batches = whole[np.argsort(self.of[whole], kind="stable")].reshape(count, size)
        generator.shuffle(batches)
        return np.concatenate([order[:begin], batches.reshape(-1), order[end:]])


def batch_indices(
    step: int,
    count: int,
    *,
    examples: int,
    batch_size: int,
    seed: int,
    weights: Weights | None = None,
    groups: Groups | None = None,
) -> np.ndarray:
    """Returns the indices, int32 (count, batch_size), of the batches of steps `step` to `step + count - 1`.

    The permutations of all epochs form one endless sequence, and batch s covers its positions s * batch_size to
    (s + 1) * batch_size - 1. So no example is dropped, and a batch may span two epochs. With `weights`, draws with
    replacement take the place of the permutations. With `groups`, each epoch is arranged by them.
    Raises ConfigError for a batch larger than the data.
    """
    check_batch_size(batch_size, examples)
    start = step * batch_size
    stop = start + count * batch_size
    indices = np.empty(stop - start, np.int32)
    for epoch in range(start // examples, -(-stop // examples)):
        first = epoch * examples
        begin = max(start, first)
        end = min(stop, first + examples)
        order = _order(seed, epoch, examples, weights, groups, batch_size if groups else 0)
        indices[begin - start : end - start] = order[begin - first : end - first]
    return indices.reshape(count, batch_size)


@lru_cache(maxsize=4)  # a call may span two epochs
def _order(
    seed: int, epoch: int, examples: int, weights: Weights | None, groups: Groups | None, batch_size: int
) -> np.ndarray:
    generator = np.random.Generator(np.random.PCG64([seed, epoch]))
    if weights is not None:
        order = weights.draw(generator)
    else:
        order = np.arange(examples, dtype=np.int32)
        generator.shuffle(order)
    if groups is None:
        return order
    return groups.arrange(order, -epoch * examples % batch_size, batch_size, generator)


def eval_batches(examples: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (indices int32, mask float32), both (batches, batch_size), which cover every example once, in order.

    The last batch is padded with index 0 and mask 0. Raises ConfigError for a batch size below 1.
    """
    if batch_size < 1:
        raise ConfigError("data.eval_batch_size", batch_size, "at least 1")
    batches = -(-examples // batch_size)
    positions = np.arange(batches * batch_size, dtype=np.int32).reshape(batches, batch_size)
    is_example = positions < examples
    return np.where(is_example, positions, 0).astype(np.int32, copy=False), is_example.astype(np.float32)
