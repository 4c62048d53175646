"""A record that changes after it was first read is an error by its name, in the same session and in a later one."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import Interrupting, outcome, result_of, tiny

from jaxtrain.data.bad_rows import BadRows, tolerate
from jaxtrain.data.checksums import ChangedRecordError, Checksums
from jaxtrain.data.images import decode_image
from jaxtrain.data.readers.image_folders import image_folder
from jaxtrain.errors import DataError, StorageError
from jaxtrain.training.train import train_and_evaluate

COUNT = 120
GIVEN: dict[str, Any] = {"data.name": "image_folder", "data.folder": "set", "data.batch_size": 16}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Writes JPEG pictures of two classes."""
    noise = np.random.default_rng(0)
    for row in range(COUNT):
        place = tmp_path / "set" / "ab"[row % 2] / f"{row:03}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (8, 8, 3), np.uint8)).save(place)
    return tmp_path


def flip_a_bit_in_silence(file: Path) -> bytes:
    """Flips a bit that decodes to other pixels without an error; returns the old content."""
    content = file.read_bytes()
    pixels = decode_image(content, "before", None)
    for place in range(len(content) - 3, 0, -1):
        changed = bytearray(content)
        changed[place] ^= 1
        try:
            other = decode_image(bytes(changed), "after", None)
        except DataError:
            continue
        if other.shape == pixels.shape and (other != pixels).any():
            file.write_bytes(changed)
            return content
    raise AssertionError("no such bit")


def config(root: Path, **given: Any) -> Any:
    more = {key.replace("__", "."): value for key, value in given.items()}
    return tiny({**GIVEN, "data.path": str(root), "train.duration": "30 steps", "eval.every": "10 steps", **more})


@pytest.mark.parametrize("feed", ["device", "stream"])
def test_a_silent_flip_between_sessions_stops_the_resumed_run_until_it_is_undone(root, tmp_path, feed):
    given = config(root, data__feed=feed, data__skip_bad=5)
    train_and_evaluate(given, tmp_path / "whole", quiet=True)
    train_and_evaluate(given, tmp_path / "cut", quiet=True, trackers=[Interrupting(10)])
    assert result_of(tmp_path / "cut")["status"] == "interrupted"
    file = root / "set" / "a" / "000.jpg"
    content = flip_a_bit_in_silence(file)
    with pytest.raises(DataError, match=r"set/a/000.jpg \(row 0\): got another content than at its first reading"):
        train_and_evaluate(given, tmp_path / "cut", quiet=True)
    file.write_bytes(content)
    train_and_evaluate(given, tmp_path / "cut", quiet=True)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    assert (tmp_path / "cut" / "content_checksums.npz").stat().st_size < 4 * COUNT + 1000


def test_a_record_that_changes_is_not_passed_over_as_a_bad_one(root):
    split = image_folder(root, "set").splits["train"]
    bad = BadRows(10)
    field = tolerate({"train": split}, bad)["train"].inputs
    field.read(np.arange(COUNT))
    flip_a_bit_in_silence(root / "set" / "a" / "002.jpg")
    with pytest.raises(ChangedRecordError, match=r"a/002.jpg \(row 1\)"):
        field.read(np.arange(4))
    assert bad.messages == []


def test_every_flipped_bit_is_found(root):
    content = (root / "set" / "a" / "000.jpg").read_bytes()
    for place in range(8 * len(content)):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        checksums = Checksums(1, str)
        checksums.check(0, [content])
        with pytest.raises(ChangedRecordError):
            checksums.check(0, [changed])


def test_a_damaged_file_of_checksums_is_one_line(root, tmp_path):
    given = config(root, data__feed="stream")
    train_and_evaluate(given, tmp_path / "run", quiet=True, trackers=[Interrupting(10)])
    place = tmp_path / "run" / "content_checksums.npz"
    place.write_bytes(place.read_bytes()[:-40])
    with pytest.raises(StorageError, match=r"content_checksums.npz: got a damaged file; expected checksums"):
        train_and_evaluate(given, tmp_path / "run", quiet=True)
    place.write_bytes(io.BytesIO().getvalue())
    with pytest.raises(StorageError, match="got a damaged file"):
        train_and_evaluate(given, tmp_path / "run", quiet=True)
