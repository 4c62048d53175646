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
    `standardised` says that the dataset holds standardised targets, as the task asked for.
    """

    input_shape: tuple[int, ...]
    classes: int | None
    target_shape: tuple[int, ...]
    target_mean: tuple[float, ...]
    target_std: tuple[float, ...]
    input_mean: tuple[float, ...] = field(compare=False)
    input_std: tuple[float, ...] = field(compare=False)
    class_counts: tuple[int, ...] = ()
    standardised: bool = False

    def normalise(self, inputs: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Normalises raw inputs (n, *input_shape), or their `rows`, to mean 0 and standard deviation 1, as float32.

        Raises DataError if the examples have another shape.
        """
        if inputs.shape[1:] != self.input_shape or inputs.ndim == 0:
            expected = f"the shape (n, {', '.join(map(str, self.input_shape))})"
            raise DataError("inputs", Words(f"the shape {inputs.shape}"), expected)
        # Integers of 8 and 16 bits, such as pixels, are exact in float32, which is faster.
        exact = inputs.dtype.kind in "biu" and inputs.dtype.itemsize <= 2
        return _standardise(inputs, self.input_mean, self.input_std, rows, np.float32 if exact else np.float64)

    def standardise_targets(self, targets: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Standardises raw targets (n, *target_shape), or their `rows`, to mean 0 and deviation 1, as float32."""
        return _standardise(targets, self.target_mean, self.target_std, rows, np.float64)

    def restore_targets(self, standardised: np.ndarray) -> np.ndarray:
        """Inverts `standardise_targets`, in float64: (n, *target_shape) in the targets' own units."""
        mean, std = (np.reshape(values, self.target_shape) for values in (self.target_mean, self.target_std))
        return np.asarray(standardised, np.float64) * std + mean

    def to_json(self) -> dict[str, object]:
        """Returns a dict for JSON; floats survive the round trip exactly."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, object]) -> "DataInfo":
        """Inverts `to_json`, also after a round trip through a JSON file."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
        return cls(**values)  # pyright: ignore[reportArgumentType]


def _standardise(
    raw: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...], rows: np.ndarray | None, work: type[np.floating]
) -> np.ndarray:
    """Returns (raw - mean) / std as float32, computed in `work`; both statistics are of the last axis.

    The mean is subtracted before anything is rounded to float32, which has 24 bits: it holds a year to the hour, and
    a time in Unix seconds to two minutes.
    """
    shape = raw.shape[1:]
    means, stds = (np.broadcast_to(np.asarray(values, work), shape or (1,)).ravel() for values in (mean, std))
    result = np.empty((len(raw) if rows is None else len(rows), *shape), np.float32)
    flat = result.reshape(len(result), -1)
    for block, values in blocks(raw, rows):
        np.divide(values.astype(work) - means, stds, out=flat[block], casting="same_kind")
    return result


def describe(
    inputs: np.ndarray,
    targets: np.ndarray,
    rows: np.ndarray | None,
    classes: int | None,
    *,
    standardised: bool = False,
) -> DataInfo:
    """Returns the DataInfo of a training split: the `rows` (None: all) of inputs (n, ...) and targets (n, ...).

    Statistics of inputs of rank above 2 (images) are taken over at most 10,000 evenly spaced examples. `standardised`
    says that targets are numbers, to be standardised, where they have statistics: at most one row an example.
    """
    rows = np.arange(len(inputs)) if rows is None else rows
    stride = -(-len(rows) // STATISTICS_EXAMPLES)
    input_mean, input_std = _statistics(inputs, rows[::stride] if inputs.ndim > 2 else rows)
    target_mean, target_std = _statistics(targets, rows) if targets.ndim <= 2 else ((), ())
    counts = ()
    if classes is not None and targets.ndim == 1:
        counts = tuple(np.bincount(targets[rows].astype(np.int64), minlength=classes).tolist())
    return DataInfo(
        input_shape=inputs.shape[1:],
        classes=classes,
        target_shape=targets.shape[1:],
        target_mean=target_mean,
        target_std=target_std,
        input_mean=input_mean,
        input_std=input_std,
        class_counts=counts,
        standardised=standardised and bool(target_mean),
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
