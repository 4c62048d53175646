"""Writes decoded fields to arrays on disk once; later epochs and runs map these into memory."""

import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxtrain.data.array_files import demand_space, write_field
from jaxtrain.data.fields import Field, nbytes
from jaxtrain.data.source import Split
from jaxtrain.errors import JaxtrainWarning, Words
from jaxtrain.files import exists, guarded, make_directory, remove, rename


def cached(splits: Mapping[str, Split], folder: Path) -> dict[str, Split]:
    """Returns the splits with their fields as memory-mapped arrays in a folder, which are written where they are not.

    A file is named by the version of what was decoded, so data that were written again get files of their own. Warns of
    the disk that it takes before it writes; raises StorageError where there is not enough.
    """
    fields = [field for split in splits.values() for field in split[:2] if isinstance(field, Field)]
    places = {id(field): _place(field, folder) for field in fields}
    needed = sum(nbytes(field) for field in fields if not exists(places[id(field)]))
    if needed:
        make_directory(folder)
        demand_space("data.cache", folder, needed)
        got = Words(f"{needed / 2**30:,.2f} GiB of decoded examples to write to {folder}")
        warnings.warn(JaxtrainWarning("data.cache", got, "this once: later runs read them"), stacklevel=4)
    return {
        name: split.change_fields(lambda field: _mapped(field, places[id(field)])) for name, split in splits.items()
    }


def _mapped(field: Field, place: Path) -> np.ndarray:
    """Maps the array of a field into memory, and writes it first if there is none."""
    if not exists(place):
        _write(field, place)
    with guarded(place, "read"):
        return np.asarray(np.load(place, mmap_mode="r"))


def _place(field: Field, folder: Path) -> Path:
    identity = f"{field.shape} {field.dtype.str} ".encode() + field.version()
    return folder / f"{hashlib.sha256(identity).hexdigest()[:24]}.npy"


def _write(field: Field, place: Path) -> None:
    """Writes a whole field to a file of another name, and renames it, so that a kill leaves no half."""
    unfinished = place.with_name(f".{place.name}.{os.getpid()}.unfinished")
    try:
        write_field(unfinished, field)
        rename(unfinished, place)
    finally:
        if exists(unfinished):
            remove(unfinished)
