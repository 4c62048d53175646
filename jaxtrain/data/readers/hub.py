"""A source of data sets that the package `datasets` of Hugging Face saved to disk."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxtrain.config.schema import Name
from jaxtrain.data.checksums import Checksums
from jaxtrain.data.image_fields import ImageField, Size, image_form
from jaxtrain.data.images import Resampling
from jaxtrain.data.source import SPLITS, Source, Split, missing
from jaxtrain.errors import ConfigError, DataError, Words, one_of
from jaxtrain.files import file_time, full_path, guarded, is_directory


def hub(
    path: Path,
    folder: Name,
    inputs: Name = "image",
    targets: Name = "label",
    size: Size | None = None,
    channels: Literal[1, 3, 4] | None = None,
    resampling: Resampling = "bilinear",
) -> Source:
    """A data set in a folder that `datasets` wrote by `save_to_disk`, of one split or several; nothing is fetched.

    `inputs` and `targets` name its columns. Pictures become as `image_folder` makes them, with its `size`, `channels`
    and `resampling`; where the targets are pictures, too, both are taken as they are. Numbers and lists are arrays.
    Labels that have names keep them. Raises DataError for a folder or a column that is missing, and naming the row of a
    picture that cannot be used.
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
    features = chosen["train"].features
    names = tuple(getattr(features[targets], "names", None) or ())
    if isinstance(features[inputs], datasets.Image) and not isinstance(features[targets], datasets.Image):
        stored = {name: StoredPictures(split, name, inputs, place) for name, split in chosen.items()}
        form, damaged = image_form(list(stored.values()), place, size, channels, resampling)
        fields = {name: ImageField(pictures, form) for name, pictures in stored.items()}
        read = {name: Split(fields[name], _targets(split, targets), str(place)) for name, split in chosen.items()}
        return Source(read, class_names=names, damaged=tuple(damaged))
    for knob, value in (("size", size), ("channels", channels)):
        if value is not None:
            raise ConfigError(f"data.{knob}", value, f"None, unless {inputs!r} holds pictures, and {targets!r} none")
    return Source({name: _Columns(split, inputs, targets) for name, split in chosen.items()}, class_names=names)


class StoredPictures:
    """The compressed pictures of a column; read as `file_list.FileList` reads files."""

    def __init__(self, split: Any, name: str, column: str, folder: Path) -> None:
        """Takes a split and its name, and the folder that errors name; raises DataError where it has no rows."""
        self._column = column
        self._place = f"{folder}, {name}"
        if not len(split):
            raise DataError(self._place, Words("no examples"), "at least one")
        undecoded = type(split.features[column])(decode=False)
        self._rows = split.with_format(None).select_columns(column).cast_column(column, undecoded)
        self._files = [file["filename"] for file in split.cache_files]
        self._fingerprint = f"{split._fingerprint} {column}".encode()  # by which it is known where it is read again
        self.checksums = Checksums(len(split), self.where)

    def __len__(self) -> int:
        """Returns the number of pictures."""
        return len(self._rows)

    def path(self, row: int) -> str:
        """Returns folder, split and row."""
        return f"{self._place}, row {row}"

    def where(self, row: int) -> str:
        """Returns folder, split and row for an error."""
        return self.path(row)

    def read(self, row: int) -> bytes:
        """Returns the bytes of a picture; raises DataError for a missing one, and for one that has changed."""
        content = (self._rows[row][self._column] or {}).get("bytes")
        if content is None:
            got = Words(f"no bytes in the column {self._column!r}")
            raise DataError(self.where(row), got, "a picture in each row", "Leave the row out, and save the data again")
        self.checksums.check(row, [content])
        return content

    def start(self, row: int, most: int) -> bytes:
        """Returns the first bytes of a picture, all if `most` is -1."""
        content = self.read(row)
        return content if most < 0 else content[:most]

    def fingerprint(self) -> bytes:
        """Returns the fingerprint that `datasets` saved, and the column."""
        return self._fingerprint

    def version(self) -> bytes:
        """Returns the fingerprint with the places and times of the files."""
        written = "".join(f"{full_path(file)}\0{file_time(file)}\0" for file in self._files)
        return self._fingerprint + written.encode(errors="surrogateescape")


def _targets(split: Any, name: str) -> Any:
    """Returns a column as an array, or as a list where it holds texts or lists of them."""
    values = list(split.with_format(None)[name])
    feature = split.features[name]
    kind = getattr(getattr(feature, "feature", feature), "dtype", None)
    return values if kind in ("string", "large_string") else np.asarray(values)


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
