"""Reads the lines of a text file, plain or gzip, whose encoding is checked line by line."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

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


@contextmanager
def open_lines(file: Path, encoding: str = "utf-8") -> Iterator[Iterator[str]]:
    """Opens a text file for a block, as its lines with their ends.

    A byte order mark is removed, and UTF-16 recognised by its own. The lines raise DataError for bytes that are no such
    text, naming the line. Raises ConfigError for an unknown encoding.
    """
    try:
        codec = codecs.lookup(encoding).name
    except LookupError as error:
        raise ConfigError(
            "data.encoding", encoding, "an encoding of Python, such as utf-8, cp1252 or utf-16"
        ) from error
    with open_file(file) as stored:
        yield _lines(stored, codec, file)


def _lines(stored: BinaryIO, codec: str, file: Path) -> Iterator[str]:
    lines = 0
    with guarded(file, "read"):
        try:
            for text in _blocks(stored, codec, file):
                if "\0" in text:
                    line = lines + text[: text.index("\0")].count("\n") + 1
                    hint = "Save it as text in UTF-8, or set data.encoding=utf-16-le if it is such a text"
                    raise DataError(f"{file}, line {line}", Words("a null byte"), "text", hint)
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


def _blocks(stored: BinaryIO, codec: str, file: Path) -> Iterator[str]:
    """Yields the text in blocks that end with a line."""
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
        yield stream.read().decode(codec)
        return
    while block := stream.read(BLOCK):
        yield (block + stream.readline()).decode(codec)
