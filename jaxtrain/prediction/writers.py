"""Writers of predictions, by the ending of the output: CSV, JSON Lines, Parquet, NumPy arrays, a folder of masks.

Each writes below a folder of its own, piece by piece, and returns what takes the place of the output at the end.
"""

import csv
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np

from jaxtrain.data.array_files import GrowingArray, write_field
from jaxtrain.data.images import resize
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import DataError, UsageError, Words, one_of
from jaxtrain.files import as_json_value, exists, guarded, make_directory, open_file, write_all
from jaxtrain.prediction.models import Outputs
from jaxtrain.prediction.rows import Layout


class Writer(Protocol):
    """Writes predictions in order."""

    def write(self, ids: np.ndarray, outputs: Outputs, prompts: np.ndarray | None = None) -> None:
        """Writes the outputs (n, ...) of some examples, whose ids are (n,)."""
        ...

    def finish(self) -> Path:
        """Completes what was written, on the disk, and returns its path."""
        ...

    def close(self) -> None:
        """Closes the files that are open, complete or not."""
        ...


class _Lines:
    """A text file that is written a line at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_file(path, "wb")

    def write(self, text: str) -> None:
        with guarded(self._path, "written"):
            self._file.write(text.encode(errors="surrogateescape"))

    def finish(self) -> Path:
        with guarded(self._path, "written"):
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._path

    def close(self) -> None:
        with guarded(self._path, "written"):
            self._file.close()


class CsvWriter(_Lines):
    """Comma-separated values with a header, as RFC 4180 has them but for line ends."""

    def __init__(self, folder: Path, info: DataInfo, class_names: tuple[str, ...]) -> None:
        """Opens the file."""
        super().__init__(folder / "table.csv")
        self._layout = Layout(info, class_names, nested=False)
        self._has_header = False

    def write(self, ids: np.ndarray, outputs: Outputs, prompts: np.ndarray | None = None) -> None:  # pyright: ignore
        """Writes rows."""
        columns = self._layout.columns(ids, outputs, prompts)
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        if not self._has_header:
            rows.writerow(columns)
            self._has_header = True
        rows.writerows(zip(*columns.values(), strict=True))
        super().write(text.getvalue())


class JsonlWriter(_Lines):
    """One JSON object a line."""

    def __init__(self, folder: Path, info: DataInfo, class_names: tuple[str, ...]) -> None:
        """Opens the file."""
        super().__init__(folder / "table.jsonl")
        self._layout = Layout(info, class_names, nested=True)

    def write(self, ids: np.ndarray, outputs: Outputs, prompts: np.ndarray | None = None) -> None:  # pyright: ignore
        """Writes rows."""
        columns = self._layout.columns(ids, outputs, prompts)
        rows = zip(*columns.values(), strict=True)
        super().write("".join(f"{_as_json(dict(zip(columns, row, strict=True)))}\n" for row in rows))


def _as_json(row: dict[str, Any]) -> str:
    """Returns a row as JSON, which has no number for what is not finite: that is null."""
    try:
        return json.dumps(row, allow_nan=False)
    except ValueError:
        return json.dumps(as_json_value(row))


class ParquetWriter:
    """A Parquet file, a row group for each piece."""

    def __init__(self, folder: Path, info: DataInfo, class_names: tuple[str, ...]) -> None:
        """Opens the file; raises UsageError where pyarrow is not installed."""
        try:
            import pyarrow.parquet
        except ImportError as error:
            hint = 'Run pip install "jaxtrain[parquet]", or write a .csv'
            raise UsageError("--output", Words("Parquet without pyarrow"), "the package pyarrow", hint) from error
        self._arrow = pyarrow
        self._path = folder / "table.parquet"
        self._layout = Layout(info, class_names, nested=False)
        self._file: Any = None

    def write(self, ids: np.ndarray, outputs: Outputs, prompts: np.ndarray | None = None) -> None:
        """Writes rows."""
        table = self._arrow.table(self._layout.columns(ids, outputs, prompts))
        with guarded(self._path, "written"):
            if self._file is None:
                self._file = self._arrow.parquet.ParquetWriter(self._path, table.schema)
            self._file.write_table(table)

    def finish(self) -> Path:
        """Writes the footer."""
        self.close()
        sync(self._path)
        return self._path

    def close(self) -> None:
        """Closes the file."""
        with guarded(self._path, "written"):
            if self._file is not None:
                self._file.close()


class ArrayWriter:
    """An .npz file of all outputs, with `id` and `class_names`."""

    def __init__(self, folder: Path, info: DataInfo, class_names: tuple[str, ...]) -> None:
        """Takes the folder for the arrays, which grow there before they are joined."""
        self._folder = folder
        self._arrays: dict[str, GrowingArray] = {}
        self._texts: dict[str, list[Any]] = {"id": []}
        self._class_names = class_names

    def write(self, ids: np.ndarray, outputs: Outputs, prompts: np.ndarray | None = None) -> None:
        """Writes rows."""
        self._texts["id"] += ids.tolist()
        for name, values in outputs.items():
            if values.dtype.kind == "O":
                self._texts.setdefault(name, []).extend(values.tolist())
                continue
            if name not in self._arrays:
                self._arrays[name] = GrowingArray(self._folder / f"{name}.npy", values.shape[1:], values.dtype)
            self._arrays[name].append(values)

    def finish(self) -> Path:
        """Joins the arrays to one file, uncompressed."""
        for array in self._arrays.values():
            array.complete()
        texts = self._texts | ({"class_names": list(self._class_names)} if self._class_names else {})
        for name, values in texts.items():
            write_field(self._folder / f"{name}.npy", np.array(values))
        path = self._folder / "joined.npz"
        with guarded(path, "written"), zipfile.ZipFile(path, "w") as archive:
            for name in [*texts, *self._arrays]:
                archive.write(self._folder / f"{name}.npy", f"{name}.npy")
        sync(path)
        return path

    def close(self) -> None:
        """Closes the arrays."""
        for array in self._arrays.values():
            array.close()


PALETTE = (
    *((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167), (255, 255, 255)),
)
"""The colours of classes in a mask: those of Okabe and Ito, which colour-blind people tell apart, again and again."""


class MaskWriter:
    """A folder of PNG files with the ids of the pictures, whose values are labels; a palette gives them colours.

    Each mask has the size of its picture in the file.
    """

    def __init__(self, folder: Path, info: DataInfo, class_names: tuple[str, ...]) -> None:
        """Makes the folder; raises UsageError for a model that makes no masks of at most 256 labels."""
        if not info.has_maps or (info.classes or 2) > 256:
            got = Words("a folder, for a model that makes no masks of labels")
            raise UsageError("--output", got, _NAMED)
        self._folder = folder / "masks"
        make_directory(self._folder)
        colours = [PALETTE[i % len(PALETTE)] if i < len(PALETTE) else PALETTE[1 + i % 7] for i in range(256)]
        self._palette = bytes(value for colour in colours for value in colour)

    def write(self, ids: np.ndarray, outputs: Outputs, prompts: np.ndarray | None = None) -> None:
        """Writes the mask of each picture; raises DataError for two of one name."""
        masks = outputs["mask"].astype(np.uint8)
        sizes = outputs.get("size", np.tile(masks.shape[1:], (len(masks), 1)))
        for name, mask, size in zip(ids.tolist(), masks, sizes.tolist(), strict=True):
            path = self._folder / _below(str(name))
            if exists(path):
                got = Words(f"a second picture whose mask is {path.relative_to(self._folder)}")
                raise DataError(str(name), got, "pictures with names of their own", "Predict their folders apart")
            make_directory(path.parent)
            with open_file(path, "wb", buffering=0) as file, guarded(path, "written"):
                write_all(file, self._encode(resize(mask, size, "nearest")))

    def finish(self) -> Path:
        """Returns the folder."""
        return self._folder

    def close(self) -> None:
        """Has no open file."""

    def _encode(self, mask: np.ndarray) -> bytes:
        from PIL import Image

        image = Image.fromarray(mask, "L")
        image.putpalette(self._palette)
        content = io.BytesIO()
        image.save(content, "PNG")
        return content.getvalue()


def _below(name: str) -> PurePath:
    """Returns the path of a mask in its folder: that of the picture, without steps that lead out, as .png."""
    path = PurePath(name)
    parts = [part for part in path.parts if part not in (path.anchor, "..", ".")]
    return PurePath(*parts).with_suffix(".png")


def sync(path: Path) -> None:
    """Waits until a file is on the disk."""
    with guarded(path, "written"), open_file(path, "rb+") as file:
        os.fsync(file.fileno())


WRITERS: dict[str, Callable[[Path, DataInfo, tuple[str, ...]], Writer]] = {
    ".csv": CsvWriter,
    ".jsonl": JsonlWriter,
    ".parquet": ParquetWriter,
    ".npz": ArrayWriter,
}
"""Ending of an output -> its writer; without an ending it is a folder of masks."""


_NAMED = f"a file whose name ends in {one_of([*WRITERS])}"


def writer_of(output: Path) -> Callable[[Path, DataInfo, tuple[str, ...]], Writer]:
    """Returns what makes the writer of an output; raises UsageError for another ending."""
    ending = output.suffix.lower()
    if not ending:
        return MaskWriter
    if ending not in WRITERS:
        raise UsageError("--output", str(output), f"{_NAMED}, or a folder for masks")
    return WRITERS[ending]
