"""Reads the lines of a text file, plain or gzip, whose encoding is checked line by line."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jaxtrain.errors import ConfigError, DataError, Words
from jaxtrain.files import guarded, open_file

GZIP = b"\x1f\x8b"
WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""Byte order marks of UTF-16, whose line ends are no single bytes."""

OTHERS = {
    b"PK\3\4": ("a zip file, such as those of Excel", "Save the sheet as CSV in UTF-8, or unpack the file"),
    b"PAR1": ("a Parquet file", "Set data.name=parquet"),
    b"\x89PNG": ("an image", ""),
    b"%PDF": ("a PDF file", ""),
}
"""First bytes of files that are no text: what they are, and what to do."""


def read_lines(file: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Yields the lines of a text file with their ends; a byte order mark is removed, and UTF-16 recognised by its own.

    Raises DataError for bytes that are no such text, naming the line, and ConfigError for an unknown encoding.
    """
    try:
        codec = codecs.lookup(encoding).name
    except LookupError as error:
        raise ConfigError(
            "data.encoding", encoding, "an encoding of Python, such as utf-8, cp1252 or utf-16"
        ) from error
    line = 0
    with guarded(file, "read"), open_file(file) as stored:
        try:
            for line, text in enumerate(_decoded(_unpacked(stored), codec, file), 1):
                if "\0" in text:
                    hint = "Save it as text in UTF-8, or set data.encoding=utf-16-le if it is such a text"
                    raise DataError(f"{file}, line {line}", Words("a null byte"), "text", hint)
                yield text
        except UnicodeError as error:
            got = Words(f"bytes that are no {encoding}")
            hint = "Save it as UTF-8, or set data.encoding to its encoding, such as cp1252 or latin-1"
            raise DataError(f"{file}, line {line + 1}", got, f"text in {encoding}", hint) from error
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            got = Words(f"a compressed file that cannot be read ({error})")
            raise DataError(str(file), got, "a whole gzip file", "Fetch it again") from error


def _unpacked(stored: BinaryIO) -> BinaryIO:
    packed = stored.read(2) == GZIP
    stored.seek(0)
    return gzip.GzipFile(fileobj=stored) if packed else stored  # pyright: ignore[reportReturnType] (it is one)


def _decoded(stream: BinaryIO, codec: str, file: Path) -> Iterator[str]:
    start = stream.read(4)
    stream.seek(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0)
    for signature, (kind, hint) in OTHERS.items():
        if start.startswith(signature):
            raise DataError(str(file), Words(kind), "a text file", hint)
    if start.startswith(WIDE) and not codec.startswith("utf-32"):
        codec = "utf-16"
    if codec.startswith(("utf-16", "utf-32")):
        yield from io.TextIOWrapper(stream, codec, newline="")
    else:
        for raw in stream:
            yield raw.decode(codec)
