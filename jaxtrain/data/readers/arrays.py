"""A source of NumPy files: one .npz, or a folder of .npy; pickled objects are never loaded."""

import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from jaxtrain.data.source import SPLITS, Source, Split, missing
from jaxtrain.errors import DataError, Words, nearest
from jaxtrain.files import exists, is_directory, list_directory, open_file

UNREADABLE = (OSError, EOFError, ValueError, KeyError, zlib.error, zipfile.BadZipFile)
NAMES = {name: (f"{name}_inputs", f"{name}_targets") for name in SPLITS}
EXPECTED = "train_inputs and train_targets (or inputs and targets), with validation_* and test_* where there are any"


def arrays(path: Path, file: str) -> Source:
    """NumPy arrays train_inputs, train_targets, validation_*, test_* in one .npz or a folder of .npy files.

    `inputs` and `targets` without a prefix are the training split. Shapes (n, ...), any numeric dtype.
    Raises DataError naming the file and array that are missing, damaged or hold Python objects.
    """
    place = path / file
    if is_directory(place):
        files = {Path(name).stem: place / name for name in list_directory(place) if name.endswith(".npy")}
        return _load_splits(place, files, lambda name: files[name], lambda name: _load_array(files[name]))
    if not exists(place):
        raise missing("arrays", f"{file} (an .npz, or a folder of .npy files)", path)
    return _read_archive(place)


def _load_array(file: Path) -> np.ndarray:
    with open_file(file) as stream:
        return np.load(stream, allow_pickle=False)


def _read_archive(place: Path) -> Source:
    try:
        with open_file(place) as stream:  # opened here, since NumPy does not close a damaged file
            archive = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.lib.npyio.NpzFile):
                return _load_splits(place, archive.files, lambda name: f"{place}[{name}]", archive.__getitem__)
    except UNREADABLE as error:
        raise DataError(str(place), Words("a file that cannot be read"), "a whole .npz file", _hint(error)) from error
    raise DataError(str(place), Words("a single array"), f"an .npz file or a folder of .npy files, with {EXPECTED}")


def _load_splits(
    place: Path, stored: Iterable[str], title: Callable[[str], object], load: Callable[[str], np.ndarray]
) -> Source:
    """Loads the arrays of each split; `title` names an array in errors."""

    def read(name: str) -> np.ndarray:
        try:
            return load(name)
        except UNREADABLE as error:
            got = Words("an array that cannot be read")
            raise DataError(str(title(name)), got, "an array of numbers", _hint(error)) from error

    pairs = _array_names(place, set(stored)).items()
    return Source({split: Split(read(x), read(y), str(title(x)), str(title(y))) for split, (x, y) in pairs})


def _array_names(place: Path, stored: set[str]) -> dict[str, tuple[str, str]]:
    """Returns {split: names of its inputs and targets}; raises DataError for half a pair or a mistyped name."""
    unprefixed = ("inputs", "targets")
    if not stored.isdisjoint(unprefixed) and not stored.isdisjoint(NAMES["train"]):
        got = Words("both inputs/targets and train_inputs/train_targets")
        raise DataError(str(place), got, "one of these pairs", "Remove the other")
    names = NAMES | ({} if stored.isdisjoint(unprefixed) else {"train": unprefixed})
    allowed = {name for pair in names.values() for name in pair}
    for name in sorted(stored - allowed):
        if name.endswith(("_inputs", "_targets")):
            raise DataError(str(place), name, EXPECTED, nearest(name, allowed))
    pairs = {split: pair for split, pair in names.items() if split == "train" or not stored.isdisjoint(pair)}
    absent = [name for pair in pairs.values() for name in pair if name not in stored]
    if absent:
        got = Words(f"{sorted(stored)} without {', '.join(absent)}")
        raise DataError(str(place), got, EXPECTED)
    return pairs


def _hint(error: Exception) -> str:
    if "allow_pickle" in str(error):  # NumPy's message for pickled objects, and for unknown file formats
        return "Save numbers, as by array.astype(float): pickled Python objects and other formats are never loaded"
    return f"Write it again: {str(error) or type(error).__name__}"
