"""Fields of images: files that are decoded to one shape when their rows are read."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np

from jaxtrain.config.schema import AtMost, Bounds
from jaxtrain.data.checksums import Checksums
from jaxtrain.data.file_list import FileList
from jaxtrain.data.held import read_all
from jaxtrain.data.images import Header, Resampling, decode_image, read_header, resize
from jaxtrain.errors import ConfigError, DataError, Words

Size = Annotated[tuple[int, ...], Bounds(1), AtMost(2)]
"""(height, width) in pixels."""

MOST_HEADERS = 20_000
"""Headers that are read before a run starts: of more files, evenly spaced ones; the others when they are decoded."""

HEADER_BYTES = 2**16
"""Bytes that hold the header of almost every image, its EXIF block included."""

KEPT = 2
"""Least size of a JPEG that is decoded at a fraction of its size, in multiples of the size that it is resized to."""

THREADS = 8
PIECE = 64
"""Headers that a thread reads at a time."""


@dataclass(frozen=True)
class ImageForm:
    """The form that each image gets: `shape` (height, width, channels) and `dtype`, uint8 or uint16.

    `channels` is what `decode_image` takes: None where the images are grey, so that a coloured one is an error. Without
    `resampling`, an image of another size is an error, too.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    channels: int | None
    resampling: Resampling | None

    def decode(self, content: bytes, where: str) -> np.ndarray:
        """Decodes a file to this form; raises DataError naming it by `where`."""
        exact = self.resampling in (None, "nearest")  # the others average over more pixels than they keep
        least = (0, 0) if exact else (KEPT * self.shape[0], KEPT * self.shape[1])
        image = decode_image(content, where, self.channels, least)
        if image.dtype != self.dtype:
            raise _mixed_depths(where, image.dtype, self.dtype)
        if image.shape[2] != self.shape[2]:
            got = Words("an image in colours among grey ones")
            raise DataError(where, got, "grey", "Set data.channels to 3, or to 1 to make all of them grey")
        if self.resampling:
            return resize(image, self.shape[:2], self.resampling)
        if image.shape != self.shape:
            hint = f"Set data.size to one size for all, as to {self.shape[:2]}, to resize them"
            raise DataError(where, Words(f"the size {image.shape[:2]}"), f"{self.shape[:2]}, as of the others", hint)
        return image


class Contents(Protocol):
    """The compressed images of a field, in files or elsewhere; as `FileList`, which has the same methods."""

    def __len__(self) -> int:
        """Returns the number of images."""
        ...

    @property
    def checksums(self) -> Checksums:
        """The checksums of what was read."""
        ...

    def path(self, row: int) -> str:
        """Returns what holds an image."""
        ...

    def where(self, row: int) -> str:
        """Returns file and row for an error."""
        ...

    def read(self, row: int) -> bytes:
        """Returns the whole content of an image; raises DataError if that fails, or if it has changed."""
        ...

    def start(self, row: int, most: int) -> bytes:
        """Returns its first bytes, all if `most` is -1; raises DataError if that fails."""
        ...

    def fingerprint(self) -> bytes:
        """Returns bytes that change when the images do, without decoding them."""
        ...

    def version(self) -> bytes:
        """Returns bytes that also change when files are written again, or lie elsewhere."""
        ...


class ImageField:
    """Images as a `Field` (n, height, width, channels); several threads may read at once."""

    def __init__(self, files: Contents, form: ImageForm) -> None:
        """Takes the files, in the order of the rows, and what their images become."""
        self.files = files
        self.form = form

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole field."""
        return (len(self.files), *self.form.shape)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the pixels: uint8 or uint16."""
        return self.form.dtype

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.files)

    @property
    def checksums(self) -> Checksums:
        """The checksums of the files that were read."""
        return self.files.checksums

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Reads and decodes the images of these rows; raises DataError naming file and row."""
        images = np.empty((len(rows), *self.form.shape), self.form.dtype)
        for place, row in enumerate(rows.tolist()):
            images[place] = self.form.decode(self.files.read(row), self.files.where(row))
        return images

    def fingerprint(self) -> bytes:
        """Returns a hash over the names and sizes of the files and over their form."""
        return self.files.fingerprint() + repr(self.form).encode()

    def version(self) -> bytes:
        """Returns the fingerprint with the places and times of the files."""
        return self.files.version() + repr(self.form).encode()


def image_form(
    lists: Sequence[Contents],
    folder: Path,
    size: tuple[int, ...] | None,
    channels: int | None,
    resampling: Resampling,
) -> tuple[ImageForm, list[DataError]]:
    """Returns what all images of a data set become, by their headers and what the config sets.

    The errors are those of files whose header cannot be read, the first of which is raised if all are such files.

    Args:
        lists: the files of the splits; of more than 20,000, evenly spaced ones are read.
        folder: what errors name.
        size: (height, width) to which images are resized; None: all must have one size.
        channels: 1, 3 or 4; None: 1 if all are grey, else 3.
        resampling: how they are resized.

    Raises:
        DataError: no image that can be read, sizes that differ without `size`, 8 and 16 bits in one data set.
        ConfigError: a size that is no pair.
    """
    check_size(size)
    first: dict[Header, str] = {}  # header -> the first file that has it
    counts: Counter[tuple[int, int]] = Counter()
    damaged: list[DataError] = []
    for files in lists:
        headers, errors = read_headers(files, MOST_HEADERS // len(lists))
        damaged += errors
        for row, header in headers.items():
            first.setdefault(header, files.path(row))
            counts[header[:2]] += 1
    if not first:
        raise damaged[0]
    if size is None and len(counts) > 1:
        raise _mixed_sizes(folder, counts, {header[:2]: file for header, file in reversed(first.items())})
    dtypes = {header.dtype: file for header, file in first.items()}
    if len(dtypes) > 1:
        raise _mixed_depths(dtypes[np.dtype(np.uint16)], np.dtype(np.uint16), np.dtype(np.uint8))
    height, width = size or next(iter(counts))
    depth = channels or max(header.channels for header in first)
    taken = channels or (3 if depth == 3 else None)
    return ImageForm((height, width, depth), next(iter(dtypes)), taken, resampling if size else None), damaged


def read_images(
    files: Sequence[str | Path],
    shape: tuple[int, ...],
    dtype: np.dtype | str = "uint8",
    *,
    size: tuple[int, ...] | None = None,
    channels: int | None = None,
    resampling: Resampling = "bilinear",
) -> np.ndarray:
    """Returns images (n, *shape) of given files, made as those that a run learnt from: for prediction.

    `shape` and `dtype` are those of the run's inputs; `size`, `channels` and `resampling` the knobs of its data.
    Raises DataError naming the file and its place in the list, or for a shape that is none of images.
    """
    form = given_form(shape, dtype, size=size, channels=channels, resampling=resampling)
    return read_all(ImageField(FileList(None, [str(file) for file in files]), form))


def given_form(
    shape: tuple[int, ...],
    dtype: np.dtype | str,
    *,
    size: tuple[int, ...] | None,
    channels: int | None,
    resampling: Resampling,
) -> ImageForm:
    """Returns what images became in a run, by the shape and dtype of its inputs and the knobs of its data.

    Raises DataError for a shape that is none of images.
    """
    if len(shape) != 3:
        raise DataError("inputs", Words(f"examples of shape {shape}"), "images (height, width, channels)")
    height, width, depth = shape
    taken = channels or (3 if depth == 3 else None)
    return ImageForm((height, width, depth), np.dtype(dtype), taken, resampling if size else None)


def read_headers(files: Contents, most: int = MOST_HEADERS) -> tuple[dict[int, Header], list[DataError]]:
    """Returns {row: header} of at most `most` evenly spaced files, and the errors of those that are no images."""
    rows = np.unique(np.linspace(0, len(files) - 1, min(len(files), max(most, 1))).astype(np.int64)).tolist()
    pieces = [rows[begin : begin + PIECE] for begin in range(0, len(rows), PIECE)]
    with ThreadPoolExecutor(THREADS) as pool:
        read = pool.map(lambda piece: {row: _header_or_error(files, row) for row in piece}, pieces)
        found = {row: header for piece in read for row, header in piece.items()}
    errors = [error for error in found.values() if isinstance(error, DataError)]
    return {row: header for row, header in found.items() if isinstance(header, Header)}, errors


def _header_or_error(files: Contents, row: int) -> Header | DataError:
    try:
        return header_of(files, row)
    except DataError as error:
        return error


def header_of(files: Contents, row: int) -> Header:
    """Returns the header of one file; raises DataError naming file and row."""
    start = files.start(row, HEADER_BYTES)
    return read_header(start, lambda: files.start(row, -1), files.where(row))


def check_size(size: tuple[int, ...] | None) -> None:
    """Raises ConfigError unless a size is (height, width)."""
    if size is not None and len(size) != 2:
        raise ConfigError("data.size", size, "(height, width), or None for the size of the images")


def _mixed_sizes(folder: Path, counts: Counter[tuple[int, int]], files: dict[tuple[int, int], str]) -> DataError:
    usual = [size for size, _ in counts.most_common(2)]
    shown = " and ".join(f"{size} ({files[size]})" for size in usual)
    more = f" and {len(counts) - 2} more" if len(counts) > 2 else ""
    got = Words(f"images of the sizes {shown}{more}")
    hint = f"Set data.size to one (height, width) for all, as to {usual[0]}, to resize them"
    return DataError(str(folder), got, "images of one size", hint)


def _mixed_depths(where: str, got: np.dtype, expected: np.dtype) -> DataError:
    bits = {np.dtype(np.uint8): "8 bits", np.dtype(np.uint16): "16 bits of grey"}
    hint = "Save all images with the same number of bits"
    return DataError(where, Words(f"an image of {bits[got]}"), f"{bits[expected]}, as of the others", hint)
