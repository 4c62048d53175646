"""Reads the lines of a text file, plain or gzip, whose encoding is checked line by line."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from jaxtrain.data.host_memory import total_memory
from jaxtrain.errors import ConfigError, DataError, Words
from jaxtrain.files import guarded, open_file

GZIP = b"\x1f\x8b"
WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""Byte order marks of UTF-16, whose line ends are no single bytes."""

BLOCK = 2**20
"""Bytes that are decoded at a time, up to the end of their last line."""

OTHERS = {
    b"PK\3\4": ("a zip file, such as those of Excel", "Save the sheet as CSV in UTF-8, or unpack the file"),
    b"PAR1": ("a Parquet file", "Set data.name=parquet"),
    b"\x89PNG": ("an image", ""),
    b"%PDF": ("a PDF file", ""),
}
"""First bytes of files that are no text: what they are, and what to do."""


SHARE = 8
"""Divides main memory: the part that a line may take, or all lines of a table that is kept."""


@contextmanager
def open_lines(file: Path, encoding: str = "utf-8", most: int | None = None) -> Iterator[Iterator[str]]:
    """Opens a text file for a block, as its lines with their ends.

    A byte order mark is removed, and UTF-16 recognised by its own. The lines raise DataError for bytes that are no such
    text, naming the line, for more than `most` bytes, which the caller keeps, and for a line that is too long for the
    memory: a compressed file may hold a thousand times its size. Raises ConfigError for an unknown encoding.
    """
    try:
        codec = codecs.lookup(encoding).name
    except LookupError as error:
        raise ConfigError(
            "data.encoding", encoding, "an encoding of Python, such as utf-8, cp1252 or utf-16"
        ) from error
    with open_file(file) as stored:
        yield _lines(stored, codec, file, most)


def _lines(stored: BinaryIO, codec: str, file: Path, most: int | None) -> Iterator[str]:
    lines = 0
    with guarded(file, "read"):
        try:
            for text in _blocks(stored, codec, file, most):
                _demand_no_null(text, lines, file)
                yield from io.StringIO(text, "\n")
                lines += text.count("\n")
        except UnicodeDecodeError as error:
            line = lines + error.object[: error.start].decode(codec, "ignore").count("\n") + 1
            got = Words(f"bytes that are no {codec}")
            hint = "Save it as UTF-8, or set data.encoding to its encoding, such as cp1252 or latin-1"
            raise DataError(f"{file}, line {line}", got, f"text in {codec}", hint) from error
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            got = Words(f"a compressed file that cannot be read ({error})")
            raise DataError(str(file), got, "a whole gzip file", "Fetch it again") from error


def _demand_no_null(text: str, lines: int, file: Path) -> None:
    """Raises DataError for a null byte in a text that follows this many lines of its file."""
    if "\0" in text:
        line = lines + text[: text.index("\0")].count("\n") + 1
        hint = "Save it as text in UTF-8, or set data.encoding=utf-16-le if it is such a text"
        raise DataError(f"{file}, line {line}", Words("a null byte"), "text", hint)


def _blocks(stored: BinaryIO, codec: str, file: Path, most: int | None) -> Iterator[str]:
    """Yields the text in blocks that end with a line."""
    longest = most or total_memory() // SHARE
    stream: Any = gzip.GzipFile(fileobj=stored) if stored.read(len(GZIP)) == GZIP else stored
    stored.seek(0)
    start = stream.read(4)
    stream.seek(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0)
    for signature, (kind, hint) in OTHERS.items():
        if start.startswith(signature):
            raise DataError(str(file), Words(kind), "a text file", hint)
    if start.startswith(WIDE) and not codec.startswith("utf-32"):
        codec = "utf-16"
    if codec.startswith(("utf-16", "utf-32")):  # a line feed is no single byte
        yield _demand_size(stream.read(longest + 1), 0, longest, file).decode(codec)
        return
    size = 0
    while block := stream.read(BLOCK):
        block = _demand_size(block + stream.readline(longest), size, longest, file)
        size += len(block) if most else 0
        yield block.decode(codec)


def _demand_size(block: bytes, before: int, most: int, file: Path) -> bytes:
    """Returns a block; raises DataError if it makes the text, or its line, longer than memory holds."""
    if before + len(block) > most:
        got = Words(f"more than {most:,} bytes of text to hold at once")
        expected = "what fits into the memory of this machine"
        raise DataError(str(file), got, expected, "Cut it, or write it as Parquet or as NumPy arrays")
    return block
