"""Description of the data: shapes, classes and statistics of the training split."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from jaxtrain.errors import DataError, Words

STATISTICS_EXAMPLES = 10_000


@dataclass(frozen=True)
class DataInfo:
    """Shapes of one example, number of classes, mean and standard deviation of the training split; hashable.

    Statistics of inputs are per feature for examples of rank 1, per channel (the last axis) for higher ranks. Those of
    targets are per element, and () for targets (n, ...) of rank above 2 (masks). A standard deviation of 0 is replaced
    by 1. `class_counts` is the number of training examples per class, () unless there is one label per example.
    """

    input_shape: tuple[int, ...]
    classes: int | None
    target_shape: tuple[int, ...]
    target_mean: tuple[float, ...]
    target_std: tuple[float, ...]
    input_mean: tuple[float, ...] = field(compare=False)
    input_std: tuple[float, ...] = field(compare=False)
    class_counts: tuple[int, ...] = ()

    def normalise(self, inputs: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Normalises raw inputs (n, *input_shape), or their `rows`, to mean 0 and standard deviation 1, as float32.

        Raises DataError if the examples have another shape.
        """
        if inputs.shape[1:] != self.input_shape or inputs.ndim == 0:
            expected = f"the shape (n, {', '.join(map(str, self.input_shape))})"
            raise DataError("inputs", Words(f"the shape {inputs.shape}"), expected)
        # Tables may have large offsets, such as years or times: subtract the mean before rounding to float32.
        work = np.float64 if inputs.ndim == 2 and inputs.dtype.itemsize > 2 else np.float32
        mean = np.broadcast_to(np.asarray(self.input_mean, work), self.input_shape).ravel()
        std = np.broadcast_to(np.asarray(self.input_std, work), self.input_shape).ravel()
        result = np.empty((len(inputs) if rows is None else len(rows), *self.input_shape), np.float32)
        flat = result.reshape(len(result), -1)
        for block, values in blocks(inputs, rows):
            centred = values.astype(work) - mean
            np.divide(centred, std, out=flat[block], casting="same_kind")
        return result

    def to_json(self) -> dict[str, object]:
        """Returns a dict for JSON; floats survive the round trip exactly."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, object]) -> "DataInfo":
        """Inverts `to_json`, also after a round trip through a JSON file."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
        return cls(**values)  # pyright: ignore[reportArgumentType]


def describe(inputs: np.ndarray, targets: np.ndarray, rows: np.ndarray | None, classes: int | None) -> DataInfo:
    """Returns the DataInfo of a training split: the `rows` (None: all) of inputs (n, ...) and targets (n, ...).

    Statistics of inputs of rank above 2 (images) are taken over at most 10,000 evenly spaced examples.
    """
    rows = np.arange(len(inputs)) if rows is None else rows
    stride = -(-len(rows) // STATISTICS_EXAMPLES)
    input_mean, input_std = _statistics(inputs, rows[::stride] if inputs.ndim > 2 else rows)
    target_mean, target_std = _statistics(targets, rows) if targets.ndim <= 2 else ((), ())
    counts = ()
    if classes is not None and targets.ndim == 1:
        counts = tuple(np.bincount(targets[rows], minlength=classes).tolist())
    return DataInfo(
        inputs.shape[1:], classes, targets.shape[1:], target_mean, target_std, input_mean, input_std, counts
    )


def _statistics(array: np.ndarray, rows: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation over all axes but the last (rank 1: over all), in two passes."""
    channels = array.shape[-1] if array.ndim > 1 else 1
    count = len(rows) * (array[0].size // channels)
    sums = sum(values.sum(axis=0, dtype=np.float64) for _, values in blocks(array, rows))
    mean = np.reshape(sums, (-1, channels)).sum(axis=0) / count
    feature_means = np.tile(mean, array[0].size // channels)
    squares = sum(np.square(values - feature_means).sum(axis=0) for _, values in blocks(array, rows))
    std = np.sqrt(np.reshape(squares, (-1, channels)).sum(axis=0) / count)
    std = np.where(std <= 1e-12 * np.abs(mean), 1.0, std)  # a constant, but for the rounding of its mean
    return tuple(mean.tolist()), tuple(std.tolist())


BLOCK_ELEMENTS = 2**17


def blocks(array: np.ndarray, rows: np.ndarray | None = None) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (slice, values as (examples, features)) over the first axis, or over its `rows` in their order."""
    examples = len(array) if rows is None else len(rows)
    features = array[0].size if len(array) else 1
    length = max(1, BLOCK_ELEMENTS // max(1, features))
    for start in range(0, examples, length):
        block = slice(start, min(start + length, examples))
        values = array[block] if rows is None else array[rows[block]]
        yield block, values.reshape(block.stop - start, features)
