"""The dataset of a run: its splits, and the preparation of their rows for batches."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from jaxtrain.data.bad_rows import BadRows, none_left
from jaxtrain.data.checks import check_inputs, is_integer
from jaxtrain.data.checksums import Checksums
from jaxtrain.data.fields import Field, read_rows
from jaxtrain.data.info import DataInfo, is_small_integer
from jaxtrain.data.order import Groups, Weights
from jaxtrain.data.source import Split
from jaxtrain.errors import DataError, Words

Rows = dict[str, np.ndarray]
"""{"inputs": (n, ...), "targets": (n, ...)} as in a batch."""


class Part(NamedTuple):
    """A split of the dataset: the row numbers that it takes from the split `source`; None: all rows."""

    split: Split
    rows: np.ndarray | None = None
    source: str = "train"

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.split.inputs if self.rows is None else self.rows)

    def source_rows(self, places: np.ndarray) -> np.ndarray:
        """Returns the rows, in the split of the source, of places in this one."""
        return places if self.rows is None else self.rows[places]

    def pick(self, places: np.ndarray) -> "Part":
        """Returns the part with the examples at these places alone, in their order."""
        return Part(self.split, self.source_rows(places), self.source)

    @property
    def is_decoded(self) -> bool:
        """Tells whether its examples are decoded when they are read."""
        return any(isinstance(field, Field) for field in (*self.split[:2], *self.split.extra.values()))


@dataclass(frozen=True, eq=False)
class Dataset:
    """The description of the data, and the splits, whose examples are prepared when they are read.

    `weights` are those by which training examples are drawn; None: each once an epoch. `groups` are those of which
    training batches are made, such as texts of about one length; None: of all examples. `bad` are the examples that
    could not be read: the next one of their split stands for each. `folds` are the datasets of all folds where they are
    trained together; this one is the first. `fold_examples` is the number of training examples by which a fold counts
    its epochs, the mean over all folds. `checksums` are those of the files that were read.
    """

    info: DataInfo
    parts: dict[str, Part] = field(repr=False)
    weights: Weights | None = field(default=None, repr=False)
    bad: BadRows | None = field(default=None, repr=False)
    folds: "tuple[Dataset, ...]" = field(default=(), repr=False)
    fold_examples: float | None = None
    checksums: Mapping[str, Checksums] = field(default_factory=dict, repr=False)
    groups: Groups | None = field(default=None, repr=False)

    def in_float64(self) -> "Dataset":
        """Returns the dataset whose floats are float64 in a batch; pixels are normalised on the host. Tokens stay."""
        info = self.info if self.info.tokens is not None else replace(self.info, input_dtype="float64")
        return replace(self, info=info, folds=tuple(fold.in_float64() for fold in self.folds))

    @property
    def sizes(self) -> dict[str, int]:
        """Returns {split: number of examples}."""
        return {name: len(part) for name, part in self.parts.items()}

    @property
    def epoch_examples(self) -> float:
        """The number of examples of an epoch: those for training, or their mean over all folds."""
        return self.sizes["train"] if self.fold_examples is None else self.fold_examples

    @property
    def is_decoded(self) -> bool:
        """Tells whether any split is decoded when it is read."""
        return any(part.is_decoded for part in self.parts.values())

    def read(self, name: str, rows: np.ndarray, out: Rows | None = None) -> Rows:
        """Prepares the examples at these rows of a split, in their order; writes them to `out` if it is given.

        Inputs are tokens or raw integers of at most 16 bits, or normalised floats (`info.input_dtype`). Targets are
        int32, floats, or tokens of a text; standardised floats for a task that takes them so (`info.standardised`).
        Raises DataError for values that are decoded only now and cannot be used.
        """
        return self._prepare(name, rows, out)

    def split(self, name: str) -> Rows:
        """Prepares all examples of a split, as `read` does."""
        return self._prepare(name, None)

    def targets(self, name: str) -> np.ndarray:
        """Returns all targets of a split, (n, ...), in the units and dtype of the data.

        Labels are numbers. Call it after the examples were read, which finds those that are bad (`data.skip_bad`).
        """
        part = self.parts[name]
        return read_rows(part.split.targets, part.source_rows(self._good_places(part, np.arange(len(part)))))

    @property
    def has_pictures(self) -> bool:
        """Tells whether inputs can be drawn: (height, width, channels) with one, three or four channels."""
        shape = self.info.input_shape
        return len(shape) == 3 and shape[2] in (1, 3, 4)

    @cached_property
    def example(self) -> Rows:
        """The first training example as a batch of one."""
        return self.read("train", np.arange(1))

    @property
    def example_bytes(self) -> int:
        """The bytes of a prepared example."""
        return sum(leaf.nbytes for leaf in self.example.values())

    def nbytes(self, name: str) -> int:
        """Returns the bytes of a prepared split."""
        return self.sizes[name] * self.example_bytes

    def _prepare(self, name: str, places: np.ndarray | None, out: Rows | None = None) -> Rows:
        """Prepares the examples at these places of a split; None: all."""
        part = self.parts[name]
        inputs = part.split.inputs
        targets = part.split.targets
        chosen = part.source_rows(np.arange(len(part)) if places is None else places)
        if part.is_decoded or self.bad is not None:
            inputs, targets, chosen = self._read(part, np.arange(len(part)) if places is None else places)
            rows = None
        else:
            rows = part.rows if places is None else part.source_rows(places)
        outs = out or {"inputs": None, "targets": None}
        prepared = self.info.prepare(inputs, rows, outs["inputs"])
        values = {"inputs": prepared, "targets": self._prepare_targets(targets, rows, outs["targets"])}
        if not part.split.extra:
            return values
        extra = {
            name: as_batch_values(read_rows(field, chosen), part.split.where("inputs", part.source), name, chosen)
            for name, field in part.split.extra.items()
        }
        for name, value in extra.items():
            if out is not None:
                np.copyto(out[name], value)
        return values | (extra if out is None else {name: out[name] for name in extra})

    def _read(self, part: Part, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reads inputs and targets at these places, and returns their rows; the next place stands for a bad one."""
        while True:
            rows = part.source_rows(self._good_places(part, places))
            values = read_rows(part.split.inputs, rows), read_rows(part.split.targets, rows), rows
            if not self._are_bad(part, rows).any():  # those that the reading found
                return values

    def _good_places(self, part: Part, places: np.ndarray) -> np.ndarray:
        """Returns the places that are read for these: the next one that is not known as bad, around the end."""
        for _ in range(len(part)):
            bad = self._are_bad(part, part.source_rows(places))
            if not bad.any():
                return places
            places = np.where(bad, (places + 1) % len(part), places)
        raise none_left(part.split.where("inputs", part.source))

    def _are_bad(self, part: Part, rows: np.ndarray) -> np.ndarray:
        return np.zeros(len(rows), bool) if self.bad is None else self.bad.among(part.source, rows)

    def _prepare_targets(self, targets: np.ndarray, rows: np.ndarray | None, out: np.ndarray | None) -> np.ndarray:
        if self.info.standardised:
            return self.info.standardise_targets(targets, rows, out)
        targets = targets if rows is None else targets[rows]
        if out is not None:
            np.copyto(out, targets, casting="unsafe")
            return out
        if self.info.vocabulary is not None:
            return targets
        return targets.astype(np.int32 if is_integer(targets) else self.info.floats, copy=False)

    @cached_property
    def fingerprint(self) -> str:
        """Returns the sha256, in hex, of the raw arrays, the rows of each split and the weights; computed on first use.

        Fields that are decoded enter by their own fingerprints.
        """
        digest = hashlib.sha256()
        seen = set()
        for name, part in [item for fold in self.folds or (self,) for item in fold.parts.items()]:
            split = part.split
            # Several splits may be cut from the same arrays, which are hashed once.
            fields = [] if id(split) in seen else zip((split.inputs, split.targets), split.stamps, strict=True)
            seen.add(id(split))
            digest.update(f"{name}: ".encode())
            further = [(array, b"") for array in split.extra.values()] if fields else []
            for array, stamp in [*fields, *further]:
                _add_to(digest, array, stamp)
            if part.rows is not None:
                _add_to(digest, part.rows)
        if self.weights is not None:
            _add_to(digest, self.weights.sums)
        return digest.hexdigest()


def as_batch_values(values: np.ndarray, where: str, name: str, rows: np.ndarray) -> np.ndarray:
    """Returns a further field as it is in a batch: float32, int32, or integers of at most 16 bits and booleans.

    Raises DataError for numbers that these do not hold.
    """
    if values.dtype.kind == "f":
        check_inputs(where, values, rows, name)
    elif values.size and (values.min() < -(2**31) or values.max() >= 2**31):
        raise DataError(where, Words(f"{name} of dtype {values.dtype} beyond int32"), "integers below 2**31")
    return values.astype(batch_dtype(values.dtype), copy=False)


def batch_dtype(dtype: np.dtype) -> np.dtype:
    """Returns the dtype of a further field in a batch, by that in the data."""
    if is_small_integer(dtype):
        return dtype
    return np.dtype(np.float32 if dtype.kind == "f" else np.int32)


def _add_to(digest: Any, array: np.ndarray | Field, stamp: bytes = b"") -> None:
    """Adds the contents of an array to a digest, or the stamp of what it was decoded from."""
    digest.update(f"{array.dtype.str} {array.shape} ".encode())
    if isinstance(array, Field):
        digest.update(array.fingerprint())
    else:
        digest.update(stamp or np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
