"""Data given in Python: lists, mappings, memory-mapped arrays and objects of other libraries are splits."""

import importlib
import io
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_runs import outcome, tiny

from jaxtrain import evaluate, load_run
from jaxtrain.core.metric import Mean
from jaxtrain.core.state import Task
from jaxtrain.data.dataset import Dataset
from jaxtrain.data.info import DataInfo
from jaxtrain.data.loading import load_dataset
from jaxtrain.data.readers.embedded import digits
from jaxtrain.data.readers.hub import hub
from jaxtrain.data.readers.image_folders import image_folder
from jaxtrain.data.settings import Settings
from jaxtrain.data.source import Source, as_source
from jaxtrain.errors import ConfigError, DataError, StorageError, UsageError
from jaxtrain.tasks.classification import classification
from jaxtrain.training.experiment import make_rules
from jaxtrain.training.train import train_and_evaluate
from jaxtrain.training.trained_run import _state_shapes

SPLIT = digits(Path()).splits["train"]
IMAGES = SPLIT.inputs[:300]
LABELS = SPLIT.targets[:300]
SHORT = {"train.duration": "20 steps"}


class MapStyle:
    """A data set as PyTorch's are: `__len__` and `__getitem__`, examples as pairs, and nothing else."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        if not isinstance(row, int):
            raise TypeError("a row is an int")
        return IMAGES[row], int(LABELS[row])


class Batched(MapStyle):
    """One that reads many examples at once."""

    calls = 0

    def __getitems__(self, rows: list[int]) -> list[dict[str, Any]]:
        Batched.calls += 1
        return [{"image": IMAGES[row], "label": LABELS[row]} for row in rows]


def splits(folder: Path) -> dict[str, Source | dict[str, Any]]:
    np.save(folder / "images.npy", IMAGES)
    mapped = np.load(folder / "images.npy", mmap_mode="r")
    pairs = [(image, int(label)) for image, label in zip(IMAGES, LABELS, strict=True)]
    records = [{"image": image, "label": label} for image, label in pairs]
    return {
        "a pair of arrays": {"train": (IMAGES, LABELS)},
        "a mapping of arrays": {"train": {"inputs": IMAGES, "targets": LABELS}},
        "a memory-mapped array": {"train": (mapped, LABELS)},
        "a list of pairs": {"train": pairs},
        "a list of mappings": Source({"train": records}, inputs="image", targets="label"),
        "a map-style data set": {"train": MapStyle()},
        "one that reads many": Source({"train": Batched()}, inputs="image", targets="label"),
    }


@pytest.mark.parametrize("feed", ["device", "stream"])
def test_every_form_of_a_split_gives_one_run(tmp_path, feed):
    found = {}
    for name, given in splits(tmp_path).items():
        config = tiny({"data.feed": feed, **SHORT})
        data = given if isinstance(given, Source) else Source(given)
        train_and_evaluate(config, tmp_path / name, data=data, quiet=True)
        found[name] = outcome(tmp_path / name)
    assert all(ended == found["a pair of arrays"] for ended in found.values())


@pytest.mark.needs("datasets")
@pytest.mark.filterwarnings("ignore")  # of the libraries that it stands on
def test_a_data_set_of_hugging_face_is_a_split(tmp_path):
    datasets: Any = importlib.import_module("datasets")

    columns = datasets.table.InMemoryTable.from_pydict({"image": IMAGES.tolist(), "label": LABELS.tolist()})
    table = datasets.Dataset(columns, fingerprint="made here")  # hashing it fails with some releases of pyarrow
    table.set_format("numpy")
    data = Source({"train": table}, inputs="image", targets="label")
    train_and_evaluate(tiny(SHORT), tmp_path / "hub", data=data, quiet=True)
    assert load_run(tmp_path / "hub").predict(IMAGES[:3]).shape == (3, 10)


@pytest.mark.needs("datasets")
@pytest.mark.filterwarnings("ignore")
def test_a_data_set_that_hugging_face_saved_trains_as_its_arrays(tmp_path):
    """Pictures have a channel, and labels keep their names."""
    datasets: Any = importlib.import_module("datasets")
    names = [f"the {label}" for label in range(10)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    pictures = []
    for image in IMAGES:
        file = io.BytesIO()
        Image.fromarray(image[..., 0]).save(file, "png")
        pictures.append({"bytes": file.getvalue(), "path": None})
    columns = datasets.table.InMemoryTable.from_pydict(
        {"image": pictures, "label": LABELS.tolist()}, schema=features.arrow_schema
    )
    datasets.Dataset(columns, fingerprint="made here").save_to_disk(str(tmp_path / "saved"))
    section = {"data.name": "hub", "data.folder": "saved", "data.path": str(tmp_path)}
    train_and_evaluate(tiny({**SHORT, **section}), tmp_path / "hub", quiet=True)
    data = Source({"train": (IMAGES, LABELS)}, class_names=tuple(names))
    train_and_evaluate(tiny(SHORT), tmp_path / "arrays", data=data, quiet=True)
    assert outcome(tmp_path / "hub") == outcome(tmp_path / "arrays")
    run = load_run(tmp_path / "hub")
    assert run.class_names == tuple(names)
    Image.fromarray(IMAGES[0, ..., 0]).save(tmp_path / "new.png")
    np.testing.assert_array_equal(run.predict_files(tmp_path / "new.png"), run.predict(IMAGES[:1]))


def save_pictures(folder: Path, contents: list[bytes | None]) -> None:
    """Saves pictures, each with the name of a class, by `datasets`."""
    datasets: Any = importlib.import_module("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    pictures = [content and {"bytes": content, "path": None} for content in contents]
    labels = [f"the {row % 2}" for row in range(len(contents))]
    columns = datasets.table.InMemoryTable.from_pydict(
        {"image": pictures, "label": labels}, schema=features.arrow_schema
    )
    datasets.Dataset(columns, fingerprint="made here").save_to_disk(str(folder))


@pytest.mark.needs("datasets")
@pytest.mark.filterwarnings("ignore")
def test_pictures_of_any_kind_and_size_that_hugging_face_saved_are_those_of_a_folder(tmp_path):
    contents: list[bytes | None] = []
    for row, (mode, size) in enumerate([("L", (8, 8)), ("RGB", (16, 12)), ("RGBA", (8, 8)), ("P", (9, 7))]):
        file = io.BytesIO()
        Image.fromarray(IMAGES[row, ..., 0]).convert("RGB").convert(mode).resize(size).save(file, "png")
        contents.append(file.getvalue())
        (tmp_path / f"folder/the {row % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"folder/the {row % 2}/{row}.png").write_bytes(file.getvalue())
    save_pictures(tmp_path / "saved", contents)
    with pytest.raises(DataError, match=r"saved: got images of the sizes .*saved, train, row 1.*Set data\.size"):
        hub(tmp_path, "saved")
    every: list[dict[str, Any]] = [{"size": (6, 5)}, {"size": (6, 5), "channels": 1, "resampling": "box"}]
    for knobs in every:
        found = hub(tmp_path, "saved", **knobs).splits["train"].inputs
        expected = image_folder(tmp_path, "folder", **knobs).splits["train"].inputs
        np.testing.assert_array_equal(found.read(np.array([0, 2, 1, 3])), expected.read(np.arange(4)))
    save_pictures(tmp_path / "bad", [*contents, b"junk", None])
    source = hub(tmp_path, "bad", size=(6, 5))
    assert [error.key for error in source.damaged] == [f"{tmp_path}/bad, train, row {row}" for row in (4, 5)]
    assert "no bytes in the column 'image'; expected a picture in each row" in str(source.damaged[1])
    with pytest.raises(DataError, match="bad, train, row 4: got a file that is no image"):
        source.splits["train"].inputs.read(np.array([4]))
    with pytest.raises(ConfigError, match=r"data\.size: got \(6, 5\); expected None, unless 'label' holds pictures"):
        hub(tmp_path, "saved", inputs="label", targets="image", size=(6, 5))


@pytest.mark.needs("grain")
def test_a_map_dataset_of_grain_is_a_split(tmp_path):
    grain: Any = importlib.import_module("grain")

    pairs = [(image, int(label)) for image, label in zip(IMAGES, LABELS, strict=True)]
    given: dict[str, Any] = {"grain": grain.MapDataset.source(pairs), "list": pairs}
    for name, split in given.items():
        train_and_evaluate(tiny(SHORT), tmp_path / name, data=Source({"train": split}), quiet=True)
    assert outcome(tmp_path / "grain") == outcome(tmp_path / "list")


@pytest.mark.needs("torch")
def test_a_data_set_of_torch_is_a_split(tmp_path):
    torch: Any = importlib.import_module("torch")

    tensors = torch.utils.data.TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(LABELS))
    train_and_evaluate(tiny(SHORT), tmp_path / "torch", data=Source({"train": tensors}), quiet=True)
    train_and_evaluate(tiny(SHORT), tmp_path / "arrays", data=Source({"train": (IMAGES, LABELS)}), quiet=True)
    assert outcome(tmp_path / "torch")["state_digest"] == outcome(tmp_path / "arrays")["state_digest"]


@pytest.mark.parametrize("folder", ["absent", "other"])
def test_a_folder_that_is_no_saved_data_set_is_refused_in_one_line(tmp_path, folder):
    (tmp_path / "other").mkdir()
    section = {"data.name": "hub", "data.folder": folder, "data.path": str(tmp_path)}
    with pytest.raises(DataError, match=r"hub|other") as refusal:
        train_and_evaluate(tiny({**SHORT, **section}), tmp_path / "run", quiet=True)
    assert len(str(refusal.value).splitlines()) == 1


def test_names_of_classes_are_kept_with_the_run(tmp_path):
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    data = Source({"train": [(image, str(names[label])) for image, label in zip(IMAGES, LABELS, strict=True)]})
    config = tiny({**SHORT, "task.metrics": ("recall_per_class", "confusion_matrix")})
    result = train_and_evaluate(config, tmp_path, data=data, quiet=True)
    evaluated = evaluate(tmp_path, data=data)["test"]
    for numbers in (result.test or {}, result.last["train"], result.last["validation"], evaluated):
        assert {f"recall_per_class/{name}" for name in names} <= numbers.keys()
        assert "confusion_matrix/three/eight" in numbers
    run = load_run(tmp_path)
    assert run.info.class_names == tuple(sorted(names))
    assert run.info.class_counts[sorted(names).index("two")] <= np.sum(LABELS == 2)
    assert run.predict(IMAGES[:2]).shape == (2, 10)


def test_a_run_resumes_and_is_evaluated_with_its_own_data_alone(tmp_path):
    """Other data are refused, and so is a command, which has none; the run's directory says what it was."""
    data = Source({"train": (IMAGES, LABELS)})
    train_and_evaluate(tiny(SHORT), tmp_path, data=data, quiet=True)
    assert evaluate(tmp_path, data=data)["step"] == 20
    with pytest.raises(DataError, match="fingerprint"):
        evaluate(tmp_path, data=Source({"train": (IMAGES[::-1], LABELS[::-1])}))
    with pytest.raises(DataError, match=r"data\.name: got 'memory'; expected .*data=Source"):
        evaluate(tmp_path)


def test_a_run_whose_batches_were_other_is_refused_in_one_line(tmp_path, monkeypatch):
    """As one of a version that normalised pictures on the host."""
    data = Source({"train": (IMAGES, LABELS)})
    with monkeypatch.context() as patched:
        patched.setattr("jaxtrain.data.info.is_small_integer", lambda dtype: False)
        train_and_evaluate(tiny(SHORT), tmp_path, data=data, quiet=True)
    assert load_run(tmp_path).predict(IMAGES[:1]).shape == (1, 10)
    with pytest.raises(StorageError, match=r"^data: got a run whose batches hold float32; expected .*Train it anew"):
        evaluate(tmp_path, data=data)


REFUSED = {
    "a generator": (lambda: ((i, i) for i in range(3)), r"train split: got an object of type generator, .* in order"),
    "a set": (lambda: {1, 2}, r"train split: got an object of type set"),
    "no examples": (lambda: [], "got no examples; expected at least one"),
    "a triple": (lambda: [(1, 2, 3)], "row 0: got an example of type tuple"),
    "another shape": (
        lambda: [(np.zeros(3), 0), (np.zeros(4), 1), (np.zeros(3), 0)],
        r"row 1: got inputs of shape \(4,\) and dtype float64; expected \(3,\) and float64, as in row 0",
    ),
    "no such field": (
        lambda: [{"inputs": np.zeros(3), "label": 1}],
        "row 0: got the fields inputs, label; expected 'tar",
    ),
    "a float label later": (lambda: [(np.zeros(2), 0), (np.zeros(2), 0.5), (np.ones(2), 1)], r"row 1: got targets"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_by_rows_is_refused_in_one_line(kind):
    make, said = REFUSED[kind]
    with pytest.raises(DataError, match=said) as refusal:
        load_dataset(as_source({"train": make()}, "mine"), Settings(seed=0, validation_fraction=0, test_fraction=0))
    assert len(str(refusal.value).splitlines()) == 1


class Broken(MapStyle):
    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        if row == 7:
            raise OSError("disk error")
        return super().__getitem__(row)


def test_an_example_that_cannot_be_read_is_named_by_its_row():
    with pytest.raises(
        DataError, match=r"train split, row 7: got an example that cannot be read \(OSError: disk error"
    ):
        load_dataset(as_source({"train": Broken()}, "mine"), Settings(seed=0, validation_fraction=0, test_fraction=0))


def _examples(at: int, value: float) -> list[tuple[np.ndarray, int]]:
    """Examples of which the one at row `at` holds a value."""
    inputs = np.ones((40, 3))
    inputs[:, 0] = np.arange(40)
    inputs[at, 1] = value
    return [(row, i % 3) for i, row in enumerate(inputs)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("feed", ["device", "stream"])
def test_a_value_that_is_no_number_is_named_by_its_row_or_passed_over(feed, value):
    """Also where all examples are read into memory, and by the row of the split, not of a batch."""

    def load(skip: int) -> tuple[Dataset, list[np.ndarray]]:
        source = as_source(Source({"train": _examples(29, value)}), "memory")
        dataset = load_dataset(source, Settings(feed=feed, skip_bad=skip))
        return dataset, [dataset.read(name, np.arange(size))["inputs"] for name, size in dataset.sizes.items()]

    with pytest.raises(DataError, match=r"train split: got inputs\[29, 1\] = (nan|inf); expected finite numbers"):
        load(0)
    dataset, read = load(1)
    assert np.isfinite(dataset.info.input_mean).all()
    assert np.isfinite(np.concatenate(read)).all()
    assert dataset.bad is not None
    assert len(dataset.bad.messages) == 1


def test_integers_of_a_regression_are_numbers_however_examples_are_read():
    source = as_source(Source({"train": [(row, -label) for row, label in _examples(0, 1.0)]}), "memory")
    dataset = load_dataset(source, Settings(feed="stream"), standardised=True)
    assert np.isfinite(dataset.read("train", np.arange(4))["targets"]).all()


def test_a_label_beyond_the_stated_classes_is_named_where_a_mask_is_read():
    masks = [(np.ones((2, 2, 1)), np.full((2, 2), i % 4)) for i in range(40)]
    with pytest.raises(DataError, match=r"targets\[3, 0, 0\] = 3; expected 0 to 2"):
        load_dataset(as_source(Source({"train": masks}, classes=3), "memory"), Settings(test_fraction=0.0))


# Data frames, columns and names


def _table(targets: Any, **given: Any) -> Source:
    return as_source(Source({"train": ({"x": np.arange(40.0), "g": ["u", "v"] * 20}, targets)}, **given), "memory")


@pytest.mark.parametrize("settings", [{}, {"stratify": True}, {"sample": "balanced"}, {"group_by": "x"}])
def test_targets_of_a_table_may_be_a_list_and_its_columns_group_rows(settings):
    assert load_dataset(_table([0, 1, 1, 0] * 10), Settings(**settings)).info.classes == 2


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ([0, 1] * 25, "got 50 targets for 40 inputs"),
        (3, r"got targets of shape \(\)"),
        ([None] * 40, "got targets of dtype object"),
    ],
)
def test_targets_that_do_not_fit_a_table_are_refused(targets, words):
    with pytest.raises(DataError, match=words):
        load_dataset(_table(targets), Settings(stratify=True))


@pytest.mark.parametrize("times", [[np.nan, *range(39)], [None, *range(39)], ["", *["2020"] * 39]])
def test_a_row_without_a_time_is_in_no_split(times):
    with pytest.raises(DataError, match="no value in the column 't' of row 0, and 0 other rows"):
        load_dataset(_table([0, 1] * 20, columns={"t": np.array(times)}), Settings(order_by="t"))


def test_missing_groups_of_objects_are_one_group():
    groups = [None] * 20 + ["a"] * 10 + ["b"] * 10
    dataset = load_dataset(
        _table([0, 1] * 20, columns={"who": groups}),
        Settings(group_by="who", validation_fraction=0.0, test_fraction=0.25),
    )
    assert sorted(dataset.sizes.values()) in ([10, 30], [20, 20])


def test_two_classes_of_one_name_are_refused():
    with pytest.raises(DataError, match="the class name 'a' twice"):
        _table([0, 1, 2, 3] * 10, class_names=("a", "b", "a", "c"))


def test_the_fingerprint_covers_weights_and_the_fields_of_examples():
    class Own(list[dict[str, Any]]):
        _fingerprint = "of all columns"

    weighted = [
        load_dataset(_table([0, 1] * 20, columns={"w": w}), Settings(sample="w")).fingerprint
        for w in (np.ones(40), np.arange(40))
    ]
    examples = Own([{"x": np.ones(3), "a": i % 2, "b": i % 3} for i in range(40)])
    fields = [
        load_dataset(as_source(Source({"train": examples}, inputs="x", targets=name), "memory"), Settings()).fingerprint
        for name in "ab"
    ]
    assert len({*weighted, *fields}) == 4


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_splits_of_unlike_dtypes_are_prepared_alike_on_the_host_and_the_devices(dtype):
    images = IMAGES.reshape(len(IMAGES), -1).astype(np.uint8)
    given = Source({"train": (images, LABELS), "test": (images[:8].astype(dtype), LABELS[:8])})
    dataset = load_dataset(as_source(given, "memory"), Settings())
    out = {"inputs": np.empty((8, 64), dataset.example["inputs"].dtype), "targets": np.empty(8, np.int32)}
    np.testing.assert_array_equal(dataset.read("test", np.arange(8), out)["inputs"], dataset.split("test")["inputs"])


@pytest.mark.parametrize("feed", ["device", "stream"])
def test_examples_of_python_that_cannot_be_read_are_passed_over(feed):
    class Broken(list[tuple[np.ndarray, int]]):
        def __getitem__(self, row: Any) -> Any:
            if row in (5, 6, 200):
                raise OSError("no such file")
            return super().__getitem__(row)

    data = Broken([(np.full(3, i), i % 3) for i in range(1000)])
    dataset = load_dataset(as_source(Source({"train": data}), "memory"), Settings(feed=feed, skip_bad=3))
    assert dataset.fingerprint
    assert dataset.bad is not None
    assert [message.partition(":")[0][-6:] for message in dataset.bad.messages] == [" row 5", " row 6", "ow 200"]
    rows = dataset.parts["train"].rows
    assert rows is not None
    assert dataset.info.input_mean[0] == rows[~np.isin(rows, (5, 6, 200))].mean()
    data[7] = (np.full(3, -1), 0)
    again = load_dataset(as_source(Source({"train": data}), "memory"), Settings(feed=feed, skip_bad=3))
    assert again.fingerprint != dataset.fingerprint


def test_examples_of_python_are_read_few_times():
    class Counting(list[tuple[np.ndarray, int]]):
        reads = 0

        def __getitem__(self, row: Any) -> Any:
            Counting.reads += 1
            return super().__getitem__(row)

    data = Counting([(np.full(3, i), i % 3) for i in range(1000)])
    dataset = load_dataset(as_source(Source({"train": data}), "memory"), Settings(feed="stream"))
    assert dataset.fingerprint
    assert Counting.reads <= 3_000  # for labels, statistics twice of the training part, and the fingerprint


# Further fields


def weighted(model, loss, info):
    """A task of one's own that weighs each example by a further field of the batch."""
    plain = classification(model, loss, info)

    def weigh(params, model_state, batch, key, values, train):
        assert batch["weight"].dtype == "float32"
        assert batch["ink"].dtype == "uint8"
        mask = batch.get("mask", 1.0) * batch["weight"]
        _, (model_state, metrics) = plain.loss(params, model_state, {**batch, "mask": mask}, key, values, train)
        own = metrics["loss"]
        return own.sum / own.count, (model_state, {"loss": Mean(own.sum, own.count)})

    return Task(plain.init, weigh, plain.predict)


def with_fields(kind: str) -> Source:
    weight = np.arange(300) % 3 / 2.0
    ink = IMAGES.reshape(300, -1)[:, :5].astype(np.uint8)
    if kind == "arrays":
        train: Any = {"inputs": IMAGES, "targets": LABELS, "weight": weight, "ink": ink}
    else:
        rows = zip(IMAGES, LABELS, weight, ink, strict=True)
        train = [{"inputs": x, "targets": y, "weight": w, "ink": i} for x, y, w, i in rows]
    return Source({"train": train}, extra=("weight", "ink"))


def test_a_task_of_ones_own_gets_further_fields_in_the_batch(tmp_path):
    digests = {}
    for kind in ("arrays", "examples"):
        for feed in ("device", "host"):
            name = f"{kind} {feed}"
            given = tiny({"data.feed": feed, "task.name": f"{__name__}:weighted", **SHORT})
            result = train_and_evaluate(given, tmp_path / name, data=with_fields(kind), quiet=True)
            digests[name] = result.state_digest
    assert len(set(digests.values())) == 1
    plain = Source({"train": (IMAGES, LABELS)})
    assert (
        train_and_evaluate(tiny(SHORT), tmp_path / "plain", data=plain, quiet=True).state_digest not in digests.values()
    )


def test_further_fields_follow_their_rows_and_change_the_fingerprint():
    source = with_fields("arrays")
    dataset = load_dataset(as_source(source, "mine"), Settings())
    rows = dataset.parts["train"].rows
    assert rows is not None
    np.testing.assert_array_equal(dataset.split("train")["weight"], (rows % 3 / 2.0).astype(np.float32))
    places = np.array([5, 0, 7])
    np.testing.assert_array_equal(dataset.read("train", places)["ink"], source.splits["train"]["ink"][rows[places]])
    changed = {**source.splits["train"], "weight": np.ones(300)}
    other = load_dataset(as_source(Source({"train": changed}, extra=("weight", "ink")), "mine"), Settings())
    assert other.fingerprint != dataset.fingerprint


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (np.ones(299), "got 299 of 'weight' for 300 inputs; expected one for each example"),
        (np.full(300, np.nan), r"got weight\[0\] = nan; expected finite numbers"),
        (np.full(300, 2**40), "got weight of dtype int64 beyond int32; expected integers below"),
        (np.array(["a"] * 300), "got weight of dtype <U1"),
        (None, "got the fields .* expected 'weight' among them"),
    ],
)
def test_a_further_field_that_cannot_be_used_is_one_line(weight, expected):
    fields = {"inputs": IMAGES, "targets": LABELS} | ({} if weight is None else {"weight": weight})
    with pytest.raises(DataError, match=expected):
        load_dataset(as_source(Source({"train": fields}, extra=("weight",)), "mine"), Settings(test_fraction=0)).split(
            "train"
        )


def sized(model, loss, info):
    """A task whose parameters have the shape of a further field."""
    task = weighted(model, loss, info)

    def init(key, batch, values):
        params, state = task.init(key, batch, values)
        return {**params, "scale": jnp.ones(batch["ink"].shape[1:])}, state

    return task._replace(init=init)


def test_a_run_whose_init_reads_a_further_field_is_loaded(tmp_path):
    config = tiny({"task.name": f"{__name__}:sized", **SHORT})
    train_and_evaluate(config, tmp_path / "run", data=with_fields("arrays"), quiet=True)
    run = load_run(tmp_path / "run")
    assert run.info.extra == (("weight", (), "float32"), ("ink", (5,), "uint8"))
    assert run.state.params["scale"].shape == (5,)
    assert run.predict(IMAGES[:2]).shape == (2, 10)
    info = {name: value for name, value in run.info.to_json().items() if name != "extra"}
    earlier = DataInfo.from_json(json.loads(json.dumps(info)))
    with pytest.raises(UsageError, match=r"^data: got a run whose task reads the field 'ink', which earlier versions"):
        _state_shapes(run.config, earlier, make_rules(run.config, earlier))


def nested(row):
    return {"image": {"pixels": np.full((2, 2, 1), row, np.uint8), "size": {"height": 2}}, "meta": {"label": row % 2}}


def test_fields_in_fields_are_named_with_dots():
    names = {"inputs": "image.pixels", "targets": "meta.label", "extra": ("image.size.height",)}
    examples = [nested(row) for row in range(20)]
    by_rows = load_dataset(as_source(Source({"train": examples}, **names), "mine"), Settings())
    whole = {"image": {"pixels": np.stack([example["image"]["pixels"] for example in examples])}}
    whole |= {"meta": {"label": np.arange(20) % 2}, "image.size.height": np.full(20, 2)}
    in_arrays = load_dataset(as_source(Source({"train": whole}, **names), "mine"), Settings())
    for dataset in (by_rows, in_arrays):
        rows = dataset.read("train", np.array([3, 0]))
        places = dataset.parts["train"].source_rows(np.array([3, 0]))
        np.testing.assert_array_equal(rows["inputs"][:, 0, 0, 0], places)
        np.testing.assert_array_equal(rows["targets"], places % 2)
        np.testing.assert_array_equal(rows["image.size.height"], [2, 2])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            {"inputs": "image", "targets": "meta.label"},
            r"row 0: got the field 'image' that holds image.pixels, image.size.height; expected .*'image.pixels'",
        ),
        (
            {"inputs": "image.pixel", "targets": "meta.label"},
            r"got the fields image.pixels, .*; expected 'image.pixel' among them. Did you mean 'image.pixels'",
        ),
    ],
)
def test_a_field_in_a_field_that_is_not_named_is_one_line(names, expected):
    with pytest.raises(DataError, match=expected) as error:
        as_source(Source({"train": [nested(row) for row in range(4)]}, **names), "mine")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda texts, labels: list(zip(texts, labels, strict=True)),
        lambda texts, labels: [{"inputs": t, "targets": n} for t, n in zip(texts, labels, strict=True)],
        lambda texts, labels: (texts, labels),
        lambda texts, labels: {"inputs": np.array(texts, object), "targets": np.array(labels)},
    ],
)
def test_texts_in_any_form_are_examples_of_unlike_length(make):
    texts, labels = [f"{'ab' * (row % 5)}c" for row in range(20)], ["x", "y"] * 10
    dataset = load_dataset(as_source(Source({"train": make(texts, labels)}), "mine"), Settings())
    assert dataset.info.class_names == ("x", "y")
    assert dataset.info.texts is not None
    rows = dataset.read("train", np.arange(4))["inputs"]
    assert [dataset.info.texts.decode(row) for row in rows] == [
        texts[place] for place in dataset.parts["train"].source_rows(np.arange(4))
    ]
