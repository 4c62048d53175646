"""Sources in IDX, the file format of MNIST and its successors."""

import io
import math
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jaxtrain.data.readers.sizes import check_memory
from jaxtrain.data.source import Source, Split, missing
from jaxtrain.errors import DataError, Words
from jaxtrain.files import exists, guarded, open_file, read_bytes

GZIP_BITS = 31  # zlib's window bits for a gzip header and checksum
GZIP = b"\x1f\x8b"  # the first bytes of a gzip stream
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


FASHION = (
    *("T-shirt or top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
"""The names of Fashion-MNIST's classes, in the order of its labels."""


def idx(path: Path, folder: str) -> Source:
    """Images and labels in IDX files with the names of MNIST, each plain or .gz; t10k-* may be absent.

    Names with a dot before "idx", which some unpackers give, are taken, too.

    Inputs (n, height, width, 1) uint8, targets (n,) int32. Raises DataError naming a missing or damaged file.
    """
    names = ["train"] + ["test"] * any(_find(path / folder, name) for name in FILES["test"])
    return Source(_read_splits("idx", path / folder, names))


def fashion_mnist(path: Path) -> Source:
    """Fashion-MNIST: 60,000 and 10,000 grey images of 28x28 pixels, 10 classes; IDX files in fashion_mnist/.

    Inputs (n, 28, 28, 1) uint8, targets (n,) int32. Raises DataError naming a missing or damaged file.
    """
    published = "https://github.com/zalandoresearch/fashion-mnist"
    splits = _read_splits("fashion_mnist", path / "fashion_mnist", list(FILES), published)
    return Source(splits, classes=len(FASHION), class_names=FASHION)


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
    """Returns the first file there is: plain or .gz, and with the dot that some unpackers put before "idx"."""
    names = (name, name.replace("-idx", ".idx"))
    return next((file for n in names for file in (folder / n, folder / f"{n}.gz") if exists(file)), None)


def read_idx(file: Path, rank: int) -> np.ndarray:
    """Returns the unsigned bytes of an IDX file, plain or .gz, as a read-only uint8 array of `rank` axes.

    Raises DataError for a wrong magic number, a wrong size, a damaged compressed stream, or more than memory holds.
    """
    try:
        return _parse(file, _read_packed(file) if file.suffix == ".gz" else _read_plain(file), rank)
    except (EOFError, zlib.error, MemoryError) as error:
        got = Words(f"a file that cannot be read ({error})")
        raise DataError(str(file), got, "a whole IDX file", "Fetch it again") from error


def _parse(file: Path, read: Callable[[int], bytes], rank: int) -> np.ndarray:
    """Parses a file; `read` returns its first bytes, at most as many as it is asked for."""
    length = 4 + 4 * rank
    header = read(length)
    if len(header) < length:
        raise DataError(str(file), Words(f"{len(header)} bytes"), f"a header of {length} bytes", "Fetch it again")
    magic, *shape = struct.unpack(f">{1 + rank}I", header)
    if magic != 0x800 + rank:
        expected = f"{0x800 + rank:#010x}, that of bytes with {rank} axes"
        hint = "Unpack it once" if header.startswith(GZIP) else ""
        raise DataError(str(file), Words(f"the magic number {magic:#010x}"), expected, hint)
    size = length + math.prod(shape)
    check_memory(str(file), size, shape)
    content = read(size + 1)
    if len(content) != size:
        got = Words(f"{'more than ' if len(content) > size else ''}{min(len(content), size)} bytes")
        expected = f"{size}, for the shape {tuple(shape)} of its header"
        raise DataError(str(file), got, expected, "Fetch it again")
    return np.frombuffer(content, np.uint8, offset=length).reshape(shape)


def _read_plain(file: Path) -> Callable[[int], bytes]:
    def read(most: int) -> bytes:
        with guarded(file, "read"), open_file(file) as stream:
            size = stream.seek(0, io.SEEK_END)
            stream.seek(0)
            return stream.read(min(most, size))  # Python allocates what it is asked for

    return read


def _read_packed(file: Path) -> Callable[[int], bytes]:
    stored = read_bytes(file)
    return lambda most: _decompress(stored, most)


def _decompress(stored: bytes, most: int) -> bytes:
    """Decompresses concatenated gzip streams, up to `most` bytes; raises zlib.error for other bytes beside them."""
    pieces: list[bytes] = []
    while stored and most > 0:
        stream = zlib.decompressobj(GZIP_BITS)
        pieces.append(stream.decompress(stored, most))
        most -= len(pieces[-1])
        if most > 0 and not stream.eof:
            raise EOFError("the compressed stream is cut off")
        stored = stream.unused_data.lstrip(b"\0")  # the format allows padding with zeros
    return b"".join(pieces)
