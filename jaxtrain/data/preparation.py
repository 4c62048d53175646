"""Writes the data of a source to arrays (.npy) once: what can only be read in order, or takes long to decode."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.data.array_files import GrowingArray, write_field
from jaxtrain.data.examples import Values, demand_alike, is_iterable, is_readable, pair_of
from jaxtrain.data.fields import Field, nbytes
from jaxtrain.data.plain_arrays import plain_array
from jaxtrain.data.readers.arrays import DESCRIPTION, NAMES
from jaxtrain.data.source import Source, Split, as_split
from jaxtrain.data.tables import Table
from jaxtrain.errors import DataError, Words
from jaxtrain.files import write_json

PIECE = 64
"""Examples that are written at a time."""

Advance = Callable[[int], None]
"""Takes the number of examples that were written since its last call."""


class InOrder:
    """Examples of a split that are read once, in their order; the first one tells shapes and dtypes."""

    def __init__(self, given: Any, where: str, names: tuple[str, ...]) -> None:
        """Takes the examples, what errors name, and the names of their fields; reads the first one."""
        self.where = where
        self.names = names
        self.count: int | None = len(given) if hasattr(given, "__len__") else None
        in_order = given if isinstance(given, Iterable) else (given[row] for row in range(len(given)))
        examples = iter(in_order)
        first = next(examples, self)
        if first is self:
            raise DataError(where, Words("no examples"), "at least one")
        self.first = pair_of(first, f"{where}, row 0", names)
        if self.first[0].dtype.kind == "O":
            hint = "Write an object a line for data.name=jsonl, and name the field of the texts by data.text"
            raise DataError(where, Words("inputs that are texts"), "arrays of numbers", hint)
        self._examples = itertools.chain([first], examples)

    @property
    def example_bytes(self) -> int:
        """The bytes of an example; those of a text are left out."""
        return sum(array.nbytes for array in self.first if array.dtype.kind != "O")

    def pieces(self) -> Iterator[list[Values]]:
        """Yields the examples, a few at a time; raises DataError for one that is unlike the first, naming its row."""
        rows = itertools.count()
        while piece := list(itertools.islice(self._examples, PIECE)):
            pairs = []
            for row, example in zip(rows, piece):  # noqa: B905 (the rows have no end)
                where = f"{self.where}, row {row}"
                pair = pair_of(example, where, self.names)
                for field in (0, 1):
                    demand_alike(pair, self.first, field, where)
                pairs.append(pair)
            yield pairs


def as_preparable(given: object, where: str, names: tuple[str, ...]) -> Split | InOrder:
    """Converts a split of a source to one that can be written: arrays and fields, or examples in order.

    Raises DataError for a table, whose columns are encoded by the training rows of each run.
    """
    if (
        not isinstance(given, Split)
        and (is_readable(given) or is_iterable(given))
        and not hasattr(given, "columns")
        and len(names) == 2
    ):
        return InOrder(given, where, names)
    split = as_split(given, where, names)
    if split.extra:
        got = Words(f"the further fields {', '.join(split.extra)}")
        raise DataError(where, got, "inputs and targets alone, which arrays hold", "Leave Source(extra=...) out")
    if isinstance(split.inputs, Table):
        hint = "Train on it as it lies: a table is read at any rows"
        raise DataError(where, Words("a table of columns"), "examples of arrays, such as pictures", hint)
    texts = np.asarray(split.targets) if not isinstance(split.targets, Field) else split.targets
    targets = texts if isinstance(texts, Field) or texts.dtype.kind in "UT" else _plain(split.targets, where, "targets")
    return split._replace(inputs=_plain(split.inputs, where, "inputs"), targets=targets)


def _plain(values: Any, where: str, field: str) -> np.ndarray | Field:
    return values if isinstance(values, Field) else plain_array(values, where, field)


def known_examples(split: Split | InOrder) -> int | None:
    """Returns the number of examples of a split; None where it is not known before they are read."""
    return split.count if isinstance(split, InOrder) else len(split.inputs)


def known_bytes(split: Split | InOrder) -> int | None:
    """Returns the bytes that a split takes as arrays; None where its number of examples is not known before."""
    if isinstance(split, InOrder):
        return None if split.count is None else split.count * split.example_bytes
    return nbytes(split.inputs) + nbytes(split.targets)


def write_arrays(source: Source, folder: Path, advance: Advance) -> dict[str, int]:
    """Writes a source of splits from `as_preparable` to an empty folder, which `arrays` reads as they were read here.

    Returns {split: number of examples}. Raises DataError for an example that cannot be read or is unlike the first one.
    """
    counts = {}
    for name, split in source.splits.items():
        files = [folder / f"{array}.npy" for array in NAMES[name]]
        if isinstance(split, InOrder):
            counts[name] = _write_in_order(split, files[0], files[1], advance)
            continue
        write_field(files[0], split.inputs, advance)
        write_field(files[1], split.targets)
        counts[name] = len(split.inputs)
    places = {column: f"column_{i}" for i, column in enumerate(source.columns)}
    for column, values in source.columns.items():
        write_field(folder / f"{places[column]}.npy", np.asarray(values))
    classes = {"classes": source.classes, "class_names": list(source.class_names), "box_classes": source.box_classes}
    named = {**classes, "columns": places}
    write_json(folder / DESCRIPTION, named)
    return counts


def _write_in_order(split: InOrder, inputs: Path, targets: Path, advance: Advance) -> int:
    """Writes the examples of a split as they come; texts, the names of classes, at the end. Returns their number."""
    first_inputs, first_targets = split.first
    are_names = first_targets.dtype.kind == "O"
    names: list[str] = []
    growing = GrowingArray(inputs, first_inputs.shape, first_inputs.dtype)
    labels = None if are_names else GrowingArray(targets, first_targets.shape, first_targets.dtype)
    count = 0
    for pairs in split.pieces():
        growing.append(np.stack([pair[0] for pair in pairs]))
        if labels is None:
            names += [str(pair[1]) for pair in pairs]
        else:
            labels.append(np.stack([pair[1] for pair in pairs]))
        count += len(pairs)
        advance(len(pairs))
    growing.complete()
    if labels is None:
        write_field(targets, np.array(names))
    else:
        labels.complete()
    return count


def size_in_words(size: float) -> str:
    """Returns a number of bytes as "1.50 GiB" or "12.3 MiB"."""
    if size >= 2**30:
        return f"{size / 2**30:,.2f} GiB"
    return f"{math.ceil(size / 2**20 * 10) / 10:,.1f} MiB"
