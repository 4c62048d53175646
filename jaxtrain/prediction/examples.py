"""Examples to predict from, in pieces: what each of their readers returns."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxtrain.config.registry import knobs_of
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import DataError

FILL_IN = "Fill it in, or leave the row out by --skip-bad"
"""The remedies for a number that is missing or not finite."""


class Piece(NamedTuple):
    """Some examples: their ids (n,), row numbers or names, raw inputs as a model takes them, and targets.

    Targets are as in `Dataset.targets`, None where there are none; `has_target` (n,) tells which examples have one.
    `sizes` are height and width (n, 2) of pictures that were resized, None where masks have the size of their pictures.
    """

    ids: np.ndarray
    inputs: Any
    targets: np.ndarray | None = None
    has_target: np.ndarray | None = None
    sizes: np.ndarray | None = None

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.ids)


class Examples(Protocol):
    """Examples of files, of which all but one piece at a time stay there."""

    @property
    def count(self) -> int | None:
        """The number of examples; None where it is not known before they are read."""
        ...

    def pieces(self) -> Generator[Piece]:
        """Yields the examples in their order; raises DataError naming file and row, unless bad ones are skipped."""
        ...


@dataclass(frozen=True)
class Bad:
    """The examples that cannot be read: the first one is raised unless they are skipped, then all are kept."""

    skip: bool
    errors: list[DataError] = field(default_factory=list)

    def note(self, error: DataError) -> None:
        """Takes the error of one example."""
        if not self.skip:
            raise error
        self.errors.append(error)


@dataclass(frozen=True)
class Form:
    """The form of the examples of a model: the description of its data, and the section `data` that read them.

    `batch` is the number of examples that the model predicts at once.
    """

    info: DataInfo
    section: Mapping[str, Any]
    batch: int

    def knobs(self, reader: Callable[..., Any]) -> dict[str, Any]:
        """Returns the knobs of a reader: those of the section where it has them, else their defaults."""
        defaults = {name: knob.default for name, knob in knobs_of(reader, supplied=1).items()}
        return defaults | {name: value for name, value in self.section.items() if name in defaults}

    @property
    def piece_rows(self) -> int:
        """The examples of a piece: about 32 MiB of inputs or predictions, and whole batches."""
        info = self.info
        shape_of_outputs = (*info.target_shape, info.classes or 1)
        bytes_each = max(
            np.dtype(info.input_dtype).itemsize * _product(info.input_shape), 4 * _product(shape_of_outputs)
        )
        return max(1, min(PIECE_BYTES // bytes_each, MOST_ROWS) // self.batch) * self.batch


PIECE_BYTES = 2**25
MOST_ROWS = 2**13


def _product(shape: Sequence[int]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def row_ids(file: str, rows: np.ndarray, *, alone: bool) -> np.ndarray:
    """Returns the ids of rows (n,): their numbers, with the name of the file where it is one of several."""
    return rows if alone else np.array([f"{file}:{row}" for row in rows.tolist()], object)
