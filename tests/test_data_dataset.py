"""The dataset: rejected data and the index in the error, the splits, and the description of the data."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxtrain.data import info
from jaxtrain.data.info import DataInfo
from jaxtrain.data.loading import load_dataset
from jaxtrain.data.readers.embedded import diabetes, digits
from jaxtrain.data.readers.idx import fashion_mnist
from jaxtrain.data.settings import Settings
from jaxtrain.data.source import Source, Split
from jaxtrain.errors import ConfigError, DataError, JaxtrainWarning
from jaxtrain.tasks.inputs import normalise_inputs

RANDOM = np.random.default_rng(0)
TABLE = RANDOM.normal(5, 3, (20, 3))
LABELS = np.arange(20) % 4


def load(splits, classes=None, *, seed=0, validation=0.0, test=0.0, standardised=False):
    named = {
        name: Split(np.asarray(inputs), np.asarray(targets), f"{name}.x", f"{name}.y")
        for name, (inputs, targets) in splits.items()
    }
    source = Source(named, classes)
    return load_dataset(
        source, Settings(seed=seed, validation_fraction=validation, test_fraction=test), standardised=standardised
    )


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


IMAGES = RANDOM.integers(0, 255, (4, 2, 3, 1), np.uint8)
TRAIN = {"train": (TABLE, LABELS)}

REFUSED = {
    "lengths": ({"train": (TABLE, LABELS[:-1])}, None, r"train\.y: got 19 targets for 20 inputs"),
    "no examples": ({"train": (TABLE[:0], LABELS[:0])}, None, r"train\.x: got no examples"),
    "rank of inputs": ({"train": (TABLE[:, 0], LABELS)}, None, r"train\.x: got inputs of shape \(20,\)"),
    "no features": ({"train": (TABLE[:, :0], LABELS)}, None, r"train\.x: got inputs of shape \(20, 0\)"),
    "rank of targets": ({"train": (TABLE, np.asarray(3))}, None, r"train\.y: got targets of shape \(\)"),
    "negative label": (
        {"train": (TABLE, changed(LABELS, 7, -1))},
        None,
        r"train\.y: got targets\[7\] = -1; expected labels from 0 on",
    ),
    "label of stated": (
        {"train": (TABLE, changed(LABELS, 9, 4))},
        4,
        r"train\.y: got targets\[9\] = 4; expected 0 to 3",
    ),
    "label unseen": (TRAIN | {"test": (TABLE[:2], [3, 4])}, None, r"test\.y: got targets\[1\] = 4; expected 0 to 3"),
    "far label": (
        {"train": (TABLE, changed(LABELS, 1, 1_000_000))},
        None,
        r"train\.y: got the label 1000000 among 5 distinct ones; expected labels below 10000, .* 100 for each distinct",
    ),
    "label past int32": (
        {"train": (TABLE, changed(LABELS, 1, 2**40))},
        None,
        rf"train\.y: got the label {2**40} among 5 distinct ones; expected labels below 10000",
    ),
    "label past int64": (
        {"train": (TABLE, changed(LABELS.astype(np.uint64), 1, 2**63))},
        None,
        rf"train\.y: got .*{2**63}",
    ),
    "mask past int32": ({"train": (TABLE, np.full((20, 2, 2), 2**31))}, None, r"targets\[0, 0, 0\] = 2147483648"),
    "mask of stated": ({"train": (IMAGES, np.full((4, 2, 3), 2))}, 2, r"targets\[0, 0, 0\] = 2; expected 0 to 1"),
    "nan": ({"train": (changed(TABLE, (13, 2), np.nan), LABELS)}, None, r"train\.x: got inputs\[13, 2\] = nan"),
    "infinity": (
        TRAIN | {"validation": (changed(TABLE.astype(np.float32), (4, 0), -np.inf), LABELS)},
        *(None, r"validation\.x: got inputs\[4, 0\] = -inf"),
    ),
    "past float32": ({"train": (changed(TABLE, (5, 1), 1e300), LABELS)}, None, r"inputs\[5, 1\] = 1e\+300"),
    "nan target": ({"train": (TABLE, changed(TABLE[:, 0], 6, np.nan))}, None, r"train\.y: got targets\[6\] = nan"),
    "float labels": (
        {"train": (TABLE, LABELS / 1)},
        4,
        r"train\.y: got targets of dtype float64; expected integers, for 4 classes",
    ),
    "shape of test": (
        TRAIN | {"test": (TABLE[:, :2], LABELS)},
        None,
        r"test\.x: .*\(2,\) in a test example; expected \(3,\)",
    ),
    "targets of test": (
        TRAIN | {"test": (TABLE, LABELS[:, None])},
        None,
        r"test\.y: .*\(1,\) in a test example; expected \(\)",
    ),
    "kind of test": (
        TRAIN | {"test": (TABLE, LABELS / 1)},
        None,
        r"test\.y: got test targets of dtype float64; expected int",
    ),
    "objects": ({"train": (TABLE.astype(object), LABELS)}, None, r"train\.x: got inputs of dtype object"),
    "an empty name": ({"train": (TABLE, changed(LABELS.astype(str), 3, ""))}, None, r"train\.y: got targets\[3\] = ''"),
    "a name in test alone": (
        {"train": (TABLE, np.array(["cat", "dog"] * 10)), "test": (TABLE, np.array(["cat", "dgo"] * 10))},
        None,
        r"test\.y: got targets\[1\] = 'dgo'; expected a class of the training split: cat, dog\. Did you mean 'dog'",
    ),
    "complex": ({"train": (TABLE * 1j, LABELS)}, None, r"train\.x: got inputs of dtype complex128"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_data_are_named_with_file_and_index(kind):
    splits, classes, message = REFUSED[kind]
    with pytest.raises(DataError, match=message):
        load(splits, classes)


def test_index_of_a_bad_value_is_right_past_the_first_block(monkeypatch):
    monkeypatch.setattr(info, "BLOCK_ELEMENTS", 8)
    images = changed(IMAGES.astype(np.float32), (3, 1, 2, 0), np.inf)
    with pytest.raises(DataError, match=r"inputs\[3, 1, 2, 0\] = inf"):
        load({"train": (images, [0, 1, 2, 3])})


def test_split_without_a_file_is_named():
    source = Source({"train": Split(TABLE, changed(LABELS, 3, -2))})
    with pytest.raises(DataError, match=r"the train split: got targets\[3\] = -2"):
        load_dataset(source, Settings(seed=0, validation_fraction=0, test_fraction=0))


def test_cut_uses_every_example_once_and_depends_on_the_seed_alone():
    table = np.arange(20.0)[:, None]  # targets identify the examples
    splits = {"train": (table, np.arange(20.0))}
    cut = load(splits, validation=0.25, test=0.1, seed=4)
    assert cut.sizes == {"train": 13, "validation": 5, "test": 2}
    targets = {name: cut.split(name)["targets"].tolist() for name in cut.sizes}
    assert sorted(target for part in targets.values() for target in part) == list(range(20))
    for name in cut.sizes:  # inputs still match their targets
        raw = cut.split(name)["inputs"][:, 0] * cut.info.input_std + cut.info.input_mean
        np.testing.assert_allclose(raw, targets[name], atol=1e-5)
    again = load(splits, validation=0.25, test=0.1, seed=4)
    assert {name: again.split(name)["targets"].tolist() for name in again.sizes} == targets
    other = load(splits, validation=0.25, test=0.1, seed=5)
    assert other.split("validation")["targets"].tolist() != targets["validation"]
    fewer = load(splits, validation=0.1, test=0.1, seed=4)
    assert (
        fewer.split("test")["targets"].tolist() == targets["test"]
    )  # the validation split changed, the test split did not


def test_own_splits_come_before_fractions():
    own = load(TRAIN | {"test": (TABLE[:3], LABELS[:3])}, validation=0.2, test=0.5)
    assert own.sizes == {"train": 16, "validation": 4, "test": 3}
    np.testing.assert_array_equal(own.split("test")["targets"], LABELS[:3])
    assert load(TRAIN).sizes == {"train": 20}


@pytest.mark.parametrize(
    ("fractions", "key", "given"),
    [
        ({"validation": 0.01}, "data.validation_fraction", 0.01),
        ({"test": 0.01}, "data.test_fraction", 0.01),
        ({"validation": 0.98}, "data.validation_fraction", 0.98),
        ({"validation": 0.5, "test": 0.5}, "data.validation_fraction", 0.5),
        ({"validation": -0.1}, "data.validation_fraction", -0.1),
        ({"test": 1.0}, "data.test_fraction", 1.0),
    ],
)
def test_fraction_that_leaves_an_empty_split_names_its_key(fractions, key, given):
    with pytest.raises(ConfigError) as caught:
        load(TRAIN, **fractions)
    assert (caught.value.key, caught.value.got) == (key, given)


def test_negative_seed_is_refused():
    with pytest.raises(ConfigError, match=r"data\.seed"):
        load(TRAIN, seed=-1)


def test_info_describes_the_training_part_only():
    loaded = load({"train": (TABLE, TABLE[:, 0])}, validation=0.5)
    targets = loaded.split("train")["targets"]
    part = TABLE[np.isin(TABLE[:, 0].astype(np.float32), targets)]
    assert len(part) == 10
    np.testing.assert_allclose(loaded.info.input_mean, part.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(loaded.info.input_std, part.std(axis=0), rtol=1e-12)
    np.testing.assert_allclose(loaded.info.target_mean, part[:, 0].mean(), rtol=1e-12)
    np.testing.assert_allclose(loaded.info.target_std, part[:, 0].std(), rtol=1e-12)
    assert (loaded.info.input_shape, loaded.info.target_shape, loaded.info.classes) == ((3,), (), None)


def test_info_counts_the_training_examples_of_each_class():
    labels = np.array([0, 2, 2, 0] * 5)
    loaded = load({"train": (TABLE[:20], labels), "test": (TABLE[:2], np.array([1, 1]))}, validation=0.5)
    assert loaded.info.class_counts == tuple(np.bincount(loaded.split("train")["targets"], minlength=3))
    assert sum(loaded.info.class_counts) == 10
    for targets in (TABLE[:20, 0], np.tile(labels[:, None], 2)):
        assert load({"train": (TABLE[:20], targets)}).info.class_counts == ()


def test_a_class_that_the_cut_leaves_without_training_examples_is_said():
    inputs, labels = np.arange(100.0)[:, None], np.array(["cat", "dog"] * 49 + ["emu", "gnu"])
    source = Source({"train": Split(inputs, labels)}, columns={"day": np.arange(100)})
    with pytest.warns(JaxtrainWarning, match=r"no training example left of 2 of 4 classes: emu, gnu"):
        load_dataset(source, Settings(order_by="day"))
    split = Source({"train": Split(inputs[:98], labels[:98]), "test": Split(inputs, np.array(["cat"] * 100))})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # all classes are trained on, though not all are tested
        load_dataset(split, Settings())


def test_images_are_described_by_channel():
    images = RANDOM.integers(0, 255, (50, 4, 5, 3), np.uint8) // np.array([1, 2, 5], np.uint8)
    info = load({"train": (images, np.zeros((50, 4, 5)))}).info
    np.testing.assert_allclose(info.input_mean, images.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(info.input_std, images.std(axis=(0, 1, 2)), rtol=1e-12)
    assert (info.target_mean, info.target_std, info.target_shape) == ((), (), (4, 5))


def test_many_images_are_described_by_evenly_spaced_ones():
    images = np.repeat(np.arange(2, dtype=np.uint8), 10_050).reshape(-1, 1, 1, 1)  # sorted, as data sets often are
    info = load({"train": (images, np.zeros(20_100))}).info
    assert info.input_mean == pytest.approx((0.5,), abs=1e-3)


@pytest.mark.parametrize(
    ("targets", "stated", "classes"),
    [(LABELS, None, 4), (LABELS, 7, 7), (LABELS > 1, None, 2), (LABELS / 1, None, None), (LABELS[:, None], None, None)],
)
def test_classes(targets, stated, classes):
    assert load({"train": (TABLE, targets)}, stated).info.classes == classes


@pytest.mark.parametrize("dtype", [np.float64, ">f4", np.float16, ml_dtypes.bfloat16, np.int64, np.uint8, bool])
def test_any_numeric_inputs_reach_the_model_as_normalised_float32(dtype):
    raw = np.abs(TABLE).astype(dtype)
    loaded = load({"train": (raw, LABELS)})
    batch = loaded.split("train")["inputs"]
    assert batch.dtype == (raw.dtype if dtype in (np.uint8, bool) else np.float32)  # small integers stay as they are
    inputs = np.asarray(normalise_inputs(batch, loaded.info))
    wide = raw.astype(np.float64)
    std = wide.std(axis=0)
    expected = (wide - wide.mean(axis=0)) / np.where(std == 0, 1, std)
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs, expected, atol=1e-5)


def test_targets_become_int32_or_float32():
    for targets, dtype in ((LABELS.astype(np.uint8), np.int32), (LABELS > 1, np.int32), (LABELS / 2, np.float32)):
        converted = load({"train": (TABLE, targets)}).split("train")["targets"]
        assert converted.dtype == dtype
        np.testing.assert_array_equal(converted, targets)


def test_constant_features_stay_finite_and_large_offsets_keep_their_detail():
    table = np.stack([np.full(20, 0.1), np.zeros(20), 1.7e9 + np.arange(20)], axis=1)
    loaded = load({"train": (table, LABELS)})
    inputs = loaded.split("train")["inputs"]
    assert loaded.info.input_std[:2] == (1.0, 1.0)
    np.testing.assert_allclose(inputs[:, :2], 0, atol=1e-6)
    np.testing.assert_allclose(inputs[:, 2], (np.arange(20) - 9.5) / np.arange(20).std(), rtol=1e-6)


def spread(seed, shape):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("offset", [0.0, -1e3, 1e6, -1e9])
@pytest.mark.parametrize("scale", [0.05, 1.0, 1e4])
@pytest.mark.parametrize("shape", [(40,), (40, 2)])
def test_numbers_far_from_0_are_standardised_and_restored_as_in_float64(offset, scale, shape):
    """Offsets are in standard deviations; the reference is NumPy in float64."""
    raw = scale * (offset + spread(1, shape))
    images = scale * (offset + spread(2, (40, 3, 2)))
    loaded = load({"train": (images, raw)}, standardised=True)
    placed = loaded.split("train")
    assert (placed["inputs"].dtype, placed["targets"].dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(placed["targets"], (raw - raw.mean(axis=0)) / raw.std(axis=0), atol=2e-6)
    means, stds = images.mean(axis=(0, 1)), images.std(axis=(0, 1))
    np.testing.assert_allclose(placed["inputs"], (images - means) / stds, atol=2e-6)
    restored = loaded.info.restore_targets(placed["targets"])
    assert restored.dtype == np.float64
    np.testing.assert_allclose(restored, raw, rtol=1e-15, atol=1e-6 * scale)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint64, np.float32, np.float64])
@pytest.mark.parametrize("rank", [2, 3, 4])
def test_inputs_of_any_rank_and_type_are_centred_before_they_are_rounded(dtype, rank):
    raw = np.asarray(1e6 + 5 * spread(3, (64, 2, 2, 3)[:rank])).astype(dtype)
    wide = raw.astype(np.float64)
    axes = tuple(range(rank - 1))
    expected = (wide - wide.mean(axis=axes)) / wide.std(axis=axes)
    loaded = load({"train": (raw, np.zeros(64))})
    np.testing.assert_allclose(loaded.split("train")["inputs"], expected, atol=2e-6)
    np.testing.assert_array_equal(loaded.info.normalise(raw), loaded.split("train")["inputs"])


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.uint64, bool])
def test_integer_targets_of_a_regression_are_numbers_however_large(dtype):
    largest = 1 if dtype is bool else min(np.iinfo(dtype).max, 2**62)  # counts up to it would need 2**65 bytes
    targets = changed(np.arange(20), 3, largest).astype(dtype)
    loaded = load({"train": (TABLE, targets), "test": (TABLE[:2], np.array([-1.5, 2.0]))}, standardised=True)
    assert (loaded.info.classes, loaded.info.class_counts) == (None, ())
    wide = targets.astype(np.float64)
    np.testing.assert_allclose(loaded.split("train")["targets"], (wide - wide.mean()) / wide.std(), atol=2e-6)
    expected = (np.array([-1.5, 2.0]) - wide.mean()) / wide.std()
    np.testing.assert_allclose(loaded.split("test")["targets"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("distinct", "largest", "accepted"),
    [(2, 9_999, True), (2, 10_000, False), (300, 999, True), (600, 59_999, True), (600, 60_000, False)],
)
def test_labels_with_gaps_are_taken_up_to_a_hundred_classes_for_each_that_occurs(distinct, largest, accepted):
    labels = np.append(np.arange(distinct - 1), largest)
    splits = {"train": (np.zeros((distinct, 1)), labels)}
    if accepted:
        assert load(splits).info.classes == largest + 1
    else:
        with pytest.raises(DataError, match=f"the label {largest} among {distinct} distinct ones"):
            load(splits)
    assert load(splits, largest + 1).info.classes == largest + 1, "a source may state any number"


def test_validation_and_test_are_normalised_by_the_training_part():
    loaded = load(TRAIN | {"test": (TABLE[:2] + 1, LABELS[:2])})
    expected = (TABLE[:2] + 1 - TABLE.mean(axis=0)) / TABLE.std(axis=0)
    np.testing.assert_allclose(loaded.split("test")["inputs"], expected, rtol=1e-5)
    np.testing.assert_array_equal(loaded.info.normalise(TABLE[:2] + 1), loaded.split("test")["inputs"])


def test_no_rows_are_prepared_as_none():
    """A call without steps compiles the program of seeds and of a search."""
    out = {"inputs": np.empty((0, 3), np.float32), "targets": np.empty(0, np.int32)}
    assert load(TRAIN).read("train", np.arange(0), out) is not None
    assert load(TRAIN).read("train", np.arange(0))["inputs"].shape == (0, 3)


def test_normalise_refuses_another_shape():
    with pytest.raises(DataError, match=r"\(5, 2\); expected the shape \(n, 3\)"):
        load(TRAIN).info.normalise(TABLE[:5, :2])


def test_info_survives_json_and_is_hashable():
    info = load(TRAIN | {"test": (TABLE, LABELS)}).info
    back = DataInfo.from_json(json.loads(json.dumps(info.to_json())))
    assert back == info
    assert hash(back) == hash(info)
    assert (back.input_mean, back.input_std) == (info.input_mean, info.input_std)
    moved = load({"train": (TABLE + 1, LABELS)}).info
    assert moved == info  # statistics of inputs do not affect the compiled program


def test_fingerprint_changes_with_data_and_cut():
    same = load(TRAIN, validation=0.2).fingerprint
    assert same == load({"train": (TABLE.copy(), LABELS.copy())}, validation=0.2).fingerprint
    others = [
        load({"train": (changed(TABLE, (19, 2), 0), LABELS)}, validation=0.2),
        load({"train": (TABLE, changed(LABELS, 19, 0))}, validation=0.2),
        load({"train": (TABLE.astype(np.float32), LABELS)}, validation=0.2),
        load(TRAIN, validation=0.2, seed=1),
        load(TRAIN, validation=0.3),
        load(TRAIN),
        load(TRAIN | {"test": (TABLE, LABELS)}, validation=0.2),
    ]
    assert len({same, *(other.fingerprint for other in others)}) == 8


def test_embedded_sets_load():
    loaded = load_dataset(digits(Path()), Settings(seed=0, validation_fraction=0.1, test_fraction=0.2))
    assert (loaded.info.input_shape, loaded.info.classes) == ((8, 8, 1), 10)
    assert loaded.sizes == {"train": 1258, "validation": 180, "test": 359}
    assert load_dataset(diabetes(Path()), Settings(seed=0, validation_fraction=0, test_fraction=0)).info.classes is None


@pytest.mark.needs("data")
def test_real_fashion_mnist_loads():
    loaded = load_dataset(
        fashion_mnist(Path(os.environ["JAXTRAIN_DATA"])), Settings(seed=0, validation_fraction=0.1, test_fraction=0.2)
    )
    assert loaded.sizes == {"train": 54_000, "validation": 6_000, "test": 10_000}
    raw = loaded.split("test")["inputs"]
    assert (raw.shape, raw.dtype) == ((10_000, 28, 28, 1), np.uint8)
    inputs = loaded.info.normalise(raw)
    assert (float(inputs.mean()), float(inputs.std())) == pytest.approx((0, 1), abs=0.02)


def test_a_limit_on_the_process_counts_as_free_memory():
    code = (
        "import resource; from jaxtrain.data.host_memory import free_memory, STATUS, _bytes_in\n"
        "used = _bytes_in(STATUS, 'VmData'); whole = free_memory()\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (used + 2**27, used + 2**27))\n"
        "assert whole > 2**27 >= free_memory() > 2**26, (whole, free_memory())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
