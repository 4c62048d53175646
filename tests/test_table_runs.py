"""Each source of tables trains a small run on its files, and predicts from the same files."""

import csv as csv_format
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import tiny

from jaxtrain.data import load
from jaxtrain.data.readers.embedded import digits
from jaxtrain.errors import DataError
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
    np.testing.assert_array_equal(run.predict_files(folder / "new"), logits[:9])
    columns = {key: [row[key] for row in PEOPLE[:9]] for key in ("age", "job", "noise")}
    np.testing.assert_array_equal(run.predict(columns), logits[:9])
    (folder / "other").write_bytes(WRITERS[name]([{"age": 3, "jobs": "cook", "noise": 1}]))
    with pytest.raises(DataError, match=r"other: got no column 'job' but 'jobs'.*Did you mean 'jobs'"):
        run.predict_files(folder / "other")


def test_all_formats_give_the_same_run(runs):
    first, *others = (run.predict_files(folder / "people") for folder, run in runs.values())
    for other in others:
        np.testing.assert_array_equal(first, other)


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
