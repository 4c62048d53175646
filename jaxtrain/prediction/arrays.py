"""Arrays to predict from: NumPy files, and images in IDX."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxtrain.data.readers.arrays import read_new_arrays
from jaxtrain.data.readers.idx import read_idx
from jaxtrain.data.source import Split
from jaxtrain.errors import DataError, Words
from jaxtrain.files import exists, is_directory, list_data
from jaxtrain.prediction.examples import FILL_IN, Bad, Form, Piece, row_ids
from jaxtrain.prediction.targets import as_targets

IDX_IMAGES = "images-idx3"
IDX_LABELS = "labels-idx1"


@dataclass(frozen=True)
class ArrayExamples:
    """Arrays (n, ...) of files, those beyond 64 MiB memory-mapped where they are .npy."""

    splits: Sequence[Split]
    form: Form
    bad: Bad

    @classmethod
    def of_files(cls, files: Sequence[Path], form: Form, bad: Bad) -> "ArrayExamples":
        """Opens .npy, .npz, and folders of .npy."""
        return cls([read_new_arrays(file) for file in files], form, bad)

    @classmethod
    def of_idx(cls, files: Sequence[Path], form: Form, bad: Bad) -> "ArrayExamples":
        """Opens images in IDX, and folders of them, with the labels beside them where they have the names of MNIST."""
        found = [file for path in files for file in idx_files(path)]
        return cls([_read_idx(file) for file in found if IDX_LABELS not in _plain_name(file)], form, bad)

    @property
    def count(self) -> int:
        """The number of examples."""
        return sum(len(split.inputs) for split in self.splits)

    def pieces(self) -> Generator[Piece]:
        """Yields the examples in their order."""
        for split in self.splits:
            _check(split, self.form)
            for begin in range(0, len(split.inputs), self.form.piece_rows):
                rows = np.arange(begin, min(begin + self.form.piece_rows, len(split.inputs)))
                yield self._piece(split, rows)

    def _piece(self, split: Split, rows: np.ndarray) -> Piece:
        kept = rows[~self._are_bad(split, rows)]
        ids = row_ids(split.file, kept, alone=len(self.splits) == 1)
        inputs = np.asarray(split.inputs[rows[0] : rows[-1] + 1])
        inputs = inputs if len(kept) == len(rows) else inputs[kept - rows[0]]
        if split.targets is None:
            return Piece(ids, inputs)
        targets = as_targets(np.asarray(split.targets[kept]), self.form.info, lambda i: _place(split, int(kept[i])))
        return Piece(ids, inputs, targets, np.ones(len(kept), bool))

    def _are_bad(self, split: Split, rows: np.ndarray) -> np.ndarray:
        """Tells which rows hold numbers that are not finite, and notes them."""
        values = split.inputs[rows[0] : rows[-1] + 1]
        if values.dtype.kind != "f":
            return np.zeros(len(rows), bool)
        limit = np.finfo(np.float32).max
        usable = np.abs(values) <= limit  # false for nan
        bad = ~usable.reshape(len(rows), -1).all(axis=1)
        for place in np.flatnonzero(bad):
            at = np.argwhere(~usable[place])[0]
            got = Words(f"inputs[{', '.join(map(str, (rows[place], *at)))}] = {values[(place, *at)]}")
            self.bad.note(DataError(_place(split, rows[place]), got, "finite numbers in the range of float32", FILL_IN))
        return bad


def _place(split: Split, row: int) -> str:
    return f"{split.file}, row {row}"


def _check(split: Split, form: Form) -> None:
    """Raises DataError for examples of another shape, or no numbers, and for targets of another number."""
    inputs = split.inputs
    if inputs.dtype.kind not in "biuf":
        raise DataError(split.file, Words(f"inputs of dtype {inputs.dtype}"), "numbers")
    try:
        form.info.check_shape(inputs)
    except DataError as error:
        raise DataError(split.file, error.got, error.expected, error.hint) from error
    if split.targets is not None and len(split.targets) != len(inputs):
        got = Words(f"{len(split.targets)} targets for {len(inputs)} inputs")
        raise DataError(split.targets_file, got, "one for each example")


def _plain_name(file: Path) -> str:
    """Returns the name of a file with the dash before "idx", which some unpackers make a dot."""
    return file.name.replace(".idx", "-idx")


def idx_files(path: Path) -> list[Path]:
    """Returns a file that has the name of one in IDX, or those of a folder in the order of their names."""
    files = [path / name for name in list_data(path)] if is_directory(path) else [path]
    return [file for file in files if any(part in _plain_name(file) for part in (IDX_IMAGES, IDX_LABELS, "-idx3-"))]


def _read_idx(file: Path) -> Split:
    images = Split(read_idx(file, 3)[..., None], None, str(file))
    name = file.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    found = [other for other in (file.with_name(name), file.with_name(f"{name}.gz")) if other != file and exists(other)]
    if not found:
        return images
    return images._replace(targets=read_idx(found[0], 1).astype(np.int32), targets_file=str(found[0]))
