"""Sources in IDX, the file format of MNIST and its successors."""

import gzip
import math
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jaxtrain.data.source import Source, Split, missing
from jaxtrain.errors import DataError, Words
from jaxtrain.files import exists, read_bytes

GZIP_BITS = 31  # zlib's window bits for a gzip header and checksum
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def idx(path: Path, folder: str) -> Source:
    """Images and labels in IDX files with the names of MNIST, each plain or .gz; t10k-* may be absent.

    Inputs (n, height, width, 1) uint8, targets (n,) int32. Raises DataError naming a missing or damaged file.
    """
    names = ["train"] + ["test"] * any(_find(path / folder, name) for name in FILES["test"])
    return Source(_read_splits("idx", path / folder, names))


def fashion_mnist(path: Path) -> Source:
    """Fashion-MNIST: 60,000 and 10,000 grey images of 28x28 pixels, 10 classes; IDX files in fashion_mnist/.

    Inputs (n, 28, 28, 1) uint8, targets (n,) int32. Raises DataError naming a missing or damaged file.
    """
    published = "https://github.com/zalandoresearch/fashion-mnist"
    return Source(_read_splits("fashion_mnist", path / "fashion_mnist", list(FILES), published), classes=10)


def _read_splits(source: str, folder: Path, names: list[str], published: str = "") -> dict[str, Split]:
    expected = [file for name in names for file in FILES[name]]
    paths = [_find(folder, file) for file in expected]
    files = [path for path in paths if path is not None]
    if len(files) < len(expected):
        absent = [name for name, path in zip(expected, paths, strict=True) if path is None]
        raise missing(source, f"{', '.join(absent)} (each plain or .gz)", folder, published)
    with ThreadPoolExecutor(len(files)) as pool:  # zlib releases the interpreter's lock
        arrays = list(pool.map(read_idx, files, [3, 1] * len(names)))
    splits = zip(names, files[::2], files[1::2], arrays[::2], arrays[1::2], strict=True)
    return {
        name: Split(images[..., None], labels.astype(np.int32), str(file), str(labels_file))
        for name, file, labels_file, images, labels in splits
    }


def _find(folder: Path, name: str) -> Path | None:
    return next((file for file in (folder / name, folder / f"{name}.gz") if exists(file)), None)


def read_idx(file: Path, rank: int) -> np.ndarray:
    """Returns the unsigned bytes of an IDX file, plain or .gz, as a read-only uint8 array of `rank` axes.

    Raises DataError for a wrong magic number, a wrong size or a damaged compressed stream.
    """
    try:
        return _parse(file, read_bytes(file), rank)
    except (OSError, EOFError, zlib.error) as error:  # the errors of gzip are OSErrors
        got = Words(f"a file that cannot be read ({error})")
        raise DataError(str(file), got, "a whole IDX file", "Fetch it again") from error


def _parse(file: Path, stored: bytes, rank: int) -> np.ndarray:
    packed = file.suffix == ".gz"
    length = 4 + 4 * rank
    header = zlib.decompressobj(GZIP_BITS).decompress(stored, length) if packed else stored[:length]
    if len(header) < length:
        raise DataError(str(file), Words(f"{len(header)} bytes"), f"a header of {length} bytes", "Fetch it again")
    magic, *shape = struct.unpack(f">{1 + rank}I", header)
    if magic != 0x800 + rank:
        expected = f"{0x800 + rank:#010x}, that of bytes with {rank} axes"
        raise DataError(str(file), Words(f"the magic number {magic:#010x}"), expected)
    size = length + math.prod(shape)
    content = _decompress(stored, size) if packed else stored
    if len(content) != size:
        expected = f"{size}, for the shape {tuple(shape)} of its header"
        raise DataError(str(file), Words(f"{len(content)} bytes"), expected, "Fetch it again")
    return np.frombuffer(content, np.uint8, offset=length).reshape(shape)


def _decompress(stored: bytes, size: int) -> bytes:
    """Decompresses in one pass into a buffer of the expected size, bounded in case the header is wrong."""
    content = zlib.decompress(stored, GZIP_BITS, bufsize=min(size, 64 * len(stored)))
    return content if len(content) >= size else gzip.decompress(stored)  # several concatenated streams
