"""A source of data sets that the package `datasets` of Hugging Face saved to disk."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.config.schema import Name
from jaxtrain.data.source import SPLITS, Source, missing
from jaxtrain.errors import DataError, Words, one_of
from jaxtrain.files import guarded, is_directory


def hub(path: Path, folder: Name, inputs: Name = "image", targets: Name = "label") -> Source:
    """A data set in a folder that `datasets` wrote by `save_to_disk`, of one split or several; nothing is fetched.

    `inputs` and `targets` name its columns. Pictures are taken as bytes (height, width, channels), numbers and lists as
    arrays. Labels that have names keep them. Raises DataError for a folder or a column that is missing.
    """
    if not is_directory(path / folder):
        raise missing("hub", f"folder {folder}", path)
    if find_spec("datasets") is None:
        raise DataError("hub", Words("no installed datasets"), "the package that reads it", "Run pip install datasets")
    place = path / folder
    datasets: Any = import_module("datasets")
    try:
        with guarded(place, "read"):
            loaded = datasets.load_from_disk(str(place))
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:  # of a folder that is none of its own
        got = Words(f"a folder that cannot be read ({type(error).__name__})")
        raise DataError(str(place), got, "a data set that datasets wrote by save_to_disk") from error
    splits = dict(loaded) if hasattr(loaded, "keys") else {"train": loaded}
    chosen = {name: splits[name] for name in SPLITS if name in splits}
    if "train" not in chosen:
        raise DataError(str(place), Words(f"the splits {', '.join(splits)}"), "the split 'train' among them")
    for column in (inputs, targets):
        if column not in chosen["train"].column_names:
            raise DataError(str(place), Words(f"no column {column!r}"), one_of(chosen["train"].column_names))
    names = getattr(chosen["train"].features[targets], "names", None) or ()
    read = {name: _Columns(split, inputs, targets) for name, split in chosen.items()}
    return Source(read, class_names=tuple(names))


class _Columns:
    """Two columns of a data set as examples (inputs, targets)."""

    def __init__(self, split: Any, inputs: str, targets: str) -> None:
        self._split = split
        self._names = (inputs, targets)
        self._fingerprint = f"{split._fingerprint} {inputs} {targets}"  # by which it is known where it is read again

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[tuple[Any, Any]]:
        inputs, targets = (self._split[list(rows)][name] for name in self._names)
        return [(_as_array(value), target) for value, target in zip(inputs, targets, strict=True)]


def _as_array(value: Any) -> np.ndarray:
    """Returns a picture as (height, width, channels), and other values as they are."""
    array = np.asarray(value)
    is_picture = hasattr(value, "getbands")
    return array[..., None] if is_picture and array.ndim == 2 else array
