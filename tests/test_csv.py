"""CSV: what is read from every usual form, and the error, with its line, for each thing that is wrong."""

import csv as csv_format
import gzip
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxtrain.data.class_names import number_labels
from jaxtrain.data.loading import load_dataset
from jaxtrain.data.readers.csv_files import csv, read_csv_table
from jaxtrain.data.settings import Settings
from jaxtrain.data.table_encoding import TableEncoding
from jaxtrain.errors import ConfigError, DataError, JaxtrainWarning

PEOPLE = "age,job,pay\n39, nurse ,low\n?,cook,high\n25.5,NA,low\n"


def read(folder: Path, text: str | bytes, target: str | int = "pay", *, test: str | None = None, **knobs: Any):
    """Reads a CSV of this text or these bytes as data.csv, and a test file where it is given."""
    for name, content in (("data.csv", text), ("test.csv", test)):
        if content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return csv(folder, "data.csv", target, **({} if test is None else {"test_file": "test.csv"}), **knobs)


def columns_of(source, split="train"):
    return {name: column.tolist() for name, column in source.splits[split].inputs.columns.items()}


def test_types_come_from_the_values(tmp_path):
    source = read(tmp_path, PEOPLE)
    split = source.splits["train"]
    assert split.inputs.kinds == {"age": "number", "job": "category"}
    np.testing.assert_array_equal(split.inputs.columns["age"], [39, np.nan, 25.5])
    assert columns_of(source)["job"] == ["nurse", "cook", ""]
    assert split.targets.tolist() == ["low", "high", "low"]
    assert split.inputs.place(1) == f"{tmp_path / 'data.csv'}, line 3"
    assert split.file == str(tmp_path / "data.csv")


FORMS = {
    "semicolons": PEOPLE.replace(",", ";"),
    "tabs": PEOPLE.replace(",", "\t"),
    "bars": PEOPLE.replace(",", "|"),
    "carriage returns": PEOPLE.replace("\n", "\r\n"),
    "no end of line": PEOPLE.rstrip("\n"),
    "blank lines at the end": PEOPLE + "\n  \n\r\n",
    "a mark of UTF-8": b"\xef\xbb\xbf" + PEOPLE.encode(),
    "UTF-16": PEOPLE.encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + PEOPLE.encode("utf-16-be"),
    "gzip": gzip.compress(PEOPLE.encode()),
    "quotes": 'age,"job", "pay"\n39, "nurse","low"\n?,"cook","high"\n"25.5",NA,"low"\n',
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_reads_alike(tmp_path, form):
    source = read(tmp_path, FORMS[form])
    expected = {"age": [39.0, np.nan, 25.5], "job": ["nurse", "cook", ""]}
    for name, column in source.splits["train"].inputs.columns.items():
        np.testing.assert_array_equal(column.tolist(), expected[name])
    assert source.splits["train"].targets.tolist() == ["low", "high", "low"]


def test_quotes_keep_delimiters_line_ends_and_quotes(tmp_path):
    text = 'note,y\n"a, b",1\n"two\nlines",2\n"say ""no""",1\n"a, b",3\n'
    source = read(tmp_path, text, "y")
    assert columns_of(source)["note"] == ["a, b", "two\nlines", 'say "no"', "a, b"]
    assert source.splits["train"].inputs.place(2) == f"{tmp_path / 'data.csv'}, line 5"


def test_values_agree_with_those_written_by_the_standard_library(tmp_path):
    draw = random.Random(0)
    cells = ["plain", "with, comma", 'with "quotes"', "line\nend", "", "ä ß €", "semi;colon"]
    rows = [[repr(draw.gauss(0, 1e10)), draw.choice(cells), draw.randint(-5, 5)] for _ in range(3000)]
    with open(tmp_path / "data.csv", "w", newline="") as file:
        csv_format.writer(file).writerows([["x", "c", "y"], *rows])
    split = csv(tmp_path, "data.csv", "y").splits["train"]
    assert split.inputs.columns["x"].tolist() == [float(row[0]) for row in rows]
    assert split.inputs.columns["c"].tolist() == [row[1] for row in rows]
    assert (split.targets.tolist(), split.targets.dtype) == ([row[2] for row in rows], np.int64)


def test_blocks_of_rows_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxtrain.data.readers.csv_files.BLOCK", 2)
    source = read(tmp_path, "x,y\n" + "".join(f"{i},{i}\n" for i in range(5)), "y")
    assert columns_of(source)["x"] == [0, 1, 2, 3, 4]
    assert source.splits["train"].inputs.place(4).endswith("line 6")


@pytest.mark.parametrize(("bad", "words"), [(b"\xe4", "bytes that are no utf-8"), (b"\0", "a null byte")])
def test_lines_are_counted_through_the_blocks_that_are_decoded(tmp_path, monkeypatch, bad, words):
    monkeypatch.setattr("jaxtrain.data.readers.text_lines.BLOCK", 5)
    with pytest.raises(DataError, match=f"line 7: got {words}"):
        read(tmp_path, b"x,c,y\n" + b"1,a,2\n" * 5 + b"1," + bad + b",2\n1,a,2\n", "y")
    assert len(read(tmp_path, "x,c,y\n" + "1,ä,2\n" * 50, "y").splits["train"].inputs) == 50


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "-2", "+3"], np.array([1, -2, 3])),
        (["\uff11\uff12", "3"], np.array([12, 3])),  # digits of full width
        (["1", "2.0"], np.array([1.0, 2.0])),
        (["1.0", "2.0"], np.array([1.0, 2.0])),
        (["1e3", ".5"], np.array([1000.0, 0.5])),
        (["9223372036854775807", "1"], np.array([2**63 - 1, 1])),
        (["9223372036854775808", "1"], np.array([2.0**63, 1.0])),
        (["yes", "no"], ["yes", "no"]),
        (["1", "b"], ["1", "b"]),
        (["1_000", "1_001"], ["1_000", "1_001"]),
    ],
)
def test_targets_have_the_dtype_that_their_texts_show(tmp_path, values, expected):
    targets = read(tmp_path, "x,y\n" + "".join(f"1,{value}\n" for value in values), "y").splits["train"].targets
    assert targets.tolist() == (expected if isinstance(expected, list) else expected.tolist())
    assert isinstance(expected, list) or targets.dtype == expected.dtype


def test_types_can_be_set(tmp_path):
    text = "zip,x,y\n02139,1,3\n94105,2,4\n"
    source = read(tmp_path, text, "y", categories=("zip", "y"), numbers=("x",))
    assert columns_of(source) == {"zip": ["02139", "94105"], "x": [1, 2]}
    assert source.splits["train"].targets.tolist() == ["3", "4"]
    assert read(tmp_path, text, "y", numbers=("y", "zip")).splits["train"].targets.dtype == np.float64


ZIPS = "zip,x,y\n01003,1,3\n,2,4\n94105,3,5\n01003,0,3\n"


def test_codes_with_zeros_in_front_are_categories_which_is_said_unless_it_is_set(tmp_path):
    said = r"data.csv, line 2: got '01003' in the column 'zip'.*data.numbers=\('zip',\)\. It is taken for categories"
    with pytest.warns(JaxtrainWarning, match=said):
        source = read(tmp_path, ZIPS, "y", test=ZIPS)
    assert (
        columns_of(source, "test") == columns_of(source) == {"zip": ["01003", "", "94105", "01003"], "x": [1, 2, 3, 0]}
    )
    table = source.splits["train"].inputs
    (tmp_path / "new.csv").write_text("zip,x\n01003,1\n1003,1\n")
    new = read_csv_table(tmp_path / "new.csv", KNOBS, table.kinds)
    assert TableEncoding.fit(table).unseen(new) == {"zip": 1}
    np.testing.assert_array_equal(
        columns_of(read(tmp_path, ZIPS, "y", numbers=("zip",)))["zip"], [1003, np.nan, 94105, 1003]
    )
    assert columns_of(read(tmp_path, ZIPS, "y", categories=("zip",))) == columns_of(source)


@pytest.mark.parametrize("values", [["0", "10"], ["0.5", "10"], ["-0.5", "-01"], ["00.5", "07"], ["0e1", "01"]])
def test_numbers_with_a_zero_in_front_are_no_codes(tmp_path, values):
    source = read(tmp_path, "x,y\n" + "".join(f"{value},1\n" for value in values), "y")
    assert columns_of(source)["x"] == [float(value) for value in values]


def test_names_of_classes_keep_zeros_in_front(tmp_path):
    text = "x,y\n1,007\n2,42\n3,007\n"
    with pytest.warns(JaxtrainWarning, match="line 2: got '007' in the column 'y'"):
        source = read(tmp_path, text, "y", test=text)
    assert number_labels(source).class_names == ("007", "42")
    assert number_labels(source).splits["test"].targets.tolist() == [0, 1, 0]
    assert read(tmp_path, text, "y", numbers=("y",)).splits["train"].targets.tolist() == [7, 42, 7]


def test_a_regression_on_classes_or_codes_is_told_what_to_set(tmp_path):
    text = "a,zip\n" + "".join(f"{i},{i:05}\n" for i in range(20))
    with (
        pytest.warns(JaxtrainWarning, match="digits with a zero in front"),
        pytest.raises(
            DataError, match=r"expected integers, .* for numbers with zeros in front, name .* data\.numbers$"
        ),
    ):
        load_dataset(read(tmp_path, text, "zip"), Settings(), standardised=True)


@pytest.mark.parametrize(("knobs", "expected"), [({}, [10, 9]), ({"categories": ("day",)}, ["010", "9"])])
@pytest.mark.filterwarnings("ignore:.*zero in front")
def test_rows_are_ordered_by_codes_as_numbers_unless_they_are_set_to_categories(tmp_path, knobs, expected):
    source = read(tmp_path, "day,x,y\n010,1,3\n9,2,4\n", "y", **knobs)
    assert source.columns["day"].tolist() == expected
    assert columns_of(source)["day"] == ["010", "9"]


def test_missing_values_can_be_set(tmp_path):
    text = "x,c,y\n-999,NA,1\n3,b,2\n"
    assert columns_of(read(tmp_path, text, "y")) == {"x": [-999, 3], "c": ["", "b"]}
    given = columns_of(read(tmp_path, text, "y", missing=("-999",)))
    np.testing.assert_array_equal(given["x"], [np.nan, 3])
    assert given["c"] == ["NA", "b"]


def test_the_header_may_be_missing(tmp_path):
    rows = "1,a,0\n2,b,1\n"
    names = ("x", "c", "y")
    assert list(columns_of(read(tmp_path, rows, "y", names=names))) == ["x", "c"]
    assert columns_of(read(tmp_path, rows, 0, header=False)) == {"column_1": ["a", "b"], "column_2": [0, 1]}
    # a header that repeats the names is none of the rows, and another is replaced by them
    assert columns_of(read(tmp_path, "x,c,y\n" + rows, "y", names=names))["x"] == [1, 2]
    assert columns_of(read(tmp_path, "a,b,c\n" + rows, "y", names=names, header=True))["x"] == [1, 2]


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("x,c,y\n1,a,0\n", "names"),
        ("x,c,y\n,a,0\n", "names"),
        ("1,a,0\n2,b,1\n", "values"),
        ("a,b,c\nd,e,f\n", "values"),
        ("x,x,y\n1,2,3\n", "values"),
    ],
)
def test_a_header_is_recognised_and_said(tmp_path, text, taken):
    with pytest.warns(JaxtrainWarning, match=f"data.csv: .*header=True or False. Its first line is taken for {taken}"):
        source = read(tmp_path, text, -1)
    assert len(source.splits["train"].inputs) == text.count("\n") - (taken == "names")


def test_columns_are_left_out(tmp_path):
    source = read(
        tmp_path, ",id,when,x,y\n0,a,2020-01-01,5,1\n1,b,2020-01-02,6,0\n", "y", drop=("column_0", "id", "when")
    )
    assert columns_of(source) == {"x": [5, 6]}


def test_a_column_names_the_splits(tmp_path):
    text = "x,part,c,y\n1,test,a,u\n2,train,b,v\n3,Val,b,u\n4,train,a,u\n"
    source = read(tmp_path, text, "y", split_column="part")
    assert list(source.splits) == ["train", "validation", "test"]
    assert columns_of(source) == {"x": [2, 4], "c": ["b", "a"]}
    assert columns_of(source, "test")["x"] == [1]
    assert source.splits["train"].targets.tolist() == ["v", "u"]
    assert source.splits["train"].inputs.place(1).endswith("line 5")


def test_a_test_file_has_the_types_of_training(tmp_path):
    source = read(tmp_path, "c,x,y\na,1,1.5\n1,2,2\na,3,1\n", "y", test="x,c,y\n5,2,3\n6,3,4\n")
    assert columns_of(source, "test") == {"x": [5, 6], "c": ["2", "3"]}
    assert source.splits["test"].targets.dtype == np.float64  # as in training, though all are integers
    encoding = TableEncoding.fit(source.splits["train"].inputs)
    assert encoding.unseen(source.splits["test"].inputs) == {"c": 2}


def test_the_labels_of_a_test_file_may_end_otherwise(tmp_path):
    knobs = {"names": ("x", "y"), "target_strip": "."}
    source = read(tmp_path, "1, >50K\n2, <=50K\n", "y", test="3, >50K.\n", **knobs)
    assert source.splits["test"].targets.tolist() == [">50K"]


ROWS = "".join(f"{i},a,{i}\n" for i in range(40))
ERRORS = {
    "an empty file": ("", {}, r"data.csv: got an empty file"),
    "blank lines alone": ("\n\n", {}, "an empty file"),
    "a header alone": ("x,c,y\n", {}, "a header and no rows"),
    "a short row": ("x,c,y\n1,a,2\n1,2\n", {}, r"data.csv, line 3: got 2 cells; expected 3, as in line 1"),
    "a long row": ("x,c,y\n1,a,2\n\n", {"names": ("x", "y")}, "line 1: got 3 cells; expected 2, for data.names"),
    "a long row after quoted lines": ('x,c,y\n1,"a\nb",2\n1,2,3,4\n', {}, "line 4: got 4 cells"),
    "a blank line": ("x,c,y\n1,a,2\n\n1,a,2\n", {}, "line 3: got a blank line"),
    "an open quote": ('x,c,y\n1,a,2\n2,"b,3\n4,c,5\n', {}, "line 3: got a quote that is not closed"),
    "text behind a quote": ('x,c,y\n1,"a" b,2\n', {}, "line 2: got a row that cannot be read"),
    "a stray text": (
        f"x,c,y\n{ROWS}?,a,1\n forty ,a,1\n",
        {},
        "line 43: got 'forty' in the column 'x', where 40 of 41",
    ),
    "a stray underscore": (f"x,c,y\n{ROWS}1_000,a,1\n", {}, "got '1_000' in the column 'x'"),
    "infinity": (f"x,c,y\n{ROWS}inf,a,1\n", {}, "got 'inf' in the column 'x'.*a finite number in the range of float32"),
    "a number beyond float32": (f"x,c,y\n{ROWS}1e39,a,1\n", {}, "got '1e39'"),
    "a stray target": (f"x,c,y\n{ROWS}1,a,one\n", {}, "line 42: got 'one' in the column 'y'"),
    "a text in a column set to numbers": ("x,c,y\n1,a,2\n", {"numbers": ("c",)}, "line 2: got 'a' in the column 'c'"),
    "dates": ("x,d,y\n1,,1\n1,2020-01-31,2\n", {}, "line 3: got '2020-01-31', a date or time, .*'d'.*Count from a mo"),
    "decimal commas": ("x;d;y\n1;1,5;1\n1;1.234,5;2\n", {}, "line 2: got '1,5', a number with commas.*as in 1234.5"),
    "a missing target": ("x,c,y\n1,a,2\n1,a,?\n", {}, "line 3: got no value in the column 'y'"),
    "an unknown target": ("x,c,yy\n1,a,2\n", {}, "no column 'y', which data.target names; expected one of x, c, yy"),
    "an unknown column": ("xs,c,y\n1,a,2\n", {"drop": ("x",)}, "no column 'x', which data.drop .* Did you mean 'xs'"),
    "an unknown number": ("x,c,y\n1,a,2\n", {"numbers": ("z",)}, "no column 'z', which data.numbers names"),
    "a doubled name": ("x,x,y\n1,a,2\n", {}, "line 1: got the name 'x' of the columns 0 and 1"),
    "no name": (",c,y\n1,a,2\n", {}, r"no name for the column 0; .*data.drop=\('column_0',\)"),
    "Latin-1": ("x,c,y\n1,ä,2\n".encode("latin-1"), {}, "line 2: got bytes that are no utf-8.*data.encoding"),
    "half of UTF-16": ("x,c,y\n1,a,2\n".encode("utf-16")[:-1], {}, "bytes that are no utf-8"),
    "UTF-16 without a mark": ("x,c,y\n1,a,2\n".encode("utf-16-le"), {}, "line 1: got a null byte.*utf-16-le"),
    "a null byte": (b"x,c,y\n1,a,2\n1,\0,2\n", {}, "line 3: got a null byte"),
    "half of gzip": (gzip.compress(b"x,c,y\n1,a,2\n")[:-9], {}, "a compressed file that cannot be read"),
    "an Excel file": (b"PK\3\4rest", {}, "a zip file, such as those of Excel.*Save the sheet as CSV"),
    "the target alone": ("y\n1\n2\n", {}, "no column beside the target"),
    "old line ends": ("x,c,y\r1,a,2\r", {}, "line ends of a carriage return alone"),
    "an unknown split": ("x,c,y\n1,tain,2\n", {"split_column": "c"}, "line 2: got 'tain' in the column 'c'.*'train'"),
    "no training rows": ("x,c,y\n1,test,2\n", {"split_column": "c"}, "no 'train' in the column 'c'"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_each_error_names_its_line(tmp_path, kind):
    text, knobs, words = ERRORS[kind]
    with pytest.raises(DataError, match=words) as raised:
        read(tmp_path, text, "y", **knobs)
    assert str(raised.value).startswith(str(tmp_path / "data.csv"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"encoding": "latin1x"}, "data.encoding: got 'latin1x'"),
        ({"target": 3}, "data.target: got 3; expected a column of .*: 0 to 2"),
        ({"target": -4}, "data.target: got -4"),
        ({"drop": ("y",)}, "data.target: got 'y'; expected a column that is neither in data.drop"),
        (
            {"split_column": "c", "test_file": "data.csv"},
            "data.split_column: got 'c'; expected None, or files for train",
        ),
    ],
)
def test_knobs_that_contradict_the_file_are_refused(tmp_path, knobs, words):
    (tmp_path / "data.csv").write_text("x,c,y\n1,train,2\n")
    with pytest.raises(ConfigError, match=words):
        csv(tmp_path, "data.csv", **{"target": "y", "header": True, **knobs})


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ("x,c\n1,a\n", "test.csv: got no column 'y', which data.target names"),
        ("x,c,y\none,a,2\n", "test.csv, line 2: got 'one' in the column 'x'"),
        ("x,c,y\n1,a,2.5\n", "test.csv, line 2: got 2.5 in the column 'y'; expected an integer, as in training"),
        ("x,c,y\n1,a,b\n", "test.csv, line 2: got 'b' in the column 'y'"),
    ],
)
def test_a_test_file_that_differs_is_refused(tmp_path, test, words):
    with pytest.raises(DataError, match=words):
        read(tmp_path, "x,c,y\n1,a,2\n2,b,3\n", "y", test=test)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"csv: got no file none\.csv"):
        csv(tmp_path, "none.csv", "y")


@pytest.mark.parametrize(("strays", "numbers"), [(4, 396), (4, 397), (3, 26), (3, 27)])
def test_strays_are_few_among_many_numbers(tmp_path, strays, numbers):
    text = "x,y\n" + "".join(f"{i % 9},1\n" for i in range(numbers)) + "A,1\n" * strays
    if (strays, numbers) in ((4, 397), (3, 27)):  # fewer than 1 %, or 3 of 30
        with pytest.raises(DataError, match=f"line {numbers + 2}: got 'A' in the column 'x', where {numbers} of"):
            read(tmp_path, text, "y")
    else:
        assert read(tmp_path, text, "y").splits["train"].inputs.kinds == {"x": "category"}


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e999", "-1e39", "9" * 5000])
@pytest.mark.parametrize("every", [1, 4])
def test_numbers_without_end_make_no_categories_of_a_column(tmp_path, cell, every):
    """Also where they are many: as categories, each number of the column would be a category of its own."""
    rows = "".join(f"{cell if i % every == 0 else i},{i}\n" for i in range(60))
    with pytest.raises(DataError, match=r"line 2: got .* in the column 'x', where .* of 60 values are numbers"):
        read(tmp_path, f"x,y\n{rows}", "y")
    source = read(tmp_path, f"x,y\n{rows}", "y", categories=("x",))
    assert columns_of(source)["x"][0] == cell


@pytest.mark.parametrize("word", ["inf", "Infinity"])
def test_words_that_are_also_names_of_numbers_are_categories_among_words(tmp_path, word):
    rows = "".join(f"{word if i % 2 else 'sup'},{i}\n" for i in range(60))
    assert set(columns_of(read(tmp_path, f"x,y\n{rows}", "y"))["x"]) == {word, "sup"}


def test_three_strays_of_few_values_are_categories(tmp_path):
    assert columns_of(read(tmp_path, "x,y\n1,1\n2,2\nS,3\nM,4\n", "y"))["x"] == ["1", "2", "S", "M"]


KNOBS: dict[str, Any] = {
    **{"target": "y", "header": None, "names": (), "drop": (), "numbers": (), "categories": (), "missing": ("", "?")},
    **{"split_column": None, "delimiter": None, "encoding": "utf-8"},
}
"""The knobs of a run that a reader of new files looks at."""


@pytest.mark.parametrize(
    ("knobs", "text"),
    [
        ({}, "x,c,y\n5,7,1\n"),
        ({}, "x,c\n5,7\n"),
        ({}, "c;x\n7;5\n"),
        ({}, "c,x,y\n7,5,no number\n"),
        ({"drop": ("id",)}, "x,c\n5,7\n"),
        ({"drop": ("id",)}, "id,x,c\n1,5,7\n"),
        ({"names": ("x", "c", "y")}, "5,7,1\n"),
        ({"names": ("x", "c", "y")}, "5,7\n"),
        ({"names": ("x", "c", "y"), "target": 2}, "5,7\n"),
        ({"names": ("y", "x", "c"), "target": 0}, "1,5,7\n"),
        ({"header": False, "names": ("y", "x", "c"), "target": 0}, "5,7\n"),
        ({"names": ("x", "c", "y")}, "c,x\n7,5\n"),
        ({"target": -1}, "x,c,y\n5,7,1\n"),
        ({"target": -1}, "x,c\n5,7\n"),
        ({"target": 0}, "y,x,c\n1,5,7\n"),
    ],
)
def test_new_files_may_lack_the_target(tmp_path, knobs, text):
    (tmp_path / "new.csv").write_text(text)
    table = read_csv_table(tmp_path / "new.csv", KNOBS | knobs, {"x": "number", "c": "category"})
    assert {name: column.tolist() for name, column in table.columns.items()} == {"x": [5], "c": ["7"]}
    assert table.place(0) == f"{tmp_path / 'new.csv'}, line {text.count(chr(10))}"


@pytest.mark.parametrize(
    ("knobs", "text", "words"),
    [
        ({}, "x,c\nfive,7\n", "line 2: got 'five' in the column 'x'"),
        ({"names": ("x", "c", "y")}, "5\n", "line 1: got 1 cells; expected 3, for data.names"),
        ({}, "5,7\n6,8\n", "got no column 'x'"),
        ({}, "x,z\n5,7\n", "got no column 'c' but 'z'"),
        ({}, "x,c,z\n5,7,1\n", "got the column 'z'; expected the columns of training alone"),
    ],
)
def test_new_files_of_other_columns_are_refused(tmp_path, knobs, text, words):
    encoding = TableEncoding.fit(read(tmp_path, "x,c,y\n1,a,1\n1,a,1\n", "y").splits["train"].inputs)
    (tmp_path / "new.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        encoding.encode(read_csv_table(tmp_path / "new.csv", KNOBS | knobs, encoding.kinds))


def test_columns_beside_the_inputs_are_kept_as_they_are_ordered(tmp_path):
    text = "id,day,other,x,y\n07,2020-02-01,1.2.2020,1,a\n8,2020-01-01,3.1.2020,2,b\n"
    columns = read(tmp_path, text, "y", drop=("id", "day", "other")).columns
    assert {name: column.tolist() for name, column in columns.items()} == {
        **{"id": [7, 8], "day": ["2020-02-01", "2020-01-01"], "x": [1, 2], "y": ["a", "b"]},
    }
    parts = read(
        tmp_path,
        text.replace("id,", "part,").replace("07", "test").replace("8,2020", "train,2020"),
        "y",
        drop=("day", "other"),
        split_column="part",
    )
    assert parts.columns["day"].tolist() == ["2020-01-01"]


def test_a_class_that_no_training_row_has_is_named_by_its_line(tmp_path):
    source = read(tmp_path, "x,y\n1,low\n2,high\n", "y", test="x,y\n1,low\n2,high.\n")
    with pytest.raises(DataError, match=r"test\.csv, line 3: got targets\[1\] = 'high\.'.*Did you mean 'high'"):
        number_labels(source)
