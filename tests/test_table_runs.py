"""Each source of tables trains a small run on its files, and predicts from the same files."""

import csv as csv_format
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import result_of, tiny

from jaxtrain.data import load
from jaxtrain.data.readers.embedded import digits
from jaxtrain.errors import ConfigError, DataError, JaxtrainWarning
from jaxtrain.search.run import run_search
from jaxtrain.training.experiment import build
from jaxtrain.training.train import train_and_evaluate
from jaxtrain.training.trained_run import load_run

COUNT = 300


def people():
    """Rows of numbers and categories, some missing, whose class is a rule of both."""
    draw = np.random.default_rng(0)
    age = draw.normal(40, 10, COUNT).round(1).tolist()
    job = draw.choice(["nurse", "cook", "pilot"], COUNT).tolist()
    return [
        {
            "age": None if i % 17 == 0 else age[i],
            "job": None if i % 19 == 0 else job[i],
            "noise": int(draw.integers(-3, 3)),
            "id": f"person {i}",
            "pay": "high" if age[i] > 40 or job[i] == "pilot" else "low",
        }
        for i in range(COUNT)
    ]


PEOPLE = people()
NAMES = list(PEOPLE[0])


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    file = io.StringIO()
    writer = csv_format.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def as_json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    pa: Any = pytest.importorskip("pyarrow")
    pq: Any = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=32)
    return file.getvalue()


WRITERS = {"csv": as_csv, "jsonl": as_json_lines, "parquet": as_parquet}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Trains a run on the same rows in each format, and returns {name: (folder, its run)}."""
    trained = {}
    for name in WRITERS:
        folder = tmp_path_factory.mktemp(name)
        (folder / "people").write_bytes(WRITERS[name](PEOPLE))
        train_and_evaluate(config_of(folder, name, file="people", target="pay", drop=("id",)), folder, quiet=True)
        trained[name] = (folder, load_run(folder))
    return trained


def config_of(folder, name, **knobs):
    """Resolves the config of a tiny run on a source in this folder."""
    section = {f"data.{knob}": value for knob, value in {"name": name, "path": str(folder), **knobs}.items()}
    return tiny({**section, "optimizer.learning_rate": 0.01})


@pytest.mark.parametrize("name", WRITERS)
def test_a_run_predicts_from_files_like_its_own(runs, name):
    folder, run = runs[name]
    logits = run.predict_files(folder / "people")
    assert run.class_names == ("high", "low")
    expected = np.array([run.class_names.index(row["pay"]) for row in PEOPLE])
    assert (logits.argmax(axis=1) == expected).mean() > 0.9
    without = [{key: row[key] for key in ("job", "noise", "age")} for row in PEOPLE[:9]]
    (folder / "new").write_bytes(WRITERS[name](without))
    few = run.predict_files(folder / "new")
    np.testing.assert_allclose(few, logits[:9], rtol=1e-5, atol=1e-6)  # by a program of another size
    columns = {key: [row[key] for row in PEOPLE[:9]] for key in ("age", "job", "noise")}
    np.testing.assert_array_equal(run.predict(columns), few)
    (folder / "other").write_bytes(WRITERS[name]([{"age": 3, "jobs": "cook", "noise": 1}]))
    with pytest.raises(DataError, match=r"other: got no column 'job' but 'jobs'.*Did you mean 'jobs'"):
        run.predict_files(folder / "other")


def test_all_formats_give_the_same_run(runs):
    first, *others = (run.predict_files(folder / "people") for folder, run in runs.values())
    for other in others:
        np.testing.assert_array_equal(first, other)


TABULAR = {
    "model.name": "tabular_mlp",
    "model.hidden": (16,),
    "model.dropout": None,
    "train.duration": "100 steps",
    "data.name": "csv",
    "data.target": "pay",
    "data.drop": ("id",),
    "data.quantiles": 20,
    "optimizer.learning_rate": 0.01,
}


@pytest.fixture(scope="module")
def tabular(tmp_path_factory):
    """Trains a model that takes categories as codes; returns the folder of the file, and the run."""
    folder = tmp_path_factory.mktemp("tabular")
    (folder / "people").write_bytes(as_csv(PEOPLE))
    config = tiny({**TABULAR, "data.path": str(folder), "data.file": "people"})
    train_and_evaluate(config, folder / "run", quiet=True)
    return folder, load_run(folder / "run")


def test_a_model_of_codes_predicts_from_files_columns_and_codes(tabular):
    folder, run = tabular
    logits = run.predict_files(folder / "people")
    expected = np.array([run.class_names.index(row["pay"]) for row in PEOPLE])
    assert (logits.argmax(axis=1) == expected).mean() > 0.9
    assert run.state.params["embeddings"].shape == (5, 8)  # unknown, three jobs, missing
    columns = {key: [row[key] for row in PEOPLE] for key in ("job", "noise", "age")}
    np.testing.assert_array_equal(run.predict(columns), logits)
    codes = run.info.encode(columns)
    assert run.info.encoding is not None
    place = run.info.encoding.names.index("job")
    assert set(codes[:, place]) == {1, 2, 3, 4}
    np.testing.assert_array_equal(run.predict(codes), logits)
    for wrong in (5, 1.5, -1):
        codes[7, place] = wrong
        with pytest.raises(DataError, match=rf"^inputs: got {wrong:g} for 'job' in row 7; expected a code .* to 4\."):
            run.predict(codes)


def test_an_unknown_category_is_said_and_is_none_of_those_of_training(tabular):
    _, run = tabular
    person = {"age": [41.0, 41.0], "noise": [0, 0]}
    with pytest.warns(JaxtrainWarning, match="1 of 2 rows with a category of 'job' that no training row has"):
        unknown, cook = run.predict({**person, "job": ["astronaut", "cook"]})
    assert abs(unknown - cook).max() > 1e-3
    assert not run.state.params["embeddings"][0].any()


@pytest.mark.parametrize("feed", ["host", "stream"])
def test_codes_are_fed_alike_from_everywhere(tabular, feed):
    folder, run = tabular
    config = {**run.config, "data": {**run.config["data"], "feed": feed}}
    result = train_and_evaluate(config, folder / feed, quiet=True)
    assert result.state_digest == result_of(folder / "run")["state_digest"]


def test_bfloat16_does_not_round_codes(tmp_path):
    words = [f"{i:03}" for i in range(600)]  # bfloat16 holds integers up to 256
    lines = [f"{word},{int(word) % 2}" for word in words * 5]
    (tmp_path / "words").write_text("\n".join(["word,odd", *lines]))
    knobs = {"data.file": "words", "data.target": "odd", "data.drop": (), "data.categories": ("word",)}
    short = {"data.quantiles": None, "train.precision": "bfloat16", "train.duration": "2 steps"}
    train_and_evaluate(tiny({**TABULAR, **knobs, **short, "data.path": str(tmp_path)}), tmp_path / "run", quiet=True)
    logits = load_run(tmp_path / "run").predict({"word": words})
    assert len(np.unique(logits, axis=0)) > 550  # words that share a code share their logits


def test_models_of_codes_and_of_columns_are_searched_together(tabular):
    folder, run = tabular
    space = {"model": {"name": ("choice", ("tabular_mlp", "mlp"))}}
    search = {"search.space": space, "search.sampler": "grid", "search.trials": None, "search.batch": 2}
    short = {"train.duration": "20 steps", "search.seeds": 1, "model.hidden": (16,)}
    config = tiny({**TABULAR, **search, **short, "data.path": str(folder), "data.file": "people"})
    run_search(config, folder / "search", quiet=True)
    trials = [json.loads(line) for line in (folder / "search" / "search" / "trials.jsonl").read_text().splitlines()]
    assert {trial["point"]["model.name"]: trial["status"] for trial in trials} == {"tabular_mlp": "done", "mlp": "done"}
    assert run.info.coded


@pytest.mark.parametrize("given", [{"augment.mixup": True}, {"augment.flip": True}, {"eval.augment": ("flip",)}])
def test_a_table_as_codes_has_no_augmentation_of_arrays(given):
    config = tiny({"data.name": "breast_cancer", "model.name": "tabular_mlp", "model.hidden": (16,), **given})
    with pytest.raises(ConfigError, match=r"augment\S*: got a table as .*codes.*; expected inputs that are one array"):
        build(config)


def test_quantiles_and_codes_need_rows(tmp_path):
    with pytest.raises(ConfigError, match=r"^data.quantiles: got 20; expected None for inputs that are no table"):
        train_and_evaluate(tiny({"data.quantiles": 20}), tmp_path, quiet=True)
    with pytest.raises(DataError, match=r"inputs of shape \(8, 8, 1\) an example; expected a table or rows of numbers"):
        train_and_evaluate(tiny({"model.name": "tabular_mlp"}), tmp_path, quiet=True)


def test_rows_of_numbers_are_a_table_without_categories(tmp_path):
    config = tiny({"data.name": "breast_cancer", "model.name": "tabular_mlp", "model.hidden": (16,)})
    result = train_and_evaluate(config, tmp_path, quiet=True)
    assert result.last["validation"]["accuracy"] > 0.85


def test_rows_are_grouped_by_a_column_that_is_no_input(tmp_path):
    rows = [{**row, "id": f"house {i // 10}"} for i, row in enumerate(PEOPLE)]
    for name, write in WRITERS.items():
        (tmp_path / name).write_bytes(write(rows))
        config = config_of(tmp_path, name, file=name, target="pay", drop=("id",), group_by="id")
        parts = load(config["data"]).parts
        houses = [set((part.rows // 10).tolist()) for part in parts.values() if part.rows is not None]
        assert len(houses) == 3
        assert sum(map(len, houses)) == len(set.union(*houses))


def test_images_in_parquet_train_and_predict(tmp_path):
    source = digits(tmp_path).splits["train"]
    images: Any = source.inputs[:COUNT, ..., 0] * 15
    rows = []
    for image, label in zip(images, source.targets.tolist(), strict=False):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        rows.append({"image": {"bytes": file.getvalue(), "path": None}, "label": label})
    (tmp_path / "digits.parquet").write_bytes(as_parquet(rows))
    config = config_of(tmp_path, "parquet", file="digits.parquet", target="label", feed="stream")
    train_and_evaluate(config, tmp_path / "run", quiet=True)
    run = load_run(tmp_path / "run")
    logits = run.predict_files(tmp_path / "digits.parquet")
    np.testing.assert_array_equal(logits, run.predict(images[..., None]))
    assert (logits.argmax(axis=1) == source.targets[:COUNT]).mean() > 0.5
    Image.fromarray(images[7]).save(tmp_path / "seven.png")
    np.testing.assert_array_equal(run.predict_files(tmp_path / "seven.png"), run.predict(images[7:8, ..., None]))
