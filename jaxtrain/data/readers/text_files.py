"""A source of text files, whose examples are windows of tokens."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxtrain.config.schema import Count, Name
from jaxtrain.data.encoded import warn_of_unknown
from jaxtrain.data.host_memory import total_memory
from jaxtrain.data.info import DataInfo
from jaxtrain.data.readers.sizes import check_memory
from jaxtrain.data.readers.text_lines import GZIP, open_lines
from jaxtrain.data.source import Source, Split, missing
from jaxtrain.data.texts import MOST_PAIRS, Text, check_length, windows
from jaxtrain.data.vocabulary import Content, Pairs, Tokens
from jaxtrain.errors import DataError, Words
from jaxtrain.files import exists, file_size, guarded, is_directory, list_data, open_file, read_bytes

MAPPED_BYTES = 2**26
"""Size of a file from which on its bytes are memory-mapped."""

Files = Name | tuple[str, ...]


def text(
    path: Path,
    file: Files,
    tokens: Tokens = "bytes",
    context: Count = 128,
    stride: Count | None = None,
    vocabulary: Pairs = MOST_PAIRS,
    validation_file: Files | None = None,
    test_file: Files | None = None,
    encoding: Name = "utf-8",
) -> Source:
    """A text, to predict the next token: one file, several in a row, or a folder of .txt files in the order of names.

    Inputs and targets are windows of `context` tokens, the targets one token later: "bytes", "characters" (those that
    the training part lacks are one token, unknown), or "byte_pairs", at most `vocabulary` of them, learned from the
    training part. Without files of their own, the test part is the end of the text (`data.test_fraction`), and the
    validation part lies before it. An epoch takes windows that do not overlap, in random order; with a `stride` below
    `context` those of training start `stride` tokens apart. A file of bytes beyond 64 MiB is memory-mapped. Files of
    `encoding` are plain or .gz. Raises DataError naming file and line, and for a text shorter than a window.
    """
    files = {"train": file, "validation": validation_file, "test": test_file}
    splits = {}
    for split, own in files.items():
        if own is not None:
            places = _places(path, own)
            content = read_content(places, tokens, encoding)
            splits[split] = Split(Text(content, context, tokens, stride, vocabulary), None, _title(places))
    return Source(splits)


def read_windows(files: Sequence[str | Path], info: DataInfo, encoding: str = "utf-8") -> np.ndarray:
    """Reads new files, in a row, as the windows (n, context) of a run that was trained on a text.

    Raises DataError as `text`; characters that training lacked become unknown, with a warning.
    """
    assert info.vocabulary is not None
    places = [Path(file) for file in files]
    tokens = info.vocabulary.encode(read_content(places, info.vocabulary.kind, encoding))
    check_length(tokens, info.vocabulary, info.input_shape[0], "new", _title(places))
    warn_of_unknown(tokens, info.vocabulary, _title(places))
    return windows(tokens, info.input_shape[0], info.input_shape[0])[0]


def read_content(places: Sequence[Path], tokens: Tokens, encoding: str) -> Content:
    """Reads files as one text, or as bytes if those are the tokens; raises DataError for one that is no such text."""
    size = sum(file_size(str(place)) for place in places)
    if tokens != "bytes":
        check_memory(_title(places), size, (size,))
        return "".join(map(lambda place: _read_text(place, encoding), places))
    if len(places) == 1 and size > MAPPED_BYTES:
        with open_file(places[0]) as stream, guarded(places[0], "read"):
            return np.memmap(stream, np.uint8, "r")
    check_memory(_title(places), size, (size,))
    return np.concatenate([np.frombuffer(_read_plain(place), np.uint8) for place in places])


def _places(path: Path, files: str | tuple[str, ...]) -> list[Path]:
    """Returns the paths of files in the data folder, and of the .txt files of a folder there."""
    found: list[Path] = []
    for name in (files,) if isinstance(files, str) else files:
        place = path / name
        if not exists(place):
            raise missing("text", f"file or folder {name}", path)
        listed = [place / own for own in list_data(place) if own.endswith(".txt")] if is_directory(place) else [place]
        if not listed:
            raise DataError(str(place), Words("a folder without .txt files"), "at least one")
        found += listed
    if not found:
        raise DataError("data.file", files, "a file, several, or a folder of .txt files")
    return found


def _title(places: Sequence[Path]) -> str:
    return str(places[0]) if len(places) == 1 else f"{places[0]} and {len(places) - 1} more"


def _read_text(place: Path, encoding: str) -> str:
    with open_lines(place, encoding, total_memory() // 2) as lines:
        return "".join(lines)


def _read_plain(place: Path) -> bytes:
    content = read_bytes(place)
    if content.startswith(GZIP):
        hint = "Unpack it, or set data.tokens to characters or byte_pairs, which do"
        raise DataError(str(place), Words("a compressed file"), "plain bytes", hint)
    return content
