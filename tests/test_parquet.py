"""Parquet: columns of every type, parts, images by row groups, and the error for each thing that is wrong."""

import datetime
import decimal
import io
import sys
import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxtrain.data.loading import load_dataset
from jaxtrain.data.readers.parquet_columns import ByteColumn, RowGroups
from jaxtrain.data.readers.parquet_files import parquet, read_parquet_images, read_parquet_table
from jaxtrain.data.settings import Settings
from jaxtrain.data.table_encoding import TableEncoding
from jaxtrain.errors import DataError, JaxtrainWarning

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")


def write(file, columns, **options):
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), file, **options)


def read(folder, columns, target="y", **knobs):
    write(folder / "data.parquet", columns)
    return parquet(folder, "data.parquet", target, **knobs)


def columns_of(source, split="train"):
    return {name: column.tolist() for name, column in source.splits[split].inputs.columns.items()}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, None, 3], pa.int8()), [1, np.nan, 3]),
        (pa.array([1, 2, 2**63], pa.uint64()), [1, 2, 2.0**63]),
        (pa.array([1.5, None, np.nan]), [1.5, np.nan, np.nan]),
        (pa.array([1.5, None, 2.0], pa.float16()), [1.5, np.nan, 2]),
        (pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("3.5")]), [1.25, np.nan, 3.5]),
        (pa.nulls(3), [np.nan] * 3),
        (pa.array([True, None, False]), ["true", "", "false"]),
        (pa.array(["ä", None, " b "]), ["ä", "", "b"]),
        (pa.array(["x", "?", "x"], pa.large_string()), ["x", "", "x"]),
        (pa.array(["x", "y", "x"], pa.string_view()), ["x", "y", "x"]),
        (pa.array(["x", None, "x"]).dictionary_encode(), ["x", "", "x"]),
        (pa.array([7, None, 7]).dictionary_encode(), [7, np.nan, 7]),
        (pa.array(["1", "2.5", None]), [1, 2.5, np.nan]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_columns_of_every_type(tmp_path, values, expected):
    column = columns_of(read(tmp_path, {"x": values, "z": [1, 2, 3], "y": [0, 1, 0]}))["x"]
    np.testing.assert_array_equal(column, expected)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (pa.array([2**60 + 1, 3]), np.array([2**60 + 1, 3])),
        (pa.array([1.0, 2.0]), np.array([1.0, 2.0])),
        (pa.array(["b", "a"]).dictionary_encode(), ["b", "a"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array(["1", "2"]), np.array([1, 2])),
    ],
)
def test_targets_keep_their_type(tmp_path, targets, expected):
    found = read(tmp_path, {"x": [1, 2], "y": targets}).splits["train"].targets
    assert found.tolist() == list(expected)
    assert isinstance(expected, list) or found.dtype == expected.dtype


def test_numbers_may_be_categories(tmp_path):
    source = read(tmp_path, {"x": [1, 2], "w": [1.5, None], "y": [3, 4]}, categories=("x", "w", "y"))
    assert columns_of(source) == {"x": ["1", "2"], "w": ["1.5", ""]}
    assert source.splits["train"].targets.tolist() == ["3", "4"]


def test_inner_fields_have_dotted_names(tmp_path):
    who = pa.array([{"job": "a", "age": {"years": 3}}, {"job": "b", "age": None}])
    columns = {"who": who, "y": [1, 2], "tags": [[1], [2]]}
    found = columns_of(read(tmp_path, columns, drop=("tags",)))
    assert found.pop("who.job") == ["a", "b"]
    np.testing.assert_array_equal(found.pop("who.age.years"), [3, np.nan])
    assert not found
    assert list(columns_of(read(tmp_path, columns, drop=("tags", "who.job")))) == ["who.age.years"]
    assert list(columns_of(read(tmp_path, columns, inputs=("who.job",)))) == ["who.job"]


def test_parts_follow_each_other(tmp_path):
    for part, values in (("b", [3, 4]), ("a", [1, 2]), ("c", [5])):
        write(tmp_path / "set" / f"{part}.parquet", {"x": values, "y": values})
    for name in ("README.md", "._a.parquet", "Thumbs.db"):
        (tmp_path / "set" / name).write_text("no part")
    table = parquet(tmp_path, "set", "y").splits["train"].inputs
    assert table.columns["x"].tolist() == [1, 2, 3, 4, 5]
    assert table.place(3) == f"{tmp_path / 'set' / 'b.parquet'}, row 1"
    assert table.place(4) == f"{tmp_path / 'set' / 'c.parquet'}, row 0"


def test_the_names_of_parts_are_splits_as_on_hubs(tmp_path):
    for part, value in (("train-00000-of-00002", 1), ("train-00001-of-00002", 2), ("test-00000-of-00001", 3)):
        write(tmp_path / "set" / f"{part}.parquet", {"x": [value], "y": [value]})
    source = parquet(tmp_path, "set", "y")
    assert columns_of(source) == {"x": [1, 2]}
    assert columns_of(source, "test") == {"x": [3]}


def test_a_test_file_and_columns_of_the_training_rows(tmp_path):
    write(tmp_path / "test.parquet", {"y": [5.0], "x": [6], "c": ["7"], "day": ["x"]})
    day = pa.array([datetime.date(2020, 1, 2), datetime.date(2019, 1, 2)])
    columns = {"x": [1, 2], "c": ["a", "b"], "day": day, "y": [1, 2]}
    source = read(tmp_path, columns, drop=("day",), test_file="test.parquet")
    assert columns_of(source, "test") == {"x": [6], "c": ["7"]}
    assert source.splits["test"].targets.dtype == np.int64
    assert source.columns["day"].tolist() == ["2020-01-02", "2019-01-02"]
    assert source.columns["x"].tolist() == source.columns["y"].tolist() == [1, 2]


ERRORS = {
    "an unknown target": ({"x": [1]}, {}, "data.parquet: got no column 'y'; expected one of x"),
    "an unknown column": ({"xs": [1], "y": [1]}, {"drop": ("x",)}, "no column 'x'.*Did you mean 'xs'"),
    "an unknown input": ({"xs": [1], "y": [1]}, {"inputs": ("x",)}, "no column 'x'"),
    "a column set that there is not": ({"x": [1], "y": [1]}, {"numbers": ("z",)}, "no column 'z', which data.numbers"),
    "no rows": ({"x": pa.array([], pa.int64()), "y": pa.array([], pa.int64())}, {}, "got no rows"),
    "a date": ({"x": [datetime.date(2020, 1, 1)], "y": [1]}, {}, "the type date32.*'x'.*Count from a moment"),
    "a list": ({"x": [[1]], "y": [1]}, {}, r"the type list.* of the column 'x'.*data.drop=\('x',\)"),
    "a missing target": ({"x": [1, 2], "y": [1, None]}, {}, "data.parquet, row 1: got no value in the column 'y'"),
    "a missing name": ({"x": [1, 2], "y": ["a", None]}, {}, "data.parquet, row 1: got no value in the column 'y'"),
    "infinity": ({"x": [1, np.inf], "y": [1, 2]}, {}, "data.parquet, row 1: got inf in the column 'x'"),
    "the target alone": ({"y": [1, 2]}, {}, "no column beside the target"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_each_error_names_file_and_row(tmp_path, kind):
    columns, knobs, words = ERRORS[kind]
    with pytest.raises(DataError, match=words):
        read(tmp_path, columns, **knobs)


DAMAGE = {
    "empty": lambda content: b"",
    "CSV": lambda content: b"x,y\n1,2\n",
    "cut off": lambda content: content[:-9],
    "a hole": lambda content: content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_named(tmp_path, kind):
    file = tmp_path / "data.parquet"
    write(file, {"x": np.arange(1000), "y": np.arange(1000)})
    file.write_bytes(DAMAGE[kind](file.read_bytes()))
    with pytest.raises(DataError, match=r"data\.parquet: got a file that cannot be read") as raised:
        parquet(tmp_path, "data.parquet", "y")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([{"x": [1], "y": [1]}, {"x": [1]}], r"1\.parquet: got no column 'y'; expected the columns of .*0\.parquet"),
        ([{"x": [1], "y": [1]}, {"x": ["a"], "y": [1]}], r"1\.parquet: got texts in the column 'x'; expected numbers"),
        ([], "got no Parquet files in the folder"),
    ],
)
def test_parts_that_differ_are_refused(tmp_path, parts, words):
    (tmp_path / "set").mkdir()
    for number, columns in enumerate(parts):
        write(tmp_path / "set" / f"{number}.parquet", columns)
    with pytest.raises(DataError, match=words):
        parquet(tmp_path, "set", "y")


def test_folders_without_training_parts_are_refused(tmp_path):
    write(tmp_path / "set" / "test.parquet", {"x": [1], "y": [1]})
    with pytest.raises(DataError, match="got parts for test; expected parts for training"):
        parquet(tmp_path, "set", "y")


def test_a_missing_pyarrow_is_named(tmp_path, monkeypatch):
    write(tmp_path / "data.parquet", {"x": [1], "y": [1]})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r'no installed pyarrow.*pip install "jaxtrain\[parquet\]"'):
        parquet(tmp_path, "data.parquet", "y")


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 5, 3), np.uint8)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def image_columns(images, labels=None):
    structs = pa.array([{"bytes": png(image), "path": f"{i}.png"} for i, image in enumerate(images)])
    return {"image": structs, "label": np.arange(len(images)) if labels is None else labels}


def write_images(folder, images, **options):
    write(folder / "data.parquet", image_columns(images), **options)


def test_images_are_read_by_row_groups(tmp_path):
    images = pictures(11)
    write_images(tmp_path, images, row_group_size=3)
    split = parquet(tmp_path, "data.parquet", "label").splits["train"]
    rows = np.array([10, 0, 4, 3, 9])
    np.testing.assert_array_equal(split.inputs.read(rows), images[rows])
    assert split.inputs.shape == (11, 4, 5, 3)
    assert split.targets.tolist() == list(range(11))


def test_images_of_parts_splits_and_plain_bytes(tmp_path):
    images = pictures(6)
    for part, rows in (("train-0", [0, 1]), ("train-1", [2, 3]), ("test-0", [4, 5])):
        columns = {"image": [png(images[row]) for row in rows], "label": rows, "note": ["u", "v"]}
        write(tmp_path / "set" / f"{part}.parquet", columns)
    splits = parquet(tmp_path, "set", "label", inputs=("image",)).splits
    np.testing.assert_array_equal(splits["train"].inputs.read(np.arange(4)), images[:4])
    np.testing.assert_array_equal(splits["test"].inputs.read(np.arange(2)), images[4:])
    assert parquet(tmp_path, "set", "label", drop=("note",)).columns["note"].tolist() == ["u", "v", "u", "v"]
    with pytest.raises(DataError, match=r"the column 'note' beside the images in 'image'.*data.inputs=\('image',\)"):
        parquet(tmp_path, "set", "label")


def test_a_column_names_the_splits_of_images(tmp_path):
    images = pictures(4)
    write(tmp_path / "data.parquet", {**image_columns(images), "part": ["train", "test", "train", "test"]})
    splits = parquet(tmp_path, "data.parquet", "label", split_column="part").splits
    np.testing.assert_array_equal(splits["train"].inputs.read(np.arange(2)), images[[0, 2]])
    np.testing.assert_array_equal(splits["test"].inputs.read(np.arange(2)), images[[1, 3]])
    assert splits["test"].targets.tolist() == [1, 3]
    assert splits["train"].inputs.fingerprint() != splits["test"].inputs.fingerprint()


def test_images_are_resized(tmp_path):
    write_images(tmp_path, pictures(2))
    inputs = parquet(tmp_path, "data.parquet", "label", size=(2, 2), channels=1).splits["train"].inputs
    assert inputs.read(np.arange(2)).shape == (2, 2, 2, 1)


def test_row_groups_that_do_not_fit_are_read_again(tmp_path, monkeypatch):
    images = pictures(12)
    write_images(tmp_path, images, row_group_size=4)
    monkeypatch.setattr("jaxtrain.data.readers.parquet_columns.free_memory", lambda: 1)
    with pytest.warns(JaxtrainWarning, match=r"data\.parquet: .* bytes in the column 'image', in row groups of 4 rows"):
        groups = RowGroups([tmp_path / "data.parquet"], "image")
    column = ByteColumn(groups)
    wrong = []

    def read_all(seed):
        for row in np.random.default_rng(seed).permutation(12).tolist():
            wrong.extend([] if column.read(row) == png(images[row]) else [row])

    threads = [threading.Thread(target=read_all, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(groups._kept) == 1


def test_a_file_that_changes_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxtrain.data.readers.parquet_columns.free_memory", lambda: 1)
    write_images(tmp_path, pictures(4), row_group_size=2)
    with pytest.warns(JaxtrainWarning, match="read again and again"):
        inputs = parquet(tmp_path, "data.parquet", "label").splits["train"].inputs
    before = inputs.fingerprint()
    inputs.read(np.arange(4))
    write_images(tmp_path, pictures(4, seed=1), row_group_size=2)
    with pytest.raises(DataError, match="another content than at its first reading"):
        inputs.read(np.arange(4))
    monkeypatch.undo()
    assert parquet(tmp_path, "data.parquet", "label").splits["train"].inputs.fingerprint() != before


@pytest.mark.parametrize("bad", [None, {"bytes": None, "path": "x.png"}, {"bytes": b"no image", "path": None}])
def test_an_image_that_is_none_is_named_by_its_row(tmp_path, bad):
    good = [{"bytes": png(image), "path": ""} for image in pictures(2)]
    write(tmp_path / "data.parquet", {"image": pa.array([*good, bad]), "label": [0, 1, 2]})
    with pytest.raises(DataError, match=r"data\.parquet, row 2: got "):
        load_dataset(parquet(tmp_path, "data.parquet", "label"), Settings(validation_fraction=0.0, test_fraction=0.0))


def test_new_files_are_read_without_their_targets(tmp_path):
    knobs = {"target": "y", "inputs": (), "drop": ("id",), "split_column": None, "missing": ("", "?")}
    knobs |= {"numbers": (), "categories": (), "size": None, "channels": None, "resampling": "bilinear"}
    table = read(tmp_path, {"x": [1, 2], "c": ["a", "a"], "id": ["u", "v"], "y": [1, 2]}, drop=("id",))
    encoding = TableEncoding.fit(table.splits["train"].inputs)
    for columns in ({"c": ["a"], "x": [3.0]}, {"c": ["a"], "x": [3.0], "y": ["no number"], "id": [[1]]}):
        write(tmp_path / "new.parquet", columns)
        new = read_parquet_table(tmp_path / "new.parquet", knobs, encoding.kinds)
        np.testing.assert_array_equal(encoding.encode(new), [[3, 1]])
    images = pictures(3)
    for columns in (image_columns(images), {"image": image_columns(images)["image"]}):
        write(tmp_path / "new.parquet", columns)
        found = read_parquet_images(tmp_path / "new.parquet", {**knobs, "target": "label"}, (4, 5, 3), "uint8")
        np.testing.assert_array_equal(found, images)
    write(tmp_path / "new.parquet", {"x": [1]})
    with pytest.raises(DataError, match="no column of images"):
        read_parquet_images(tmp_path / "new.parquet", knobs, (4, 5, 3), "uint8")
