"""Files of NumPy arrays (.npy) that are written piece by piece, also where the number of rows is not known before."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxtrain.data.fields import Field
from jaxtrain.data.held import read_into
from jaxtrain.errors import StorageError, Words
from jaxtrain.files import free_space, guarded, open_file, write_all


def demand_space(key: str, folder: Path, needed: int) -> None:
    """Raises StorageError, on `key`, where the disk of a folder that exists has not `needed` bytes free."""
    free = free_space(folder)
    if needed > free:
        got = Words(f"{folder} with {free / 2**30:,.1f} GiB free")
        raise StorageError(key, got, f"{needed / 2**30:,.1f} GiB for the decoded examples", "Free some")


def write_field(file: Path, field: np.ndarray | Field, advance: Callable[[int], None] | None = None) -> None:
    """Writes a whole field as an array; `advance` is told the number of rows of each piece."""
    with guarded(file, "written"):
        whole = np.lib.format.open_memmap(file, "w+", field.dtype, field.shape)
        read_into(whole, field, advance)
        whole.flush()


class GrowingArray:
    """An array in a file to which rows are appended. Its header, which holds their number, is written at the end."""

    def __init__(self, file: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Takes shape and dtype of a row."""
        self._path = file
        self._shape = shape
        self._dtype = dtype
        self._rows = 0
        self._file = open_file(file, "wb", buffering=0)
        self._write_header()

    def append(self, rows: np.ndarray) -> None:
        """Appends rows (n, *shape)."""
        with guarded(self._path, "written"):
            write_all(self._file, np.ascontiguousarray(rows, self._dtype).tobytes())
        self._rows += len(rows)

    def complete(self) -> None:
        """Writes the number of rows, and closes the file."""
        with guarded(self._path, "written"), self._file:
            self._file.seek(0)
            self._write_header()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file, complete or not."""
        with guarded(self._path, "written"):
            self._file.close()

    def _write_header(self) -> None:
        # NumPy leaves room in a header for the digits of a first axis that grows, so the rows stay where they are.
        shape = (self._rows, *self._shape)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        with guarded(self._path, "written"):
            np.lib.format.write_array_header_1_0(self._file, header)
