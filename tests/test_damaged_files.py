"""Damaged files, and files that hold more or other than they say: the numbers that were saved, or one line."""

import gzip
import io
import random
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxtrain.data.checks import check_source
from jaxtrain.data.readers import csv_files, json_lines, sizes, text_files, text_lines
from jaxtrain.data.readers.arrays import arrays
from jaxtrain.data.readers.csv_files import csv as read_csv
from jaxtrain.data.readers.idx import idx
from jaxtrain.data.readers.json_lines import jsonl as read_jsonl
from jaxtrain.data.readers.text_files import text
from jaxtrain.errors import DataError

INPUTS = np.arange(24, dtype=np.float32).reshape(8, 3)
TARGETS = np.arange(8) % 3
IMAGES = np.arange(8 * 2 * 4, dtype=np.uint8).reshape(8, 2, 4)
LABELS = (np.arange(8) % 3).astype(np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def npy_bytes(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def npz_bytes(members: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    given = {"train_inputs.npy": npy_bytes(INPUTS), "train_targets.npy": npy_bytes(TARGETS)}
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, stored in (given | (members or {})).items():
            archive.writestr(name, stored)
    return content.getvalue()


def header(shape: Any, descr: str = "<f4") -> bytes:
    """Returns the start of a .npy file that declares a shape."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": descr, "fortran_order": False, "shape": shape})
    return content.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with a whole file of each format."""
    for name in ("npy", "plain", "packed"):
        (tmp_path / name).mkdir()
    (tmp_path / "set.npz").write_bytes(npz_bytes())
    (tmp_path / "npy" / "train_inputs.npy").write_bytes(npy_bytes(INPUTS))
    (tmp_path / "npy" / "train_targets.npy").write_bytes(npy_bytes(TARGETS))
    for folder, suffix, pack in (("plain", "", bytes), ("packed", ".gz", gzip.compress)):
        (tmp_path / folder / f"train-images-idx3-ubyte{suffix}").write_bytes(pack(idx_bytes(IMAGES)))
        (tmp_path / folder / f"train-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(LABELS)))
    return tmp_path


READERS: dict[str, tuple[str, Callable[[Path], Any], np.ndarray]] = {
    "npz": ("set.npz", lambda folder: arrays(folder, "set.npz"), INPUTS),
    "npy": ("npy/train_inputs.npy", lambda folder: arrays(folder, "npy"), INPUTS),
    "idx": ("plain/train-images-idx3-ubyte", lambda folder: idx(folder, "plain"), IMAGES[..., None]),
    "gz": ("packed/train-images-idx3-ubyte.gz", lambda folder: idx(folder, "packed"), IMAGES[..., None]),
}


def refusal_of(folder: Path, reader: str, content: bytes) -> str:
    """Writes a file and returns the line with which its reader refuses it."""
    name, read, _ = READERS[reader]
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as refusal:
        read(folder)
    line = str(refusal.value)
    assert line.startswith(str(folder / name))
    assert len(line.splitlines()) == 1
    assert len(line) < 1000
    return line


def encrypted(content: bytes) -> bytes:
    """Sets the flag of encryption in an archive of members, which Python can read and not write."""
    marked = bytearray(content)
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = marked.find(signature)
        while at >= 0:
            marked[at + offset] |= 1
            at = marked.find(signature, at + 1)
    return bytes(marked)


def twice_named() -> bytes:
    content = io.BytesIO(npz_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(content, "a") as archive:
            archive.writestr("train_inputs.npy", npy_bytes(INPUTS + 1))
    return content.getvalue()


OTHERWISE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "bytes after an archive": ("npz", lambda: npz_bytes() + b"more", "bytes after the archive"),
    "an archive after another": ("npz", lambda: npz_bytes() * 2, "bytes before the archive"),
    "a name given twice": ("npz", twice_named, "2 arrays named train_inputs"),
    "two files of one name": ("npz", lambda: npz_bytes({"train_inputs": b""}), "2 arrays named train_inputs"),
    "an encrypted archive": ("npz", lambda: encrypted(npz_bytes()), "encrypted"),
    "an archive in an archive": ("npz", lambda: npz_bytes({"train_inputs.npy": npz_bytes()}), "cannot be read"),
    "other names": ("npz", lambda: npz_bytes().replace(b"train_inputs", b"Train_Inputs"), "without train_inputs"),
    "no archive": ("npz", lambda: gzip.compress(npz_bytes()), "never loaded"),
    "a member with two arrays": (
        *("npz", lambda: npz_bytes({"train_inputs.npy": npy_bytes(INPUTS) * 2})),
        r"\[train_inputs\]: got 448 bytes; expected 224, for the shape \(8, 3\)",
    ),
    "a member that declares more": ("npz", lambda: npz_bytes({"train_inputs.npy": header((10**12, 3))}), "expected 1"),
    "two arrays": ("npy", lambda: npy_bytes(INPUTS) + npy_bytes(TARGETS), "each array in a file of its own"),
    "bytes after an array": ("npy", lambda: npy_bytes(INPUTS) + b"\n", "got 225 bytes; expected 224"),
    "a cut array": ("npy", lambda: npy_bytes(INPUTS)[:-1], "got 223 bytes; expected 224"),
    "a trillion rows": ("npy", lambda: header((10**12, 3)) + b"\0" * 40, "12,000,000,000,128, for the shape"),
    "a shape past 64 bits": ("npy", lambda: header((10**30, 0)), "cannot be read"),
    "a negative shape": ("npy", lambda: header((-1, -24)) + b"\0" * 96, "in its header"),
    "pickles": ("npy", lambda: npy_bytes(INPUTS.astype(object)), "never loaded"),
    "a pickled array": ("npy", lambda: __import__("pickle").dumps(INPUTS), "cannot be read"),
    "a header without end": ("npy", lambda: npy_bytes(INPUTS).replace(b"}", b"(", 1), "cannot be read"),
    "an empty array": ("npy", lambda: b"", "cannot be read"),
    "bytes after pixels": ("idx", lambda: idx_bytes(IMAGES) + b"\0", "more than 80 bytes; expected 80"),
    "pixels that are packed": ("idx", lambda: gzip.compress(idx_bytes(IMAGES)), "Unpack it once"),
    "pixels of floats": ("idx", lambda: b"\0\0\x0d\3" + idx_bytes(IMAGES)[4:], "magic number 0x00000d03"),
    "images past memory": ("idx", lambda: idx_bytes(IMAGES)[:4] + b"\xff" * 12, "the memory of this machine"),
    "bytes after gzip": ("gz", lambda: gzip.compress(idx_bytes(IMAGES)) + b"garbage", "cannot be read"),
    "a stream after gzip": ("gz", lambda: gzip.compress(idx_bytes(IMAGES)) * 2, "more than 80 bytes"),
    "an empty stream of much": ("gz", lambda: gzip.compress(idx_bytes(IMAGES) + bytes(10**7)), "more than 80"),
    "packed twice": ("gz", lambda: gzip.compress(gzip.compress(idx_bytes(IMAGES))), "Unpack it once"),
    "a plain file": ("gz", lambda: idx_bytes(IMAGES), "cannot be read"),
}


@pytest.mark.parametrize("kind", OTHERWISE)
def test_a_file_that_is_more_or_other_than_it_says_is_refused_by_name(folder: Path, kind: str):
    reader, content, said = OTHERWISE[kind]
    assert re.search(said, refusal_of(folder, reader, content()))


def test_gzip_may_be_padded_with_zeros(folder: Path):
    name, read, images = READERS["gz"]
    (folder / name).write_bytes(gzip.compress(idx_bytes(IMAGES)) + bytes(512))
    np.testing.assert_array_equal(read(folder).splits["train"].inputs, images)


@pytest.mark.parametrize("reader", ["npz", "npy", "idx", "gz"])
def test_an_array_that_memory_cannot_hold_is_refused_before_it_is_read(folder: Path, reader: str, monkeypatch):
    monkeypatch.setattr(sizes, "total_memory", lambda: 50)
    with pytest.raises(DataError, match=r"bytes for the shape \(8, .*at most 50, the memory of this machine"):
        READERS[reader][1](folder)


LINES = {
    "csv": (b"a,y\n" + b"1,0\n" * 2000, lambda path: read_csv(path, "set.gz", "y")),
    "one line of csv": (b"a,y\n" + b"1" * 8000, lambda path: read_csv(path, "set.gz", "y")),
    "jsonl": (b'{"a": 1, "y": 0}\n' * 500, lambda path: read_jsonl(path, "set.gz", "y")),
    "text": (b"a word\n" * 2000, lambda path: text(path, "set.gz", "characters")),
    "text of one line": (b"a word " * 2000, lambda path: text(path, "set.gz", "characters")),
    "wide text": ("a word\n".encode("utf-16") * 2000, lambda path: text(path, "set.gz", "characters")),
}


@pytest.mark.parametrize(("content", "read_lines"), LINES.values(), ids=LINES.keys())
def test_a_compressed_text_of_more_than_memory_holds_is_refused_by_its_file(
    folder: Path, content, read_lines, monkeypatch
):
    (folder / "set.gz").write_bytes(gzip.compress(content))
    for module in (text_lines, text_files, csv_files, json_lines):
        monkeypatch.setattr(module, "total_memory", lambda: 2**13)
    with pytest.raises(DataError, match=r"set\.gz: got more than [\d,]+ bytes of text to hold at once"):
        read_lines(folder)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_found_by_the_names_that_unpackers_give(folder: Path, suffix: str):
    place = folder / ("packed" if suffix else "plain")
    for file in list(place.iterdir()):
        file.rename(place / file.name.replace("-idx", ".idx"))
    split = idx(folder, place.name).splits["train"]
    np.testing.assert_array_equal(split.inputs, IMAGES[..., None])
    assert split.file == str(place / f"train-images.idx3-ubyte{suffix}")
    assert split.targets_file == str(place / f"train-labels.idx1-ubyte{suffix}")


def damage(content: bytes, chance: random.Random) -> bytes:
    """Cuts, changes, doubles or extends a file at random."""
    at, until = sorted(chance.choices(range(len(content) + 1), k=2))
    noise = chance.randbytes(chance.randrange(1, 12))
    early = chance.randrange(min(len(content), 130))
    return chance.choice(
        [
            content[:at],
            content[:at] + content[until:],
            content[:at] + noise + content[at:],
            content[:at] + noise + content[at + len(noise) :],
            content[:early] + noise[:1] + content[early + 1 :],
            content + noise,
            content * 2,
        ]
    )


def outcome(read: Callable[[], np.ndarray]) -> tuple[np.ndarray | None, str]:
    """Returns the array that was read, or the line of the refusal; any other exception fails the test."""
    try:
        return read(), ""
    except DataError as error:
        return None, str(error)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.filterwarnings("error")
def test_damage_of_any_kind_ends_in_one_line_or_changes_no_shape(folder: Path, reader: str):
    """A format with a checksum gives the numbers that were saved or none; the others cannot see a changed number."""
    chance = random.Random(0)
    name, read, saved = READERS[reader]
    whole = (folder / name).read_bytes()
    refused = 0
    for _ in range(300):
        content = damage(whole, chance)
        (folder / name).write_bytes(content)
        found, line = outcome(lambda: check_source(read(folder)).splits["train"].inputs)
        if found is None:
            refused += 1
            assert str(folder) in line
            assert len(line.splitlines()) == 1
            assert len(line) < 1000
            continue
        assert len(content) == len(whole) or reader in ("npz", "gz")
        if reader in ("npz", "gz"):
            np.testing.assert_array_equal(found, saved)
    assert refused > 150
