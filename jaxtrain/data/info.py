"""Description of the data: shapes, classes and statistics of the training split."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxtrain.data.encoded import Encoding, Padding, warn_of_unseen
from jaxtrain.data.fields import Field, nbytes, read_rows
from jaxtrain.data.host_memory import free_memory
from jaxtrain.data.sequences import SequenceEncoding
from jaxtrain.data.table_encoding import Form, Layout, TableEncoding
from jaxtrain.data.tables import Table
from jaxtrain.data.text_columns import TextEncoding
from jaxtrain.data.vocabulary import Vocabulary, vocabulary_from_json
from jaxtrain.errors import DataError, Words

STATISTICS_EXAMPLES = 10_000
DECODED_BYTES = 2**26
"""Bytes of a field that is decoded up to which as many examples are read for statistics as of an array."""

ONCE_BYTES = 2**28
"""Bytes of decoded examples up to which they are read once for both passes of their statistics."""

ONCE_SHARE = 0.1
"""The share of the free memory that they may take."""

DECODED_EXAMPLES = 1_000
"""Training examples, evenly spaced, that are decoded for the statistics of a larger field."""


@dataclass(frozen=True, eq=False)
class DataInfo:
    """Shapes of one example, number of classes, mean and standard deviation of the training split.

    Two are equal, and hash alike, where they shape the same programs.

    Statistics of inputs are per feature for examples of rank 1, per channel (the last axis) for higher ranks. Those of
    targets are per element, and () for targets (n, ...) of rank above 2 (masks). A standard deviation of 0 is replaced
    by 1. `class_counts` is the number of training examples per class, () unless there is one label per example. `void`
    is the label of pixels that do not count, None without one. `class_names` are in the order of the labels, () where
    labels have no names. With `per_example` each example is normalised by itself, too. `standardised` says that the
    dataset holds standardised targets, as the task asked for. `input_dtype` is the dtype of inputs in a batch:
    "float32" or "float64" if the host normalises them, else that of raw integers, which the task normalises by the same
    statistics.
    `encoding` makes inputs of a table; its flags and codes have mean 0 and deviation 1 here, so they stay as they are.
    That of texts makes tokens, which have no statistics; that of sequences adds a mask, the last feature, which stays
    as it is.
    `coded` says that the model takes codes of categories, beside numbers and flags (`layout`). `target_names` are those
    of the columns of targets (n, columns): labels or outputs. With a `vocabulary` inputs and targets are its tokens,
    which have no statistics, and `classes` is their number. `box_classes` is the number of classes of targets that are
    boxes. `extra` holds (name, shape of an example, dtype in a batch) of the further fields of batches.
    """

    input_shape: tuple[int, ...]
    classes: int | None
    target_shape: tuple[int, ...]
    target_mean: tuple[float, ...]
    target_std: tuple[float, ...]
    input_mean: tuple[float, ...]
    input_std: tuple[float, ...]
    class_counts: tuple[int, ...] = ()
    standardised: bool = False
    input_dtype: str = "float32"
    class_names: tuple[str, ...] = ()
    encoding: Encoding | None = None
    coded: bool = False
    target_names: tuple[str, ...] = ()
    void: int | None = None
    per_example: bool = False
    vocabulary: Vocabulary | None = None
    box_classes: int | None = None
    extra: tuple[tuple[str, tuple[int, ...], str], ...] = ()

    @property
    def layout(self) -> Layout | None:
        """The places of numbers, flags and codes in a row, where the model takes them apart; arrays are all numbers."""
        if not self.coded:
            return None
        return self.table.layout if self.table else Layout(tuple(range(*self.input_shape)))

    @property
    def table(self) -> TableEncoding | None:
        """The encoding of a table; None where inputs are none."""
        return self.encoding if isinstance(self.encoding, TableEncoding) else None

    @property
    def texts(self) -> TextEncoding | None:
        """The encoding of texts of unlike length, each an example; None where inputs are none."""
        return self.encoding if isinstance(self.encoding, TextEncoding) else None

    @property
    def sequences(self) -> SequenceEncoding | None:
        """The encoding of sequences of numbers of unlike length; None where inputs are none."""
        return self.encoding if isinstance(self.encoding, SequenceEncoding) else None

    @property
    def padding(self) -> Padding | None:
        """The encoding of texts or sequences, which are padded; None where examples have one length."""
        return self.encoding if isinstance(self.encoding, Padding) else None

    @property
    def tokens(self) -> int | None:
        """The number of tokens of which inputs are made, that of padding included; None where they are no tokens."""
        if self.texts is not None:
            return self.texts.size
        return None if self.vocabulary is None else self.vocabulary.size

    @property
    def is_raw(self) -> bool:
        """Tells whether batches hold raw integers, which the task normalises."""
        return not self.input_dtype.startswith("float") and self.tokens is None

    @property
    def floats(self) -> type[np.floating]:
        """The type of floats in a batch."""
        return np.float64 if self.input_dtype == "float64" else np.float32

    @property
    def has_maps(self) -> bool:
        """Tells whether targets hold a value for each pixel of a picture, such as the label of a mask."""
        is_map = len(self.target_shape) >= 2 and self.target_shape[:2] == self.input_shape[:2]
        return is_map and len(self.input_shape) == 3 and self.box_classes is None

    def resized(self, shape: tuple[int, ...]) -> "DataInfo":
        """Returns the description of pictures of another size; targets with a value for each pixel follow."""
        if shape == self.input_shape or len(shape) != 3:
            return self
        targets = (*shape[:2], *self.target_shape[2:]) if self.has_maps else self.target_shape
        return dataclasses.replace(self, input_shape=shape, target_shape=targets)

    def with_target_of(self, column: object) -> "DataInfo":
        """Returns the description that names a single target without a name by its column, where `column` is a name."""
        is_nameless = not self.target_names and self.target_shape == ()
        return dataclasses.replace(self, target_names=(column,)) if is_nameless and isinstance(column, str) else self

    def _of_programs(self) -> tuple[Any, ...]:
        shapes = (self.input_shape, self.input_dtype, self.classes, self.target_shape, self.class_counts)
        targets = (self.target_mean, self.target_std, self.standardised, self.void, self.per_example, self.box_classes)
        statistics = (self.input_mean, self.input_std) if self.is_raw else self.vocabulary
        padded = None if self.padding is None else (self.tokens, self.padding.lengths)
        return (*shapes, *targets, self.layout, statistics, padded)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataInfo) and self._of_programs() == other._of_programs()

    def __hash__(self) -> int:
        return hash(self._of_programs())

    def check_codes(self, inputs: np.ndarray) -> None:
        """Raises DataError for inputs (n, columns) with a code of a category that there is not."""
        layout = self.layout or Layout(())
        for place, size in zip(layout.codes, layout.sizes, strict=True):
            codes = inputs[:, place]
            wrong = np.flatnonzero((codes < 0) | (codes >= size) | (codes != np.floor(codes)))
            if len(wrong):
                assert self.table is not None
                got = Words(f"{codes[wrong[0]]:g} for {self.table.names[place]!r} in row {wrong[0]}")
                expected = f"a code of a category, an integer from 0 (unknown) to {size - 1}"
                raise DataError("inputs", got, expected, "Give the columns by name, as a mapping or a data frame")

    def encode(self, inputs: Table | Mapping[str, Any]) -> np.ndarray:
        """Returns the inputs (n, features) of a table or a mapping of columns; raises DataError where they differ."""
        if self.encoding is None:
            raise DataError("inputs", Words("columns by name"), "an array, since this run was not trained on a table")
        table = inputs if isinstance(inputs, Table) else Table(inputs)
        encoded = self.encoding.encode(table)
        warn_of_unseen(self.encoding, table)
        return encoded

    def prepare(self, inputs: Any, rows: np.ndarray | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """Returns inputs (n, *input_shape), or their `rows`, in the form of a batch: integers, or normalised floats.

        They are written to `out` if it is given. Raises DataError if the examples have another shape, and for numbers
        that are no tokens where the inputs are tokens.
        """
        if self.tokens is None and (not self.is_raw or inputs.dtype.name != self.input_dtype):
            return self.normalise(inputs, rows, out)
        self.check_shape(inputs)
        if self.tokens is not None and inputs.dtype.name != self.input_dtype:
            check_tokens(inputs, self.tokens)
        # NumPy would copy the whole of an array that is not contiguous.
        plain = isinstance(inputs, np.ndarray) and inputs.flags.c_contiguous
        if out is not None and plain and rows is not None and inputs.dtype == out.dtype:
            return np.take(inputs, rows, axis=0, out=out, mode="clip")  # "raise" would gather into a buffer first
        values = inputs if rows is None and isinstance(inputs, np.ndarray) else read_rows(inputs, _all(inputs, rows))
        if out is None:
            return values.astype(self.input_dtype, copy=False)  # in the byte order of this machine
        np.copyto(out, values)
        return out

    def normalise(self, inputs: Any, rows: np.ndarray | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """Normalises raw inputs (n, *input_shape), or their `rows`, to mean 0 and standard deviation 1, as floats.

        Raises DataError if the examples have another shape.
        """
        self.check_shape(inputs)
        work = self.floats if is_small_integer(inputs.dtype) else np.float64
        out = self._empty(inputs, rows) if out is None else out
        return _standardise(inputs, self.input_mean, self.input_std, rows, work, out)

    def check_shape(self, inputs: Any) -> None:
        """Raises DataError unless inputs are examples (n, *input_shape)."""
        if inputs.shape[1:] != self.input_shape or len(inputs.shape) == 0:
            expected = f"the shape (n, {', '.join(map(str, self.input_shape))})"
            hint = "" if self.encoding is None else "Give the columns by name, as a mapping or a data frame"
            raise DataError("inputs", Words(f"the shape {inputs.shape}"), expected, hint)

    def standardise_targets(
        self, targets: Any, rows: np.ndarray | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Standardises raw targets (n, *target_shape), or their `rows`, to mean 0 and deviation 1, as floats."""
        out = self._empty(targets, rows) if out is None else out
        return _standardise(targets, self.target_mean, self.target_std, rows, np.float64, out)

    def _empty(self, values: Any, rows: np.ndarray | None) -> np.ndarray:
        return np.empty((len(values) if rows is None else len(rows), *values.shape[1:]), self.floats)

    def restore_targets(self, standardised: np.ndarray) -> np.ndarray:
        """Inverts `standardise_targets`, in float64: (n, *target_shape) in the targets' own units."""
        mean, std = (np.reshape(values, self.target_shape) for values in (self.target_mean, self.target_std))
        return np.asarray(standardised, np.float64) * std + mean

    def to_json(self) -> dict[str, Any]:
        """Returns a dict for JSON; floats survive the round trip exactly."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        encoders = {"encoding": self.encoding, "vocabulary": self.vocabulary}
        return values | {name: encoder and encoder.to_json() for name, encoder in encoders.items()}

    @classmethod
    def from_json(cls, saved: Mapping[str, object]) -> "DataInfo":
        """Inverts `to_json`, also after a round trip through a JSON file."""
        values: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in saved.items()}
        if values.get("encoding"):
            kinds = {"features": SequenceEncoding, "lengths": TextEncoding, "columns": TableEncoding}
            kind = next(kind for key, kind in kinds.items() if key in values["encoding"])
            values["encoding"] = kind.from_json(values["encoding"])
        if values.get("vocabulary"):
            values["vocabulary"] = vocabulary_from_json(values["vocabulary"])
        values["extra"] = tuple((name, tuple(shape), dtype) for name, shape, dtype in values.get("extra", ()))
        return cls(**values)  # pyright: ignore[reportArgumentType]


def is_small_integer(dtype: np.dtype) -> bool:
    """Tells whether values are integers of 8 or 16 bits, such as pixels, or booleans: they are exact in float32."""
    return dtype.kind in "biu" and dtype.itemsize <= 2


def _all(field: Any, rows: np.ndarray | None) -> np.ndarray:
    return np.arange(len(field)) if rows is None else rows


def _standardise(
    raw: Any,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    rows: np.ndarray | None,
    work: type[np.floating],
    out: np.ndarray,
) -> np.ndarray:
    """Writes (raw - mean) / std to `out`, computed in `work`, and returns it; both statistics are of the last axis.

    The mean is subtracted before anything is rounded to float32, which has 24 bits: it holds a year to the hour, and
    a time in Unix seconds to two minutes.
    """
    shape = raw.shape[1:]
    means, stds = (np.broadcast_to(np.asarray(values, work), shape or (1,)).ravel() for values in (mean, std))
    examples = len(raw) if rows is None else len(rows)
    flat = out.reshape(examples, math.prod(shape))  # also of a call without steps
    for block, values in blocks(raw, rows):
        np.divide(values.astype(work) - means, stds, out=flat[block], casting="same_kind")
    return out


def describe(
    inputs: np.ndarray | Field,
    targets: np.ndarray | Field,
    rows: np.ndarray | None,
    classes: int | None,
    class_names: tuple[str, ...] = (),
    encoding: Encoding | None = None,
    *,
    void: int | None = None,
    per_example: bool = False,
    sample: np.ndarray | None = None,
    standardised: bool = False,
    coded: bool = False,
    target_names: tuple[str, ...] = (),
    box_classes: int | None = None,
) -> DataInfo:
    """Returns the DataInfo of a training split: the `rows` (None: all) of inputs (n, ...) and targets (n, ...).

    Statistics of inputs are taken over the rows `sample` (None: those of `statistics_rows`). `standardised` says that
    targets are numbers, to be standardised, where they have statistics: at most one row an example. `coded` is that of
    `DataInfo`.
    """
    rows = _all(inputs, rows)
    input_mean = input_std = ()
    if isinstance(encoding, SequenceEncoding):
        input_mean, input_std = encoding.statistics(read_rows(inputs, statistics_rows(inputs, rows)))
    elif not isinstance(encoding, TextEncoding):
        input_mean, input_std = _statistics(inputs, statistics_rows(inputs, rows) if sample is None else sample)
    if isinstance(encoding, TableEncoding):
        input_mean, input_std = _of_numbers(input_mean, input_std, encoding.forms)
    target_mean, target_std = _statistics(targets, rows) if len(targets.shape) <= 2 else ((), ())
    counts = ()
    if classes is not None and len(targets.shape) == 1:
        counts = tuple(np.bincount(read_rows(targets, rows).astype(np.int64), minlength=classes).tolist())
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
        input_dtype=inputs.dtype.name if is_small_integer(inputs.dtype) else "float32",
        class_names=class_names,
        encoding=encoding,
        coded=coded,
        target_names=target_names,
        box_classes=box_classes,
        void=void,
        per_example=per_example,
    )


def describe_tokens(inputs: np.ndarray, vocabulary: Vocabulary) -> DataInfo:
    """Returns the DataInfo of a training split of tokens, whose targets are tokens in the shape of the inputs."""
    shape = inputs.shape[1:]
    statistics: tuple[tuple[float, ...], ...] = ((), (), (), ())
    return DataInfo(shape, vocabulary.size, shape, *statistics, input_dtype=inputs.dtype.name, vocabulary=vocabulary)


def check_tokens(tokens: np.ndarray, size: int) -> None:
    """Raises DataError for numbers that are no tokens of a vocabulary of this size."""
    if tokens.dtype.kind not in "iu" or (tokens.size and (tokens.min() < 0 or tokens.max() >= size)):
        found = f" from {tokens.min()} to {tokens.max()}" if tokens.size else ""
        got = Words(f"numbers of dtype {tokens.dtype}{found}")
        raise DataError("inputs", got, f"tokens, integers from 0 to {size - 1}")


def _of_numbers(
    mean: tuple[float, ...], std: tuple[float, ...], forms: tuple[Form, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Sets the statistics of flags and codes to 0 and 1: a rare category would become a large number."""
    means = tuple(value if form == "number" else 0.0 for value, form in zip(mean, forms, strict=True))
    return means, tuple(value if form == "number" else 1.0 for value, form in zip(std, forms, strict=True))


def statistics_rows(inputs: np.ndarray | Field, rows: np.ndarray | None) -> np.ndarray:
    """Returns the rows, of the `rows` for training (None: all), over which statistics of inputs are taken.

    They are evenly spaced: at most 10,000 for inputs of rank above 2 (images), and at most 1,000 of more than 64 MiB
    that are decoded.
    """
    rows = _all(inputs, rows)
    return rows[:: -(-len(rows) // _most_examples(inputs, len(rows)))]


def _most_examples(inputs: np.ndarray | Field, examples: int) -> int:
    if not isinstance(inputs, np.ndarray) and nbytes(inputs) > DECODED_BYTES:
        return DECODED_EXAMPLES
    return STATISTICS_EXAMPLES if len(inputs.shape) > 2 else examples


def _statistics(array: np.ndarray | Field, rows: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation over all axes but the last (rank 1: over all), in two passes."""
    size = len(rows) * math.prod(array.shape[1:]) * array.dtype.itemsize
    if not isinstance(array, np.ndarray) and size < min(ONCE_BYTES, ONCE_SHARE * free_memory()):
        array = array.read(rows)
        rows = np.arange(len(rows))
    channels = array.shape[-1] if len(array.shape) > 1 else 1
    size = math.prod(array.shape[1:])
    count = len(rows) * (size // channels)
    sums = sum(values.sum(axis=0, dtype=np.float64) for _, values in blocks(array, rows))
    mean = np.reshape(sums, (-1, channels)).sum(axis=0) / count
    feature_means = np.tile(mean, size // channels)
    squares = sum(np.square(values - feature_means).sum(axis=0) for _, values in blocks(array, rows))
    std = np.sqrt(np.reshape(squares, (-1, channels)).sum(axis=0) / count)
    std = np.where(std <= 1e-12 * np.abs(mean), 1.0, std)  # a constant, but for the rounding of its mean
    return tuple(mean.tolist()), tuple(std.tolist())


BLOCK_ELEMENTS = 2**17


def blocks(field: np.ndarray | Field, rows: np.ndarray | None = None) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (slice, values as (examples, features)) over the first axis, or over its `rows` in their order."""
    examples = len(field) if rows is None else len(rows)
    features = math.prod(field.shape[1:])
    length = max(1, BLOCK_ELEMENTS // max(1, features))
    for start in range(0, examples, length):
        block = slice(start, min(start + length, examples))
        if isinstance(field, np.ndarray) and rows is None:
            values = field[block]
        else:
            values = read_rows(field, np.arange(block.start, block.stop) if rows is None else rows[block])
        yield block, values.reshape(block.stop - start, features)
