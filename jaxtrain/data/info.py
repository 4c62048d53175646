"""What the data say about themselves: shapes, classes and the statistics of the training part."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from jaxtrain.errors import DataError, Words

STATISTICS_EXAMPLES = 10_000


@dataclass(frozen=True)
class DataInfo:
    """Shapes of one example, number of classes, mean and deviation of the training part; hashable.

    The statistics of inputs are per feature where an example has rank 1, per channel (the last axis) above;
    those of targets per element, and () where the targets have a rank above 2 (masks). A deviation of 0 is 1.
    `class_counts` is the number of training examples of each class, () where there is no label for each example.
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
        """Returns raw inputs (n, *input_shape), or their `rows`, as float32 with mean 0 and deviation 1.

        Raises DataError where the shape of one example is another.
        """
        if inputs.shape[1:] != self.input_shape or inputs.ndim == 0:
            expected = f"the shape (n, {', '.join(map(str, self.input_shape))})"
            raise DataError("inputs", Words(f"the shape {inputs.shape}"), expected)
        # Tables may hold large offsets, such as years or times, which float32 would round before they are subtracted.
        work = np.float64 if inputs.ndim == 2 and inputs.dtype.itemsize > 2 else np.float32
        mean = np.broadcast_to(np.asarray(self.input_mean, work), self.input_shape).ravel()
        std = np.broadcast_to(np.asarray(self.input_std, work), self.input_shape).ravel()
        result = np.empty((len(inputs) if rows is None else len(rows), *self.input_shape), np.float32)
        flat = result.reshape(len(result), -1)
        for place, values in blocks(inputs, rows):
            centred = values.astype(work) - mean
            np.divide(centred, std, out=flat[place], casting="same_kind")
        return result

    def to_json(self) -> dict[str, object]:
        """Returns a dict of what JSON can hold; floats keep every bit."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, object]) -> "DataInfo":
        """Returns what `to_json` was given, also after a way through a JSON file."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
        return cls(**values)  # pyright: ignore[reportArgumentType]


def describe(inputs: np.ndarray, targets: np.ndarray, rows: np.ndarray | None, classes: int | None) -> DataInfo:
    """Returns the DataInfo of a training part: the `rows` (None: all) of inputs (n, ...) and targets (n, ...).

    Statistics of inputs with a rank above 2 (images) are those of at most 10,000 examples, evenly spaced.
    """
    whole = np.arange(len(inputs)) if rows is None else rows
    sample = whole[:: -(-len(whole) // STATISTICS_EXAMPLES)] if inputs.ndim > 2 else whole
    input_mean, input_std = _statistics(inputs, sample)
    target_mean, target_std = _statistics(targets, whole) if targets.ndim <= 2 else ((), ())
    counts = (
        () if classes is None or targets.ndim > 1 else tuple(np.bincount(targets[whole], minlength=classes).tolist())
    )
    return DataInfo(
        inputs.shape[1:], classes, targets.shape[1:], target_mean, target_std, input_mean, input_std, counts
    )


def _statistics(array: np.ndarray, rows: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation over all axes but the last, or all of a rank-1 array, in two passes."""
    channels = array.shape[-1] if array.ndim > 1 else 1
    count = len(rows) * (array[0].size // channels)
    sums = sum(values.sum(axis=0, dtype=np.float64) for _, values in blocks(array, rows))
    mean = np.reshape(sums, (-1, channels)).sum(axis=0) / count
    wide = np.tile(mean, array[0].size // channels)
    squares = sum(np.square(values - wide).sum(axis=0) for _, values in blocks(array, rows))
    std = np.sqrt(np.reshape(squares, (-1, channels)).sum(axis=0) / count)
    std = np.where(std <= 1e-12 * np.abs(mean), 1.0, std)  # a constant whose mean was rounded is still a constant
    return tuple(mean.tolist()), tuple(std.tolist())


BLOCK_ELEMENTS = 2**17


def blocks(array: np.ndarray, rows: np.ndarray | None = None) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (slice, values as (examples, features)) over the first axis, or over its `rows` in their order."""
    examples = len(array) if rows is None else len(rows)
    features = array[0].size if len(array) else 1
    length = max(1, BLOCK_ELEMENTS // max(1, features))
    for start in range(0, examples, length):
        place = slice(start, min(start + length, examples))
        values = array[place] if rows is None else array[rows[place]]
        yield place, values.reshape(place.stop - start, features)
