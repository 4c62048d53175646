"""A source of NumPy files: one .npz, or a folder of .npy; pickled objects are never loaded."""

import functools
import io
import math
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np

from jaxtrain.data.readers.sizes import check_memory
from jaxtrain.data.source import SPLITS, Source, Split, missing
from jaxtrain.errors import DataError, JaxtrainError, Words, nearest
from jaxtrain.files import exists, guarded, is_directory, list_data, open_file, read_json

NAMES = {name: (f"{name}_inputs", f"{name}_targets") for name in SPLITS}
NUMBERS = "an array of numbers"
NEW_INPUTS = "Save the ones to predict from alone, as by numpy.savez(file, inputs=...)"
SAVE_AGAIN = "Save it again, as by numpy.savez(file, train_inputs=..., train_targets=...)"
NO_PICKLES = "Save numbers, as by array.astype(float): pickled Python objects and other formats are never loaded"
EXPECTED = "train_inputs and train_targets (or inputs and targets), with validation_* and test_* where there are any"

DESCRIPTION = "description.json"
"""Name of the file beside the arrays that holds what arrays cannot: classes, their names, and columns."""

MAPPED_BYTES = 2**26
"""Size of a file of .npy from which on it is memory-mapped."""


Made = TypeVar("Made")


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype


def arrays(path: Path, file: str) -> Source:
    """NumPy arrays train_inputs, train_targets, validation_*, test_* in one .npz or a folder of .npy files.

    `inputs` and `targets` without a prefix are the training split. Shapes (n, ...), any numeric dtype. A file of .npy
    beyond 64 MiB is memory-mapped, so it may be larger than memory. A folder that the command `prepare` wrote also has
    the names of the classes, and columns beside the training inputs.
    Raises DataError naming the file and array that are missing, damaged or hold Python objects.
    """
    place = path / file
    if is_directory(place):
        files = {Path(name).stem: place / name for name in list_data(place) if name.endswith(".npy")}
        source = _load_splits(place, files, lambda name: str(files[name]), lambda name: _load_file(files[name]))
        return _described(source, place / DESCRIPTION) if exists(place / DESCRIPTION) else source
    if not exists(place):
        raise missing("arrays", f"{file} (an .npz, or a folder of .npy files)", path)
    return _read_archive(place, _load_splits)


def _described(source: Source, file: Path) -> Source:
    """Returns the source with the classes and columns of a description, as `data/preparation.py` writes it."""
    description = read_json(file)
    try:
        names = {str(column): file.with_name(f"{array}.npy") for column, array in description["columns"].items()}
        columns = {column: _load_file(array) for column, array in names.items()}
        given = description["classes"], tuple(map(str, description["class_names"]))
    except (KeyError, TypeError, AttributeError) as error:
        hint = "Write the folder again by the command prepare"
        raise DataError(
            str(file), Words("a description without them"), "classes, class_names, columns", hint
        ) from error
    boxes = description.get("box_classes")  # absent in earlier versions
    return replace(source, classes=given[0], class_names=given[1], columns=columns, box_classes=boxes)


def read_new_arrays(place: Path) -> Split:
    """Reads inputs to predict from: a .npy file, or an .npz or a folder of .npy with targets where it has them.

    Arrays are named `inputs` and `targets`, or as those of one split; a single array is inputs. Targets are None where
    there are none. Raises DataError naming the file and array that are missing, damaged or hold Python objects.
    """
    if is_directory(place):
        files = {Path(name).stem: place / name for name in list_data(place) if name.endswith(".npy")}
        return _new_split(place, set(files), lambda name: str(files[name]), lambda name: _load_file(files[name]))
    if place.suffix.lower() == ".npy":
        return _new_split(place, {place.stem}, lambda _: str(place), lambda _: _load_file(place))
    return _read_archive(place, _new_split)


def _read_archive(place: Path, make: Callable[..., Made]) -> Made:
    """Returns what `make(place, names, title, load)` makes of the arrays of an .npz file."""
    try:
        with open_file(place) as stream:  # opened here, since NumPy does not close a damaged file
            archive: Any = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.lib.npyio.NpzFile):
                assert archive.zip is not None
                members = _members(place, stream, archive.zip)
                return make(
                    place,
                    members,
                    lambda name: f"{place}[{name}]",
                    lambda name: _load_member(archive, members[name], f"{place}[{name}]"),
                )
    except JaxtrainError:
        raise
    except Exception as error:  # damage can raise anything
        raise DataError(str(place), Words("a file that cannot be read"), "a whole .npz file", _hint(error)) from error
    raise DataError(str(place), Words("a single array"), f"an .npz file or a folder of .npy files, with {EXPECTED}")


def _members(place: Path, stream: IO[bytes], archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Returns name of array -> its member; raises DataError for a name given twice, and for bytes around the archive.

    A reader of zip files looks for the directory at the end and skips the rest: an archive before it would be lost.
    """
    entries = archive.infolist()
    names = [entry.filename.removesuffix(".npy") for entry in entries]
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise DataError(str(place), Words(f"{count} arrays named {name}"), "one array of each name", SAVE_AGAIN)
    end = zipfile.sizeEndCentDir + len(archive.comment)  # pyright: ignore[reportAttributeAccessIssue]
    stream.seek(-end, io.SEEK_END)
    begins = min((entry.header_offset for entry in entries), default=0)
    if begins > 0 or stream.read(4) != b"PK\5\6":
        got = Words("bytes before the archive" if begins > 0 else "bytes after the archive")
        raise DataError(str(place), got, "an .npz file and nothing else", SAVE_AGAIN)
    return dict(zip(names, entries, strict=True))


def _load_file(file: Path) -> np.ndarray:
    with open_file(file) as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        header = _check_header(stream, size, str(file))
        if size > MAPPED_BYTES:
            order: Any = "F" if header.fortran_order else "C"
            with guarded(file, "read"):
                return np.memmap(stream, header.dtype, "r", stream.tell(), header.shape, order)
        check_memory(str(file), size, header.shape)
        stream.seek(0)
        return np.load(stream, allow_pickle=False)


def _load_member(archive: Any, member: zipfile.ZipInfo, title: str) -> np.ndarray:
    with archive.zip.open(member) as stream:
        header = _check_header(stream, member.file_size, title)
    check_memory(title, member.file_size, header.shape)
    return archive[member.filename]


def _check_header(stream: Any, size: int, title: str) -> _Header:
    """Reads the header of an array in NumPy's format; raises DataError unless the array fills `size` bytes.

    NumPy would allocate what the header declares before it reads, and would leave unread what follows the array.
    """
    version = np.lib.format.read_magic(stream)
    if version > (2, 0):  # later ones add names of fields that are not Latin-1
        raise DataError(title, Words(f"the format {version} of a structured array"), NUMBERS, SAVE_AGAIN)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(stream)
    if dtype.hasobject:
        raise DataError(title, Words("an array that cannot be read"), NUMBERS, NO_PICKLES)
    expected = stream.tell() + math.prod(shape) * dtype.itemsize
    if size != expected or min(shape, default=0) < 0:
        of = f"{expected:,}, for the shape {shape} of {dtype} in its header"
        raise DataError(title, Words(f"{size:,} bytes"), of, "Save it again, each array in a file of its own")
    return _Header(shape, fortran_order, dtype)


def _load_splits(
    place: Path, stored: Iterable[str], title: Callable[[str], str], load: Callable[[str], np.ndarray]
) -> Source:
    """Loads the arrays of each split; `title` names an array in errors."""
    read = functools.partial(_read_array, title, load)
    pairs = _array_names(place, set(stored)).items()
    return Source({split: Split(read(x), read(y), title(x), title(y)) for split, (x, y) in pairs})


def _new_split(
    place: Path, stored: Iterable[str], title: Callable[[str], str], load: Callable[[str], np.ndarray]
) -> Split:
    """Loads the arrays to predict from; `title` names an array in errors."""
    names = sorted(stored)
    pairs = [pair for pair in (("inputs", "targets"), *NAMES.values()) if pair[0] in names]
    if len(names) == 1:
        pairs = [(names[0], "")]
    if len(pairs) != 1:
        got = Words(f"the arrays {', '.join(names)}" if names else "no arrays")
        raise DataError(str(place), got, "one array of inputs, and targets where there are any", NEW_INPUTS)
    inputs, targets = pairs[0]
    read = functools.partial(_read_array, title, load)
    if targets not in names:
        return Split(read(inputs), None, title(inputs))
    return Split(read(inputs), read(targets), title(inputs), title(targets))


def _read_array(title: Callable[[str], str], load: Callable[[str], np.ndarray], name: str) -> np.ndarray:
    try:
        return load(name)
    except JaxtrainError:
        raise
    except Exception as error:  # damage can raise anything
        raise DataError(title(name), Words("an array that cannot be read"), NUMBERS, _hint(error)) from error


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
    if "allow_pickle" in str(error):  # NumPy's message for unknown file formats, which it takes for pickles
        return NO_PICKLES
    return f"Write it again: {str(error)[:200] or type(error).__name__}"  # some errors quote the file
