"""Every kind of array that a source may return is used with its own numbers, or refused in one line."""

from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse

from jaxtrain.config.resolve import resolve_config
from jaxtrain.data.dataset import Dataset
from jaxtrain.data.loading import load_dataset
from jaxtrain.data.settings import Settings
from jaxtrain.data.source import Source, Split, as_source
from jaxtrain.errors import DataError
from jaxtrain.tasks.inputs import normalise_inputs
from jaxtrain.training.target_checks import check_targets

TABLE = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
WHOLE = np.arange(36).reshape(12, 3)
LABELS = np.arange(12) % 3
HIDDEN = np.ma.masked_array(TABLE, mask=WHOLE == 4)


class Raising:
    """An array of a library that cannot convert it."""

    shape = (12, 3)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise RuntimeError("on another device,\ncopy it first")


class Lazy:
    """An array of a library that can convert it."""

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return TABLE


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.setflags(write=False)
    return array


def in_itself() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


USED: dict[str, tuple[Any, np.ndarray]] = {
    "float32": (TABLE, TABLE),
    "float16": (TABLE.astype(np.float16), TABLE.astype(np.float16)),
    "bfloat16": (TABLE.astype(ml_dtypes.bfloat16), TABLE.astype(ml_dtypes.bfloat16)),
    "long double": (TABLE.astype(np.longdouble), TABLE),
    "big-endian": (TABLE.astype(">f8"), TABLE),
    "big-endian integers": (WHOLE.astype(">i2"), WHOLE),
    "booleans": (WHOLE % 2 == 0, WHOLE % 2 == 0),
    "uint64": (WHOLE.astype(np.uint64) * 2**58, WHOLE * 2.0**58),
    "matrix": (np.matrix(TABLE), TABLE),
    "read-only": (read_only(TABLE), TABLE),
    "column order": (np.asfortranarray(TABLE), TABLE),
    "backwards": (TABLE[::-1], TABLE[::-1]),
    "repeated": (np.broadcast_to(WHOLE[3], (12, 3)), np.tile(WHOLE[3], (12, 1))),
    "a mask that hides nothing": (np.ma.masked_array(TABLE, mask=False), TABLE),
    "JAX": (jnp.asarray(TABLE), TABLE),
    "JAX bfloat16": (jnp.asarray(TABLE, jnp.bfloat16), TABLE.astype(ml_dtypes.bfloat16)),
    "lists": (WHOLE.tolist(), WHOLE),
    "a list of rows": (list(TABLE), TABLE),
    "another library's": (Lazy(), TABLE),
}

REFUSED: dict[str, tuple[Any, str]] = {
    "masked": (HIDDEN, r"inputs of shape \(12, 3\) with masked elements.*array\.filled"),
    "masked rows in a list": (list(HIDDEN), "inputs with masked elements"),
    "masked rows in lists": ([[row] for row in HIDDEN], "inputs with masked elements"),
    "a masked number in lists": ([*TABLE.tolist()[1:], [0.0, np.ma.masked, 0.0]], "inputs with masked elements"),
    "sparse matrix": (scipy.sparse.csr_matrix(TABLE), r"shape \(12, 3\) in the sparse format csr_matrix.*toarray"),
    "sparse array": (scipy.sparse.coo_array(TABLE), r"shape \(12, 3\) in the sparse format coo_array.*toarray"),
    "sparse rows": ([scipy.sparse.csr_matrix(row) for row in TABLE], "inputs of dtype object"),
    "beyond float64": (np.full((12, 3), np.longdouble(10) ** 4000), r"inputs\[0, 0\] = inf"),
    "complex": (TABLE + 1j, r"inputs of dtype complex64 and shape \(12, 3\).*imaginary part"),
    "objects": (TABLE.astype(object), r"inputs of dtype object and shape \(12, 3\).*astype\(float\)"),
    "None among numbers": ([[1.0, None, 2.0]] * 12, "inputs of dtype object"),
    "integers past 64 bits": ([[10**30] * 3] * 12, "inputs of dtype object"),
    "strings": (TABLE.astype(str), r"inputs of dtype <U.*numpy\.unique"),
    "bytes": (TABLE.astype("S"), r"inputs of dtype \|S.*numpy\.unique"),
    "times": (WHOLE.astype("M8[s]"), "inputs of dtype datetime64.*timedelta64"),
    "durations": (WHOLE.astype("m8[s]"), "inputs of dtype timedelta64.*timedelta64"),
    "structured": (np.zeros(12, [("a", "f4"), ("b", "f4")]), "inputs of dtype .*fields of a structured"),
    "float8": (TABLE.astype(ml_dtypes.float8_e4m3fn), r"inputs of dtype float8_e4m3fn.*astype"),
    "raw bytes": (np.zeros((12, 3), "V2"), r"inputs of dtype \|V2.*astype"),
    "no axis": (np.float32(3), r"inputs of shape \(\)"),
    "one axis": (TABLE[:, 0], r"inputs of shape \(12,\).*inputs\[:, None\]"),
    "no feature": (TABLE[:, :0], r"inputs of shape \(12, 0\)"),
    "no example": (TABLE[:0], "12 targets for 0 inputs"),
    "nan": (np.where(WHOLE == 4, np.nan, TABLE), r"inputs\[1, 1\] = nan.*leave those examples out"),
    "infinity": (np.where(WHOLE == 4, -np.inf, TABLE), r"inputs\[1, 1\] = -inf"),
    "ragged lists": ([[1.0], [1.0, 2.0]] * 6, "inputs that make no array"),
    "a list in itself": (in_itself(), "inputs that make no array"),
    "a library that raises": (Raising(), "inputs that make no array .*on another device, copy it first"),
    "nothing": (None, "inputs of dtype object"),
    "a generator": ((row for row in TABLE), "inputs of dtype object"),
    "columns of several axes": ({"a": TABLE}, r"values of shape \(12, 3\); expected one value for each row"),
}


def load(inputs: Any, targets: Any = LABELS, *, standardised: bool = False) -> Dataset:
    return load_source({"train": (inputs, targets)}, standardised=standardised)


def load_source(returned: Any, *, standardised: bool = False) -> Dataset:
    source = as_source(returned, "mine")
    return load_dataset(source, Settings(seed=0, validation_fraction=0, test_fraction=0), standardised=standardised)


@pytest.mark.parametrize("kind", USED)
def test_a_kind_that_is_used_keeps_its_numbers(kind: str):
    given, numbers = USED[kind]
    dataset = load(given)
    raw = dataset.parts["train"].split.inputs
    assert type(raw) is np.ndarray
    assert raw.dtype.itemsize <= 8  # no bytes of padding, which would change the fingerprint at random
    np.testing.assert_array_equal(np.asarray(raw, np.float64), np.asarray(numbers, np.float64))
    converted = dataset.split("train")["inputs"]
    assert converted.dtype == (
        raw.dtype.newbyteorder("=") if raw.dtype.itemsize <= 2 and raw.dtype != np.float16 else np.float32
    )
    assert np.isfinite(normalise_inputs(converted, dataset.info)).all()


@pytest.mark.parametrize("kind", REFUSED)
def test_a_kind_that_is_refused_names_source_and_remedy_in_one_line(kind: str):
    given, said = REFUSED[kind]
    with pytest.raises(DataError, match=rf"^data source mine, train split(, column a)?: got .*{said}") as refusal:
        load(given)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["masked", "sparse matrix", "complex", "objects", "strings", "times"])
@pytest.mark.parametrize("standardised", [False, True])
def test_targets_pass_the_same_door(kind: str, standardised: bool):
    given, said = REFUSED[kind]
    with pytest.raises(DataError, match=said.replace("inputs", "targets")):
        load(TABLE, given, standardised=standardised)


def test_a_source_that_names_its_files_is_refused_by_these():
    with pytest.raises(DataError, match=r"^y\.npy: got targets of shape \(12, 3\) with masked"):
        load_source(Source({"train": Split(TABLE, HIDDEN, "x.npy", "y.npy")}))


@pytest.mark.skipif(np.finfo(np.longdouble).nmant != 63, reason="no long doubles of 80 bits, which are padded")
def test_long_doubles_of_equal_value_have_one_fingerprint():
    first, second = TABLE.astype(np.longdouble), TABLE.astype(np.longdouble)
    second.view(np.uint8).reshape(12, 3, -1)[..., 10:] = 255  # their padding
    assert load(first).fingerprint == load(second).fingerprint


@pytest.mark.parametrize("classes", ["10", 2.5, 0, -1, np.array([3])])
def test_a_number_of_classes_is_a_count(classes: Any):
    with pytest.raises(DataError, match=r"^data source mine: got .* expected a number of classes"):
        as_source(Source({"train": Split(TABLE, LABELS)}, classes), "mine")


ONE_HOT = np.eye(3, dtype=int)[LABELS]
IMAGES = np.random.default_rng(1).normal(size=(12, 4, 4, 1))
MASKS = (IMAGES[..., 0] > 0).astype(np.uint8)
FITTING = [
    *(("classification", LABELS), ("classification", LABELS > 0), ("classification", LABELS.astype(np.uint64))),
    *(("binary_classification", LABELS > 0), ("binary_classification", ONE_HOT)),
    *(("binary_classification", TABLE[:, 0] > 0), ("binary_classification", np.linspace(0, 1, 12))),
    *(("label_distribution", ONE_HOT), ("label_distribution", (ONE_HOT / 2 + 1 / 6).astype(np.float16))),
    *(("segmentation", MASKS), ("segmentation", MASKS.astype(float)), ("segmentation", MASKS == 1)),
    *(("regression", TABLE), ("regression", LABELS), ("regression", np.ones(12)), ("my.module:task", TABLE * 100)),
]
UNFIT = [
    ("classification", LABELS[:, None], r"targets of shape \(12, 1\).*targets\[:, 0\]"),
    ("classification", ONE_HOT, r"targets of shape \(12, 3\), integers.*argmax"),
    ("classification", ONE_HOT.astype(float), r"targets of shape \(12, 3\), floats.*argmax"),
    ("classification", ONE_HOT > 0, r"targets of shape \(12, 3\).*argmax"),
    ("classification", LABELS / 1, r"targets of shape \(12,\), floats.*astype\(int\)"),
    ("classification", MASKS, r"targets of shape \(12, 4, 4\)"),
    ("classification", LABELS * 0, r"targets of shape \(12,\).*all 12 in training are 0.*two classes"),
    ("classification", LABELS * 0 + 5, "all 12 in training are 5"),
    ("binary_classification", LABELS < 0, "all 12 in training are False"),
    ("binary_classification", LABELS, "from 0 to 2; expected values from 0 to 1.*'classification'"),
    ("binary_classification", LABELS[:, None], "from 0 to 2; expected values from 0 to 1"),
    ("binary_classification", TABLE, "expected values from 0 to 1"),
    ("segmentation", MASKS * 255, "from 0 to 255; expected values from 0 to 1.*threshold"),
    ("segmentation", MASKS * 0, "all 12 in training are 0"),
    ("label_distribution", LABELS, r"targets of shape \(12,\).*'classification'"),
    ("label_distribution", np.ones((12, 1)), r"targets of shape \(12, 1\)"),
    ("label_distribution", ONE_HOT * 2, r"targets\[0\] = \(2, 0, 0\).*add up to 1"),
    ("label_distribution", ONE_HOT - ONE_HOT[::-1] + ONE_HOT, "add up to 1"),
    ("regression", IMAGES, r"targets of shape \(12, 4, 4, 1\).*reshape"),
]


def check_of_task(task: str, targets: Any) -> None:
    config = {"task": {"name": task}}
    check_targets(config, load(TABLE, targets, standardised=task == "regression"))


@pytest.mark.parametrize(("task", "targets"), FITTING)
def test_targets_that_a_task_learns_are_taken(task: str, targets: Any):
    check_of_task(task, targets)


@pytest.mark.parametrize(("task", "targets", "said"), UNFIT)
def test_targets_that_a_task_cannot_learn_are_refused_by_source_shape_and_remedy(task: str, targets: Any, said: str):
    with pytest.raises(DataError, match=rf"^data source mine, train split(, column a)?: got .*{said}"):
        check_of_task(task, targets)


def test_the_values_of_every_split_are_checked():
    splits = {"train": (TABLE, MASKS), "test": (TABLE, MASKS * 255)}
    dataset = load_source(splits)
    with pytest.raises(DataError, match=r"^data source mine, test split: got .* 255"):
        check_targets({"task": {"name": "segmentation"}}, dataset)


def test_a_run_checks_its_targets(tmp_path: Any):
    from jaxtrain.training.experiment import build

    np.savez(tmp_path / "x.npz", inputs=TABLE, targets=LABELS * 0)
    data = {"name": "arrays", "file": "x.npz", "path": str(tmp_path), "batch_size": 4}
    with pytest.raises(DataError, match=r"x\.npz\[targets\]: got .* two classes"):
        build(resolve_config({"data": data}).config)
