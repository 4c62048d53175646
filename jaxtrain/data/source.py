"""The return type of data sources, and the conversion of what a user's function returns into it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxtrain.errors import DataError, Words, nearest, one_of

SPLITS = ("train", "validation", "test")
SET_FOLDER = "Set the data folder with data.path or the environment variable JAXTRAIN_DATA"


class Split(NamedTuple):
    """Inputs (n, ...) and targets (n, ...) as read; errors name `file` and `targets_file`."""

    inputs: np.ndarray
    targets: np.ndarray
    file: str = ""
    targets_file: str = ""

    def where(self, field: str, name: str) -> str:
        """Returns the file of "inputs" or "targets" for an error, else a mention of the split `name`."""
        file = (self.targets_file or self.file) if field == "targets" else self.file
        return file or f"the {name} split"


@dataclass(frozen=True)
class Source:
    """The splits of a data set: "train", and "validation" and "test" if the set has them."""

    splits: dict[str, Split]
    classes: int | None = None


def as_source(returned: object, name: str) -> Source:
    """Converts the return value of the source `name`, a Source or {"train": (inputs, targets), ...}, into a Source.

    Raises DataError for other types, if "train" is missing, if a split has an unknown name, or for a number of classes
    that is no count.
    """
    splits = returned.splits if isinstance(returned, Source) else returned
    if not isinstance(splits, Mapping):
        expected = '{"train": (inputs, targets), ...} or a Source'
        raise DataError(f"data source {name}", Words(f"an object of type {type(returned).__name__}"), expected)
    for key in splits:
        if key not in SPLITS:
            got = Words(f"the split {key!r}")
            raise DataError(f"data source {name}", got, one_of(SPLITS), nearest(key, SPLITS))
    if "train" not in splits:
        got = Words(f"the splits {sorted(splits)}")
        raise DataError(f"data source {name}", got, "the split 'train' among them")
    classes = returned.classes if isinstance(returned, Source) else None
    if classes is not None and not (isinstance(classes, int | np.integer) and classes >= 1):
        raise DataError(f"data source {name}", classes, "a number of classes, an integer of at least 1, or None")
    named = {key: _as_split(splits[key], f"data source {name}, {key} split") for key in SPLITS if key in splits}
    return Source(named, None if classes is None else int(classes))


def _as_split(pair: object, where: str) -> Split:
    """Makes a split of a pair; its arrays are checked and converted by `check_source`."""
    if isinstance(pair, Split):
        return pair._replace(file=pair.file or where)
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        several = f"a sequence of {len(pair)}" if isinstance(pair, tuple | list) else ""
        got = Words(several or f"an object of type {type(pair).__name__}")
        raise DataError(where, got, "a pair (inputs, targets)")
    return Split(pair[0], pair[1], where)


def missing(name: str, files: str, folder: Path, published: str = "") -> DataError:
    """Builds the error for missing files: the expected files, the folder, and what to do."""
    source = f", or fetch them from {published}" if published else ""
    return DataError(name, Words(f"no {files} in {folder}"), "all files of the data set", f"{SET_FOLDER}{source}")
