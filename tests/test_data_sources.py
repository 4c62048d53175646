"""Sources: the arrays of each format, and the error for each kind of damage."""

import gzip
import importlib.machinery
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxtrain.data.readers import embedded
from jaxtrain.data.readers.arrays import arrays
from jaxtrain.data.readers.embedded import breast_cancer, diabetes, digits
from jaxtrain.data.readers.idx import fashion_mnist, idx
from jaxtrain.data.source import Source, Split, as_source
from jaxtrain.errors import DataError

IMAGES = np.arange(3 * 2 * 4, dtype=np.uint8).reshape(3, 2, 4)
LABELS = np.array([7, 0, 2], np.uint8)


def idx_bytes(array, magic=None):
    head = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim if magic is None else magic, *array.shape)
    return head + array.tobytes()


def write_set(folder, prefix="train", suffix="", images=IMAGES, labels=LABELS):
    folder.mkdir(exist_ok=True)
    for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
        content = idx_bytes(array)
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)


def test_hidden_files_beside_arrays_are_left_out(tmp_path):
    (tmp_path / "set").mkdir()
    for name, array in (("inputs", IMAGES), ("targets", LABELS)):
        np.save(tmp_path / f"set/{name}.npy", array)
        (tmp_path / f"set/._{name}.npy").write_bytes(b"as a Mac writes them on other disks")
    assert list(arrays(tmp_path, "set").splits) == ["train"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_reads_exact_values(tmp_path, suffix):
    write_set(tmp_path / "tiny", suffix=suffix)
    source = idx(tmp_path, folder="tiny")
    split = source.splits["train"]
    np.testing.assert_array_equal(split.inputs, IMAGES[..., None])
    np.testing.assert_array_equal(split.targets, [7, 0, 2])
    assert (split.inputs.dtype, split.targets.dtype, source.classes) == (np.uint8, np.int32, None)
    assert list(source.splits) == ["train"]
    assert split.file.endswith(f"train-images-idx3-ubyte{suffix}")
    assert split.targets_file.endswith(f"train-labels-idx1-ubyte{suffix}")


def test_idx_reads_the_test_files_where_they_are(tmp_path):
    write_set(tmp_path / "tiny")
    write_set(tmp_path / "tiny", "t10k", ".gz", IMAGES[:1] + 100, LABELS[1:2])
    split = idx(tmp_path, folder="tiny").splits["test"]
    np.testing.assert_array_equal(split.inputs, IMAGES[:1, ..., None] + 100)
    np.testing.assert_array_equal(split.targets, [0])


def test_idx_reads_a_gzip_of_several_streams(tmp_path):
    write_set(tmp_path / "tiny", suffix=".gz")
    content = idx_bytes(IMAGES)
    file = tmp_path / "tiny" / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(content[:20]) + gzip.compress(content[20:]))
    np.testing.assert_array_equal(idx(tmp_path, folder="tiny").splits["train"].inputs, IMAGES[..., None])


BROKEN_GZIP = {
    "truncated stream": lambda content: gzip.compress(content)[:-12],
    "truncated within the header": lambda content: gzip.compress(content[:9]),
    "wrong checksum": lambda content: gzip.compress(content)[:-8] + b"\0\0\0\0" + gzip.compress(content)[-4:],
    "no gzip": lambda content: content,
    "empty": lambda content: b"",
    "too few pixels": lambda content: gzip.compress(content[:-1]),
    "too many pixels": lambda content: gzip.compress(content + b"\0"),
    "header claims terabytes": lambda content: gzip.compress(content[:4] + b"\xff" * 12 + content[16:]),
}


@pytest.mark.parametrize("kind", BROKEN_GZIP)
def test_broken_gzip_is_named(tmp_path, kind):
    write_set(tmp_path / "tiny", suffix=".gz")
    file = tmp_path / "tiny" / "train-images-idx3-ubyte.gz"
    file.write_bytes(BROKEN_GZIP[kind](idx_bytes(IMAGES)))
    with pytest.raises(DataError) as caught:
        idx(tmp_path, folder="tiny")
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_magic_shows_both_numbers(tmp_path):
    write_set(tmp_path / "tiny")
    file = tmp_path / "tiny" / "train-labels-idx1-ubyte"
    file.write_bytes(idx_bytes(LABELS, magic=0xD01))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte: .*0x00000d01.*0x00000801"):
        idx(tmp_path, folder="tiny")


def test_wrong_size_of_a_plain_file_shows_both(tmp_path):
    write_set(tmp_path / "tiny")
    file = tmp_path / "tiny" / "train-images-idx3-ubyte"
    file.write_bytes(idx_bytes(IMAGES)[:-5])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: got 35 bytes; expected 40"):
        idx(tmp_path, folder="tiny")


def test_missing_set_says_what_where_and_how(tmp_path):
    with pytest.raises(DataError) as caught:
        fashion_mnist(tmp_path)
    for part in (
        *("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
        *(str(tmp_path / "fashion_mnist"), "data.path", "JAXTRAIN_DATA"),
        "https://github.com/zalandoresearch/fashion-mnist",
    ):
        assert part in str(caught.value)


def test_half_a_set_names_only_what_lacks(tmp_path):
    write_set(tmp_path / "tiny")
    (tmp_path / "tiny" / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(IMAGES))
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte") as caught:
        idx(tmp_path, folder="tiny")
    assert "train-" not in str(caught.value)


@pytest.mark.needs("data")
def test_real_fashion_mnist():
    source = fashion_mnist(Path(os.environ["JAXTRAIN_DATA"]))
    train, test = source.splits["train"], source.splits["test"]
    assert (train.inputs.shape, test.inputs.shape) == ((60_000, 28, 28, 1), (10_000, 28, 28, 1))
    assert (train.inputs.dtype, train.targets.dtype, source.classes) == (np.uint8, np.int32, 10)
    assert np.bincount(train.targets).tolist() == [6000] * 10
    assert train.inputs.mean() == pytest.approx(72.9404, abs=1e-4)  # the published mean, 0.2860 of 255


def test_embedded_sets_equal_those_of_scikit_learn():
    from sklearn import datasets

    for source, (inputs, targets), shape, classes in (
        (digits(Path()), datasets.load_digits(return_X_y=True), (1797, 8, 8, 1), 10),
        (breast_cancer(Path()), datasets.load_breast_cancer(return_X_y=True), (569, 30), 2),
        (diabetes(Path()), datasets.load_diabetes(return_X_y=True, scaled=False), (442, 10), None),
    ):
        split = source.splits["train"]
        assert (split.inputs.shape, source.classes) == (shape, classes)
        np.testing.assert_array_equal(split.inputs.reshape(shape[0], -1), np.asarray(inputs, np.float32))
        np.testing.assert_array_equal(split.targets, targets)
        assert split.targets.dtype == (np.float32 if classes is None else np.int32)
    assert digits(Path()).splits["train"].inputs.dtype == np.uint8


@pytest.mark.parametrize("content", [b"", b"1,2\nthree,4\n", b"\xff", b"\x1f\x8b\x08\x00"])
@pytest.mark.parametrize("source", [digits, breast_cancer, diabetes])
def test_a_damaged_table_of_scikit_learn_is_named(tmp_path, monkeypatch, source, content):
    folder = tmp_path / "datasets" / "data"
    folder.mkdir(parents=True)
    names = ("digits.csv.gz", "breast_cancer.csv", "diabetes_data_raw.csv.gz", "diabetes_target.csv.gz")
    for name in names:
        (folder / name).write_bytes(
            content if content[:1] == b"\x1f" or name.endswith("csv") else gzip.compress(content)
        )
    spec = importlib.machinery.ModuleSpec("sklearn", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(embedded, "find_spec", lambda _: spec)
    with pytest.raises(DataError, match=r"csv.*: got a file that cannot be read") as caught:
        source(Path())
    assert str(folder) in str(caught.value)


def test_reading_imports_neither_jax_nor_scikit_learn():
    code = (
        "import sys; from pathlib import Path; from jaxtrain.data import loading, order, settings;"
        "from jaxtrain.data.readers import arrays, embedded, idx;"
        "loading.load_dataset(embedded.digits(Path()), settings.Settings());"
        "sys.exit(', '.join({'jax', 'sklearn'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert (done.returncode, done.stderr) == (0, "")


INPUTS = np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3)
TARGETS = np.array([0, 1, 1, 0])


def write_arrays(place, named):
    if place.suffix == ".npz":
        np.savez(place, **named)
    else:
        place.mkdir()
        for name, array in named.items():
            np.save(place / f"{name}.npy", array)


@pytest.mark.parametrize("file", ["set.npz", "folder"])
def test_arrays_reads_exact_values(tmp_path, file):
    named = {"train_inputs": INPUTS, "train_targets": TARGETS, "test_inputs": INPUTS[:2], "test_targets": TARGETS[:2]}
    write_arrays(tmp_path / file, named | {"names": np.array(["a"], object)})  # arrays with other names are not read
    splits = arrays(tmp_path, file).splits
    assert list(splits) == ["train", "test"]
    for split, name in ((splits["train"], "train"), (splits["test"], "test")):
        np.testing.assert_array_equal(split.inputs, named[f"{name}_inputs"])
        np.testing.assert_array_equal(split.targets, named[f"{name}_targets"])
        assert str(tmp_path / file) in split.file
        assert f"{name}_targets" in split.targets_file


@pytest.mark.parametrize("file", ["set.npz", "folder"])
def test_arrays_takes_plain_names_for_training(tmp_path, file):
    write_arrays(tmp_path / file, {"inputs": INPUTS, "targets": TARGETS})
    split = arrays(tmp_path, file).splits["train"]
    np.testing.assert_array_equal(split.inputs, INPUTS)
    np.testing.assert_array_equal(split.targets, TARGETS)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"train_inputs": INPUTS}, "without train_targets"),
        ({"validation_inputs": INPUTS, "inputs": INPUTS, "targets": TARGETS}, "without validation_targets"),
        ({"x": INPUTS, "y": TARGETS}, r"\['x', 'y'\] without train_inputs, train_targets"),
        ({"inputs": INPUTS, "targets": TARGETS, "tset_inputs": INPUTS}, "tset_inputs.*Did you mean 'test_inputs'"),
        ({"inputs": INPUTS, "targets": TARGETS, "train_inputs": INPUTS}, "both"),
        (
            {"inputs": INPUTS.astype(object), "targets": TARGETS},
            r"inputs.*: got an array that cannot be read.*pickled.*never loaded",
        ),
    ],
)
@pytest.mark.parametrize("file", ["set.npz", "folder"])
def test_arrays_names_what_is_wrong(tmp_path, file, named, message):
    write_arrays(tmp_path / file, named)
    with pytest.raises(DataError, match=message) as caught:
        arrays(tmp_path, file)
    assert str(tmp_path / file) in str(caught.value)


def test_arrays_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"set\.npz.*with data\.path or .*JAXTRAIN_DATA") as caught:
        arrays(tmp_path, "set.npz")
    assert str(tmp_path) in str(caught.value)
    np.savez(tmp_path / "whole.npz", inputs=INPUTS, targets=TARGETS)
    content = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[:-40])
    (tmp_path / "flipped.npz").write_bytes(content[:150] + b"\xff\xfe" + content[152:])
    (tmp_path / "text.npz").write_text("inputs,targets")
    for name in ("cut.npz", "flipped.npz", "text.npz"):
        with pytest.raises(DataError, match=name):
            arrays(tmp_path, name)
    np.save(tmp_path / "one.npy", INPUTS)
    with pytest.raises(DataError, match=r"one\.npy: got a single array; expected"):
        arrays(tmp_path, "one.npy")


def test_as_source_takes_a_plain_dict_in_any_order():
    source = as_source({"test": [INPUTS, TARGETS], "train": (INPUTS.tolist(), [0, 1, 1, 0])}, "mine")
    assert list(source.splits) == ["train", "test"]
    np.testing.assert_array_equal(source.splits["train"].inputs, INPUTS)
    given = Source({"train": Split(INPUTS, TARGETS, "a.csv")}, classes=3)
    assert as_source(given, "mine").classes == 3
    assert as_source(given, "mine").splits["train"].file == "a.csv"


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ((INPUTS, TARGETS), "mine: got an object of type tuple"),
        (None, "mine: got an object of type NoneType"),
        ({"test": (INPUTS, TARGETS)}, "expected the split 'train'"),
        ({"train": (INPUTS, TARGETS), "valid": (INPUTS, TARGETS)}, "'valid'; expected one of train, validation, test"),
        ({"train": (INPUTS,)}, "mine, train split: got a sequence of 1"),
        ({"train": INPUTS}, "mine, train split: got an object of type ndarray"),
    ],
)
def test_as_source_refuses_anything_else(returned, message):
    with pytest.raises(DataError, match=message):
        as_source(returned, "mine")
