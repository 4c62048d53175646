"""Texts: windows of tokens, the parts that they are cut into, vocabularies, and an error for each wrong one."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxtrain.data.info import DataInfo
from jaxtrain.data.loading import load_dataset
from jaxtrain.data.readers.embedded import python_source
from jaxtrain.data.readers.text_files import read_windows, text
from jaxtrain.data.settings import Settings
from jaxtrain.data.source import Source, as_source
from jaxtrain.data.texts import Text
from jaxtrain.data.vocabulary import BytePairs, Characters, fit_vocabulary
from jaxtrain.errors import ConfigError, DataError, JaxtrainWarning, UsageError

COUNTING = "".join(f"{i:03}" for i in range(1000))
"""A text of 3,000 characters in which every place can be told."""


def dataset_of(given, **settings):
    source = given if isinstance(given, Source) else Source({"train": given})
    return load_dataset(as_source(source, "mine"), Settings(**settings))


def texts_of(dataset, split):
    """Returns the whole text of a split: its inputs, and the last target."""
    part = dataset.split(split)
    return dataset.info.vocabulary.decode(np.append(part["inputs"].ravel(), part["targets"][-1, -1]))


def test_targets_are_the_inputs_one_token_later_and_no_token_is_seen_twice():
    dataset = dataset_of(Text(COUNTING, context=7), validation_fraction=0.1, test_fraction=0.2)
    assert dataset.sizes == {"train": 299, "validation": 42, "test": 85}
    rows = dataset.read("train", np.array([0, 5]))
    assert rows["inputs"].dtype == rows["targets"].dtype == np.uint8
    assert bytes(rows["inputs"][1]) == COUNTING[35:42].encode()
    assert bytes(rows["targets"][1]) == COUNTING[36:43].encode()
    np.testing.assert_array_equal(rows["inputs"], dataset.split("train")["inputs"][[0, 5]])


def test_parts_are_cut_in_the_order_of_the_text():
    dataset = dataset_of(Text(COUNTING, context=10), validation_fraction=0.1, test_fraction=0.2)
    found = [texts_of(dataset, split) for split in ("train", "validation", "test")]
    assert found[0] == COUNTING[:2091]  # of 2,100 characters: whole windows, and the token after the last
    assert found[1] == COUNTING[2100:2391]
    assert found[2] == COUNTING[2400:2991]


def test_windows_of_training_may_overlap_and_those_of_other_parts_never_do():
    dataset = dataset_of(Text(COUNTING, context=10, stride=3), validation_fraction=0.1, test_fraction=0.0)
    starts = [bytes(window[:3]).decode() for window in dataset.split("train")["inputs"]]
    assert starts == [COUNTING[i : i + 3] for i in range(0, 2700 - 10, 3)]
    assert texts_of(dataset, "validation") == COUNTING[2700:2991]
    block = {name: np.empty((2, 10), np.uint8) for name in ("inputs", "targets")}
    rows = dataset.read("train", np.array([7, 1]), block)
    assert bytes(rows["inputs"][0]) == COUNTING[21:31].encode()
    assert bytes(rows["targets"][1]) == COUNTING[4:14].encode()


def test_the_characters_of_the_training_part_are_the_vocabulary_and_others_are_counted():
    content = "abca" * 100 + "abxy" * 100
    with pytest.warns(JaxtrainWarning, match="validation part: got 200 of 400 characters that the training part lacks"):
        dataset = dataset_of(Text(content, context=4, tokens="characters"), validation_fraction=0.5, test_fraction=0.0)
    vocabulary: Any = dataset.info.vocabulary
    assert vocabulary == Characters("abc")
    assert (dataset.info.classes, vocabulary.unknown) == (4, 3)
    np.testing.assert_array_equal(dataset.split("validation")["inputs"][0], [0, 1, 3, 3])
    assert vocabulary.decode(np.array([0, 1, 3])) == "ab\N{REPLACEMENT CHARACTER}"
    np.testing.assert_array_equal(vocabulary.byte_lengths, [1, 1, 1, 1])


@pytest.mark.parametrize("kind", ["bytes", "characters", "byte_pairs"])
def test_every_vocabulary_returns_its_text_and_survives_json(kind):
    content = "Grüße, 世界!\n\n  indented\nnaïve 🎈 text, text, text\n" * 30
    vocabulary = fit_vocabulary(kind, content, 300, "mine")
    tokens = vocabulary.encode(content)
    assert vocabulary.decode(tokens) == content
    assert vocabulary.byte_lengths[tokens].sum() == len(content.encode())
    assert tokens.max() < vocabulary.size
    assert tokens.dtype == (np.uint16 if kind == "byte_pairs" else np.uint8)
    dataset = dataset_of(Text(content, context=4, tokens=kind, vocabulary=300))
    saved = json.loads(json.dumps(dataset.info.to_json()))
    assert DataInfo.from_json(saved) == dataset.info
    assert hash(DataInfo.from_json(saved)) == hash(dataset.info)


def test_byte_pairs_join_what_is_frequent_and_take_any_text():
    vocabulary = BytePairs.fit("hello world\n" * 200, 280)
    hello = vocabulary.encode("hello world")
    assert len(hello) == 2
    assert vocabulary.decode(vocabulary.encode("żółw\0")) == "żółw\0"


def test_a_long_text_is_encoded_in_blocks_as_it_is_whole(monkeypatch):
    content = "To be, or not to be:\n  that is\n\n\nthe question.\n" * 40
    whole = [vocabulary.encode(content) for vocabulary in (BytePairs.fit(content, 300), Characters.fit(content, ""))]
    monkeypatch.setattr("jaxtrain.data.vocabulary.BLOCK", 50)
    for vocabulary, expected in zip((BytePairs.fit(content, 300), Characters.fit(content, "")), whole, strict=True):
        np.testing.assert_array_equal(vocabulary.encode(content), expected)


def test_files_are_read_in_a_row_and_parts_may_have_files_of_their_own(tmp_path):
    for name, content in {"b.txt": "second", "a.txt": "first ", "c.md": "no"}.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "._b.txt").write_text("hidden")
    folder = text(tmp_path, ".", context=4).splits["train"].inputs
    assert bytes(folder.content) == b"first second"
    several = text(tmp_path, ("b.txt", "c.md"), "characters", context=4, validation_file="a.txt").splits
    assert several["train"].inputs.content == "secondno"
    with pytest.warns(JaxtrainWarning, match="a.txt, validation part: got 5 of 6 characters"):
        dataset = dataset_of(Source(several), test_fraction=0.0)
    assert dataset.sizes == {"train": 1, "validation": 1}


def test_a_large_file_of_bytes_is_mapped_and_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxtrain.data.readers.text_files.MAPPED_BYTES", 100)
    (tmp_path / "long.txt").write_text(COUNTING)
    content = text(tmp_path, "long.txt", context=8).splits["train"].inputs.content
    assert isinstance(content, np.memmap)
    dataset = dataset_of(Text(content, context=8))
    assert np.shares_memory(dataset.parts["train"].split.inputs, content)
    assert dataset.fingerprint == dataset_of(Text(COUNTING, context=8)).fingerprint


def test_the_fingerprint_knows_the_text_and_its_windows():
    given = [(COUNTING, 8, None), (COUNTING[:-1] + "x", 8, None), (COUNTING, 9, None), (COUNTING, 8, 4)]
    found = {dataset_of(Text(content, context, stride=stride)).fingerprint for content, context, stride in given}
    assert len(found) == 4


def test_new_files_are_read_by_the_vocabulary_of_training(tmp_path):
    (tmp_path / "new.txt").write_text("abba" * 3 + "z")
    info = dataset_of(Text("ab" * 100, context=4, tokens="characters")).info
    with pytest.warns(JaxtrainWarning, match="new.txt: got 1 of 13 characters that the training part lacks"):
        found = read_windows([tmp_path / "new.txt"], info)
    np.testing.assert_array_equal(found, [[0, 1, 1, 0]] * 3)


def test_tokens_are_never_normalised_and_others_are_refused():
    info = dataset_of(Text(COUNTING, context=4)).info
    assert not info.is_raw
    tokens = np.arange(8).reshape(2, 4)
    prepared = info.prepare(tokens)
    assert prepared.dtype == np.uint8
    np.testing.assert_array_equal(prepared, tokens)
    with pytest.raises(DataError, match="inputs: got numbers of dtype int64 from 0 to 256; expected tokens, integers"):
        info.prepare(np.array([[0, 1, 2, 256]]))
    with pytest.raises(DataError, match="inputs: got numbers of dtype float64"):
        info.prepare(np.zeros((1, 4)))


def test_the_source_code_of_python_is_embedded():
    source = python_source(Path(), context=64).splits["train"].inputs
    assert len(source.content) > 1_000_000
    assert b"import" in bytes(source.content[:10_000])


@pytest.mark.parametrize(
    ("settings", "error", "expected"),
    [
        ({}, DataError, r"got 10 tokens \(bytes\) in the validation part; expected at least 33, a window of"),
        ({"stratify": True}, DataError, "for data.stratify"),
        ({"group_by": "author"}, ConfigError, "data.group_by: got 'author'; expected nothing"),
        ({"sample": "balanced"}, DataError, "for data.sample=balanced"),
        ({"test_fraction": 0.6, "validation_fraction": 0.6}, ConfigError, "leaves at least one of 100"),
    ],
)
def test_what_does_not_fit_a_text_is_refused(settings, error, expected):
    context = 2 if settings else 32
    with pytest.raises(error, match=expected):
        dataset_of(Text("0123456789" * 10, context=context), **settings)


def test_a_text_shorter_than_a_window_is_refused_as_such():
    with pytest.raises(DataError, match=r"got a text of 100 bytes or characters; expected at least 101, a window of"):
        dataset_of(Text("0123456789" * 10, context=100))
    with pytest.raises(DataError, match=r"got a text of 3 bytes or characters; expected at least 101"):
        dataset_of(Text("abc", context=100))


def test_files_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "packed.txt").write_bytes(b"\x1f\x8b\x08")
    (tmp_path / "latin.txt").write_bytes(b"one\ncaf\xe9\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"packed.txt: got a compressed file; expected plain bytes. Unpack it"):
        text(tmp_path, "packed.txt")
    with pytest.raises(DataError, match=r"latin.txt, line 2: got bytes that are no utf-8"):
        text(tmp_path, "latin.txt", "characters")
    with pytest.raises(DataError, match=r"empty: got a folder without .txt files; expected at least one"):
        text(tmp_path, "empty")
    with pytest.raises(DataError, match=r"text: got no file or folder nothing.txt in "):
        text(tmp_path, "nothing.txt")


def test_a_missing_tokenizers_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match=r"package tokenizers, installed. Run pip install 'jaxtrain\[text\]'"):
        dataset_of(Text(COUNTING, tokens="byte_pairs"))
