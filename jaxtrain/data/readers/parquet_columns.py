"""Columns of Parquet files: values as arrays, and compressed images as bytes by row."""

import hashlib
import io
import threading
import warnings
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtrain.data.checksums import Checksums
from jaxtrain.data.host_memory import free_memory
from jaxtrain.data.readers.number_lists import as_sequence
from jaxtrain.data.tables import DATES, TEXT
from jaxtrain.errors import DataError, JaxtrainError, JaxtrainWarning, Words
from jaxtrain.files import file_time, full_path, guarded, open_file

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

FOOTER_END = 8
"""Bytes after the footer: its length, and the mark of the format."""

SHARE = 0.25
"""The share of the free memory that row groups may take while they are kept."""


@contextmanager
def opened(file: Path) -> "Iterator[ParquetFile]":
    """Opens a file for a block; raises DataError if it cannot be read, or pyarrow is not installed."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        got = Words("no installed pyarrow")
        hint = 'Run pip install "jaxtrain[parquet]"'
        raise DataError(str(file), got, "the package that reads Parquet", hint) from error
    with guarded(file, "read"), open_file(file) as stream:
        try:
            with ParquetFile(stream) as parquet:
                yield parquet
        except JaxtrainError:
            raise
        except Exception as error:  # damage can raise anything
            hint = f"Write it again: {str(error).strip()[:200] or type(error).__name__}"
            raise DataError(str(file), Words("a file that cannot be read"), "a whole Parquet file", hint) from error


def is_image(kind: Any) -> bool:
    """Tells whether a type is that of images: bytes, or a structure that has a field `bytes` of them."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and is_image(kind.field(index).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def is_plain(kind: Any) -> bool:
    """Tells whether values of a type are numbers, texts, truth values or times."""
    import pyarrow as pa

    kinds = pa.types
    if kinds.is_dictionary(kind):
        return is_plain(kind.value_type)
    return _is_number(kind) or _is_text(kind) or kinds.is_temporal(kind)


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    return any(test(kind) for test in tests)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_boolean)
    return any(test(kind) for test in tests)


def as_array(name: str, column: Any, file: str, *, texts: bool) -> np.ndarray:
    """Returns a column of Arrow as int64, as float64 with nan where null, or as texts with "" where null.

    Truth values are the texts "true" and "false", as in CSV and JSON; with `texts`, times are texts, too. Raises
    DataError for times, lists, bytes.
    """
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        return as_array(name, column.cast(kind.value_type), file, texts=texts)
    if pa.types.is_integer(kind) and not column.null_count and kind != pa.uint64():
        return column.to_numpy().astype(np.int64)
    if _is_number(kind):
        return column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
    if _is_text(kind) or (texts and pa.types.is_temporal(kind)):
        return np.array(column.cast(pa.large_string()).fill_null("").to_pylist(), TEXT)
    hint = f"Leave it out, by data.drop=({name!r},)"
    if pa.types.is_temporal(kind):
        hint = f"{DATES}, leave the column out (data.drop), or name it in data.categories"
    got = Words(f"the type {kind} of the column {name!r}")
    raise DataError(file, got, "numbers, texts or truth values", hint)


def as_lists(name: str, column: Any, file: str, begin: int = 0) -> np.ndarray:
    """Returns a column of lists of numbers, or of rows of them, as objects (n,), an array each, or None where null.

    Errors number rows from `begin`. Raises DataError for another type, and as `as_sequence`.
    """
    import pyarrow as pa

    inner = column.type
    for _ in range(2):
        if any(test(inner) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
            inner = inner.value_type
    if inner == column.type or not _is_number(inner):
        got = Words(f"the type {column.type} of the column {name!r}")
        raise DataError(file, got, "lists of numbers, or of rows of numbers, for data.sequence")
    lists = np.empty(len(column), object)
    for row, values in enumerate(column.to_pylist()):
        lists[row] = as_sequence(values, name, f"{file}, row {begin + row}")
    return lists


class RowGroups:
    """The bytes of one column of files, such as compressed images, by row; several threads may read at once.

    A row group is read when a row of it is first needed, and kept while all take at most a quarter of the memory that
    was free.
    """

    def __init__(self, files: Sequence[Path], column: str) -> None:
        """Reads the sizes of the row groups of the files."""
        self.column = column
        self.files = list(files)
        self._file_starts: list[int] = []
        self._groups: list[tuple[Path, int]] = []
        self._starts = [0]
        digest = hashlib.sha256(column.encode())
        size = 0
        for file in files:
            self._file_starts.append(len(self))
            with opened(file) as parquet:
                metadata = parquet.metadata
                for group in range(metadata.num_row_groups):
                    self._groups.append((file, group))
                    self._starts.append(len(self) + metadata.row_group(group).num_rows)
                size += sum(_sizes(metadata, column))
            digest.update(b"%s\0%s" % (file.name.encode(), _footer(file, metadata.serialized_size)))
        self.fingerprint = digest.digest()
        self.checksums = Checksums(len(self._groups), lambda group: str(self._groups[group][0]))
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._room = int(SHARE * free_memory())
        if size > self._room:
            self._warn(size)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self._starts[-1]

    def where(self, row: int) -> str:
        """Returns file and row."""
        number = bisect_right(self._file_starts, row) - 1
        return f"{self.files[number]}, row {row - self._file_starts[number]}"

    def read(self, row: int) -> bytes | None:
        """Returns the bytes of a row, None if they are missing; raises DataError for a file that has changed."""
        group = bisect_right(self._starts, row) - 1
        return self._group(group)[row - self._starts[group]].as_py()

    def _warn(self, size: int) -> None:
        rows = len(self) // len(self._groups)
        got = Words(f"{size:,} bytes in the column {self.column!r}, in row groups of {rows:,} rows")
        hint = (
            "They are read again and again: write smaller row groups, or the images as files for data.name=image_folder"
        )
        warning = JaxtrainWarning(str(self.files[0]), got, f"at most {self._room:,}, which memory holds", hint)
        warnings.warn(warning, stacklevel=3)

    def _group(self, group: int) -> Any:
        with self._lock:
            if group not in self._kept:
                self._kept[group] = self._read_group(group)
                while len(self._kept) > 1 and sum(array.nbytes for array in self._kept.values()) > self._room:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            return self._kept[group]

    def _read_group(self, group: int) -> Any:
        """Returns the bytes of a row group by row; raises DataError if they were others before."""
        file, index = self._groups[group]
        with opened(file) as parquet:
            column = parquet.read_row_group(index, [self.column]).column(0)
        if column.type.num_fields:
            column = column.flatten()[column.type.get_field_index("bytes")]
        rows = self._starts[group + 1] - self._starts[group]
        if len(column) != rows:
            raise self.checksums.changed(group)
        self.checksums.check(group, [chunk.buffers()[-1] or b"" for chunk in column.chunks])
        return column


class ByteColumn:
    """Rows of a column of compressed images; read as `file_list.FileList` reads files."""

    def __init__(self, groups: RowGroups, rows: np.ndarray | None = None) -> None:
        """Takes the rows (None: all) of a column."""
        self._groups = groups
        self._rows = np.arange(len(groups)) if rows is None else rows

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self._rows)

    @property
    def checksums(self) -> Checksums:
        """The checksums of the row groups."""
        return self._groups.checksums

    def take(self, rows: np.ndarray) -> "ByteColumn":
        """Returns these rows."""
        return ByteColumn(self._groups, self._rows[rows])

    def path(self, row: int) -> str:
        """Returns file and row."""
        return self._groups.where(int(self._rows[row]))

    def where(self, row: int) -> str:
        """Returns file and row for an error."""
        return self.path(row)

    def read(self, row: int) -> bytes:
        """Returns the bytes of a row; raises DataError for a missing image, and for a file that has changed."""
        content = self._groups.read(int(self._rows[row]))
        if content is None:
            got = Words(f"no bytes in the column {self._groups.column!r}")
            raise DataError(self.path(row), got, "an image in each row", "Leave the row out")
        return content

    def start(self, row: int, most: int) -> bytes:
        """Returns the first bytes of a row, all if `most` is -1."""
        content = self.read(row)
        return content if most < 0 else content[:most]

    def fingerprint(self) -> bytes:
        """Returns a hash over the names of the files, their footers, which list sizes and statistics, and the rows."""
        return hashlib.sha256(self._groups.fingerprint + self._rows.tobytes()).digest()

    def version(self) -> bytes:
        """Returns a hash that also covers the folder and the times of the files."""
        files = self._groups.files
        written = "".join(f"{full_path(str(file))}\0{file_time(str(file))}\0" for file in files)
        return self.fingerprint() + written.encode(errors="surrogateescape")


def _sizes(metadata: Any, column: str) -> Iterator[int]:
    """Yields the bytes of a column in each row group, before compression."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for part in map(group.column, range(group.num_columns)):
            if part.path_in_schema.split(".")[0] == column:
                yield part.total_uncompressed_size


def _footer(file: Path, size: int) -> bytes:
    """Returns the end of a file, where the sizes and the statistics of its columns stand."""
    with guarded(file, "read"), open_file(file) as stream:
        stream.seek(-size - FOOTER_END, io.SEEK_END)
        return stream.read()
