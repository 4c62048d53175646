"""JSON Lines: what is read of each kind of value, and the error, with its line, for each thing that is wrong."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxtrain.data.readers.json_lines import jsonl
from jaxtrain.errors import DataError, JaxtrainWarning


def read(folder: Path, *lines: Any, target: str = "y", **knobs: Any):
    """Reads a file of lines, which are texts, or objects that are written as JSON."""
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    (folder / "data.jsonl").write_text(text)
    return jsonl(folder, "data.jsonl", target, **knobs)


def columns_of(source, split="train"):
    return {name: column.tolist() for name, column in source.splits[split].inputs.columns.items()}


def test_values_of_every_kind(tmp_path):
    first = {"age": 39, "who": {"job": "nurse", "name": {"short": "ü"}}, "old": True, "digits": "5", "y": "low"}
    second = {"digits": "6.5", "y": "high", "age": None, "who": {"job": " cook ", "name": {"short": "b"}}, "old": False}
    third = {"age": 1.5e3, "y": "low", "who": {"name": {"short": "b"}}, "old": None}
    source = read(tmp_path, first, second, third)
    found = columns_of(source)
    np.testing.assert_array_equal(found.pop("age"), [39, np.nan, 1500])
    np.testing.assert_array_equal(found.pop("digits"), [5, 6.5, np.nan])
    assert found == {"who.job": ["nurse", "cook", ""], "who.name.short": ["ü", "b", "b"], "old": ["true", "false", ""]}
    assert source.splits["train"].targets.tolist() == ["low", "high", "low"]
    assert source.splits["train"].inputs.place(2) == f"{tmp_path / 'data.jsonl'}, line 3"


def test_texts_with_zeros_in_front_are_categories_as_in_csv(tmp_path):
    rows = [{"zip": "01003", "n": "10", "y": "01"}, {"zip": "1003", "n": "9", "y": "1"}]
    with pytest.warns(JaxtrainWarning) as said:
        source = read(tmp_path, *rows)
    assert [str(one.message).split("; ")[0].split("line ")[1] for one in said] == [
        "1: got '01003' in the column 'zip', digits with a zero in front",
        "1: got '01' in the column 'y', digits with a zero in front",
    ]
    assert columns_of(source) == {"zip": ["01003", "1003"], "n": [10, 9]}
    assert source.splits["train"].targets.tolist() == ["01", "1"]
    assert columns_of(read(tmp_path, *rows, numbers=("zip", "y")))["zip"] == [1003, 1003]


def test_numbers_agree_with_those_written_by_the_standard_library(tmp_path):
    draw = random.Random(0)
    rows = [{"x": draw.gauss(0, 1) * 10 ** draw.randint(-30, 30), "y": draw.randint(-9, 9)} for _ in range(2000)]
    split = read(tmp_path, *rows).splits["train"]
    assert split.inputs.columns["x"].tolist() == [row["x"] for row in rows]
    assert (split.targets.tolist(), split.targets.dtype) == ([row["y"] for row in rows], np.int64)


def test_blocks_of_lines_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxtrain.data.readers.json_lines.BLOCK", 2)
    rows = [{"a": "u", "y": 1}, {"a": "v", "y": 2}, {"b": 3, "y": 3}, {"a": "u", "y": 4}, {"b": 5, "y": 5}]
    source = read(tmp_path, *rows)
    assert columns_of(source)["a"] == ["u", "v", "", "u", ""]
    np.testing.assert_array_equal(columns_of(source)["b"], [np.nan, np.nan, 3, np.nan, 5])
    assert source.splits["train"].inputs.place(4).endswith("line 5")
    with pytest.raises(DataError, match=r"data\.jsonl, line 3: got 'a\\ud800'"):
        read(tmp_path, *rows[:2], {"a": "a\ud800", "y": 1})


def test_a_compressed_file_with_blank_lines_at_its_end(tmp_path):
    (tmp_path / "data.jsonl").write_bytes(gzip.compress(b'\xef\xbb\xbf{"x": 1, "y": 2}\r\n\r\n \n'))
    assert columns_of(jsonl(tmp_path, "data.jsonl", "y")) == {"x": [1]}


def test_knobs_are_those_of_csv(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"x": "7", "c": "5", "y": "b!"}\n')
    rows = [{"x": 1, "c": 5, "tags": [1], "inner": {"z": 1}, "y": "a"}, {"x": "-", "c": 6, "tags": [], "y": "b"}]
    source = read(
        tmp_path,
        *rows,
        drop=("tags", "inner"),
        categories=("c",),
        numbers=("x",),
        missing=("", "-"),
        target_strip="!",
        test_file="test.jsonl",
    )
    np.testing.assert_array_equal(columns_of(source)["x"], [1, np.nan])
    assert columns_of(source)["c"] == ["5", "6"]
    assert columns_of(source, "test") == {"x": [7], "c": ["5"]}
    assert source.splits["test"].targets.tolist() == ["b"]
    split = read(tmp_path, {"x": 1, "s": "train", "y": 1}, {"x": 2, "s": "test", "y": 2}, split_column="s")
    assert columns_of(split, "test") == {"x": [2]}


GOOD = {"x": 1, "y": 2}
MANY = [{"x": i, "y": i} for i in range(40)]
ERRORS = {
    "an empty file": ([], "data.jsonl: got an empty file"),
    "no JSON": ([GOOD, "{x: 1}"], "line 2: got a line that is no JSON"),
    "half an object": (
        [GOOD, '{"x": 1, "y"'],
        r"line 2: got a line that is no JSON \(Expecting ':' .* in column \d+\)",
    ),
    "two objects": (['{"x": 1, "y": 2} {"x": 1, "y": 2}'], "line 1: got a line that is no JSON"),
    "nested too deep": ([GOOD, '{"x":' * 100_000], r"line 2: got a line that is no JSON \(nested too deep"),
    "a list": ([[GOOD]], "line 1: got a line with a list; expected an object.*Write each object of the list"),
    "a number": ([GOOD, "3"], "line 2: got a line with a number"),
    "null": (["null"], "line 1: got a line with a null"),
    "nan": ([GOOD, '{"x": NaN, "y": 1}'], "line 2: got NaN; expected a finite number, or null"),
    "infinity": (['{"x": -Infinity, "y": 1}'], "line 1: got -Infinity"),
    "a number beyond float32": ([*MANY, '{"x": 1e99, "y": 1}'], "line 41: got '1e99' in the column 'x'"),
    "a list in a field": ([{"x": [1, 2], "y": 1}], r"line 1: got a list in the field 'x'.*data.drop=\('x',\)"),
    "a field twice": (['{"x": 1, "x": 2, "y": 1}'], "line 1: got the field 'x' twice"),
    "an inner field twice": ([{"a.b": 1, "a": {"b": 2}, "y": 1}], "line 1: got the field 'a.b' twice"),
    "a blank line": ([GOOD, "", GOOD], "line 2: got a blank line"),
    "half a character": ([{"x": "a\ud800", "y": 1}], r"line 1: got 'a\\ud800'; expected a text of whole characters"),
    "a stray text": ([*MANY, {"x": "one", "y": 1}], "line 41: got 'one' in the column 'x', where 40 of 41"),
    "a missing target": ([GOOD, {"x": 1}], "line 2: got no value in the column 'y'"),
    "an unknown target": ([{"x": 1, "yy": 2}], "no column 'y', which data.target names; expected one of x, yy"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_each_error_names_its_line(tmp_path, kind):
    lines, words = ERRORS[kind]
    with pytest.raises(DataError, match=words) as raised:
        read(tmp_path, *lines)
    assert str(raised.value).startswith(str(tmp_path / "data.jsonl"))
    assert "\n" not in str(raised.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "data.jsonl").write_bytes(b'{"x": 1, "y": 2}\n{"x": "\xe4", "y": 2}\n')
    with pytest.raises(DataError, match="line 2: got bytes that are no utf-8"):
        jsonl(tmp_path, "data.jsonl", "y")
