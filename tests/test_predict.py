"""The command `predict`: each kind of file, each output, and what cannot be read; equal to `Run.predict`."""

import csv
import gzip
import json
import shutil
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss, r2_score
from tiny_runs import PATIENCE, start, tiny

from jaxtrain import Source, export_run, load_export, load_run
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import DataError, JaxtrainError, JaxtrainWarning, StorageError, UsageError
from jaxtrain.export.generation import greedy_distance
from jaxtrain.main import main
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.prediction import arrays
from jaxtrain.prediction.examples import Bad
from jaxtrain.prediction.models import ExportModel, RunModel
from jaxtrain.prediction.opening import open_examples
from jaxtrain.prediction.rows import Layout
from jaxtrain.prediction.run import Predicted, predict_to_file
from jaxtrain.prediction.writers import JsonlWriter
from jaxtrain.training.train import train_and_evaluate

SHORT = {"train.duration": "20 steps", "eval.every": "20 steps"}
COUNT = 200


def predict(workdir: Path, data: str | Path | list[str], output: Path, **more: Any) -> Predicted:
    """Predicts by a run; returns what the command reports."""
    words = data if isinstance(data, list) else [str(data)]
    return predict_to_file(RunModel(load_run(workdir)), words, output, **more)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def column(path: Path, name: str) -> list[str]:
    return [row[name] for row in rows_of(path)]


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return dict(archive)


def probabilities(logits: np.ndarray) -> np.ndarray:
    exact = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exact / exact.sum(axis=1, keepdims=True)


# Arrays


def images() -> tuple[np.ndarray, np.ndarray]:
    inputs, targets = load_digits(return_X_y=True)
    return inputs.reshape(-1, 8, 8, 1).astype(np.uint8), targets


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on pictures as bytes; exported."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    train_and_evaluate(tiny(SHORT), folder, quiet=True)
    assert main(["export", f"--workdir={folder}", "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs with their targets."""
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    inputs, targets = images()
    np.savez(path, inputs=inputs, targets=targets)
    return path


def test_csv_holds_classes_and_probabilities_and_metrics_are_those_of_scikit_learn(
    digits: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "out.csv"
    assert main(["predict", f"--workdir={digits}", f"--data={archive}", f"--output={output}"]) == 0
    inputs, targets = images()
    logits = load_run(digits).predict(inputs)
    rows = rows_of(output)
    assert [row["id"] for row in rows] == [str(i) for i in range(len(inputs))]
    assert [int(row["class"]) for row in rows] == logits.argmax(axis=1).tolist()
    found = np.array([[float(row[f"p({i})"]) for i in range(10)] for row in rows])
    np.testing.assert_allclose(found, probabilities(logits), atol=1e-6)
    assert [float(row["probability"]) for row in rows] == found.max(axis=1).tolist()
    said = capsys.readouterr().out
    accuracy = accuracy_score(targets, logits.argmax(axis=1))
    loss = log_loss(targets, probabilities(logits))
    assert f"accuracy {accuracy:.4g}  loss {loss:.4g} (on 1,797 examples with a target)" in said


def test_arrays_hold_the_predictions_of_the_run_to_the_bit(digits: Path, archive: Path, tmp_path: Path):
    predict(digits, archive, tmp_path / "out.npz")
    found = arrays_of(tmp_path / "out.npz")
    np.testing.assert_array_equal(found["logits"], load_run(digits).predict(images()[0]))
    np.testing.assert_array_equal(found["class"], found["logits"].argmax(axis=1))
    assert found["id"].tolist() == list(range(1797))
    assert found["class_names"].tolist() == list("0123456789")


def test_all_tables_hold_the_same_rows(digits: Path, archive: Path, tmp_path: Path):
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    for ending in ("csv", "jsonl", "parquet"):
        predict(digits, archive, tmp_path / f"out.{ending}")
    of_csv = [{k: float(v) for k, v in row.items()} for row in rows_of(tmp_path / "out.csv")]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert of_csv == [{**line, "class_name": float(line["class_name"])} for line in lines]
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == lines


def test_an_export_predicts_without_the_run(digits: Path, archive: Path, tmp_path: Path):
    shutil.copytree(digits / "export", tmp_path / "export")
    by_run = predict(digits, archive, tmp_path / "run.npz")
    model = ExportModel(load_export(tmp_path / "export"))
    by_export = predict_to_file(model, [str(archive)], tmp_path / "export.npz")
    found, expected = (arrays_of(tmp_path / name) for name in ("export.npz", "run.npz"))
    assert set(found) == set(expected)
    np.testing.assert_array_equal(found["logits"], load_export(digits / "export").predict(images()[0])["logits"])
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-6)
    assert by_export.metrics == pytest.approx(by_run.metrics, rel=1e-5)


def test_an_export_that_does_not_say_how_files_are_read_is_refused(digits: Path, archive: Path, tmp_path: Path):
    model = load_export(digits / "export")
    earlier = {name: value for name, value in model.description.items() if name != "config"}
    object.__setattr__(model, "description", earlier)
    with pytest.raises(StorageError, match=r"model\.json: got an export that does not say how files are read"):
        predict_to_file(ExportModel(model), [str(archive)], tmp_path / "out.csv")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("named", ["", "t10k-images-idx3-ubyte.gz"], ids=["folder", "file"])
def test_idx_files_have_their_labels_beside_them(named: str, zipped: bool, digits: Path, tmp_path: Path):
    inputs, targets = images()
    header = struct.pack(">IIII", 0x803, *inputs.shape[:3])
    folder = tmp_path / "idx"
    folder.mkdir()
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + inputs.tobytes()))
    (folder / "notes.txt").write_text("not read")
    plain = predict(digits, folder / named, tmp_path / "a.npz")
    assert plain.measured == 0
    labels = struct.pack(">II", 0x801, len(targets)) + bytes(targets.tolist())
    beside = folder / f"t10k-labels-idx1-ubyte{'.gz' if zipped else ''}"
    beside.write_bytes(gzip.compress(labels) if zipped else labels)
    labelled = predict(digits, folder / named, tmp_path / "a.npz")
    logits = arrays_of(tmp_path / "a.npz")["logits"]
    assert labelled.metrics["accuracy"] == pytest.approx(accuracy_score(targets, logits.argmax(axis=1)))


def test_several_files_and_patterns_are_read_in_their_order(digits: Path, tmp_path: Path):
    inputs, _ = images()
    for name, part in (("b", inputs[:3]), ("a", inputs[3:7])):
        np.save(tmp_path / f"{name}.npy", part)
    predict(digits, str(tmp_path / "*.npy"), tmp_path / "out.csv")
    assert column(tmp_path / "out.csv", "id") == [
        *(f"{tmp_path / 'a.npy'}:{i}" for i in range(4)),
        *(f"{tmp_path / 'b.npy'}:{i}" for i in range(3)),
    ]
    expected = load_run(digits).predict(np.concatenate([inputs[3:7], inputs[:3]])).argmax(axis=1)
    assert column(tmp_path / "out.csv", "class") == [str(i) for i in expected]


def test_never_more_than_four_programs_are_compiled(digits: Path, archive: Path, tmp_path: Path):
    """Whatever the number of examples, those of the metrics included."""
    model = RunModel(load_run(digits))
    inputs = images()[0]
    jax.clear_caches()  # earlier tests may have compiled the same
    with count_compilations() as compiled:
        predict_to_file(model, [str(archive)], tmp_path / "out.csv")
    assert 1 <= compiled.count <= 4
    with count_compilations() as compiled:
        for count in (1, 2, 7, 9, 33, 64, 65, 255, 256, 257, 600):
            model.run.predict(inputs[:count])
            model.run.predict(inputs[:count].astype(np.float64))
    assert compiled.count <= 4 - 1  # one of the sizes was compiled above


def test_pieces_of_a_large_array_join_to_the_same_predictions(
    digits: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    predict(digits, archive, tmp_path / "whole.csv")
    monkeypatch.setattr("jaxtrain.prediction.examples.MOST_ROWS", 256)
    monkeypatch.setattr("jaxtrain.data.readers.arrays.MAPPED_BYTES", 10)
    np.save(tmp_path / "inputs.npy", images()[0])
    assert isinstance(arrays.read_new_arrays(tmp_path / "inputs.npy").inputs, np.memmap)
    predict(digits, tmp_path / "inputs.npy", tmp_path / "pieces.csv")
    assert (tmp_path / "pieces.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_ten_thousand_digits_take_less_than_a_second_once_the_programs_are_there(digits: Path, tmp_path: Path):
    """The least of three calls, since other programs slow this machine down."""
    model = RunModel(load_run(digits))
    np.save(tmp_path / "many.npy", np.tile(images()[0], (6, 1, 1, 1))[:10_000])
    seconds = []
    for _ in range(4):
        began = time.process_time()
        predict_to_file(model, [str(tmp_path / "many.npy")], tmp_path / "out.csv")
        seconds.append(time.process_time() - began)
    assert min(seconds[1:]) < 1.0
    assert len(rows_of(tmp_path / "out.csv")) == 10_000


# Numbers


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "diabetes"
    given = {"data.name": "diabetes", "task.name": "regression", "loss.name": "mse"}
    train_and_evaluate(tiny({**SHORT, **given}), folder, quiet=True)
    return folder


def measurements() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_diabetes

    data: Any = load_diabetes(scaled=False)
    return data["data"].astype(np.float32), data["target"]


def test_numbers_are_in_the_units_of_the_targets(diabetes: Path, tmp_path: Path):
    inputs, targets = measurements()
    np.savez(tmp_path / "data.npz", inputs=inputs, targets=targets)
    predicted = predict(diabetes, tmp_path / "data.npz", tmp_path / "out.jsonl")
    expected = load_run(diabetes).predict(inputs)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["prediction"] for line in lines] == expected.tolist()
    assert predicted.metrics["mse"] == pytest.approx(np.mean((expected - targets) ** 2), rel=1e-5)
    assert predicted.metrics["r2"] == pytest.approx(r2_score(targets, expected), rel=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_numbers_that_are_not_finite_are_refused_unless_they_are_allowed(diabetes: Path, value: float):
    run = load_run(diabetes)
    inputs = measurements()[0].astype(np.float64)[:5]
    inputs[3, 2] = value
    said = r"^inputs: got inputs\[3, 2\] = \S+; expected finite numbers in the range of float32\. .*allow_nan=True$"
    with pytest.raises(DataError, match=said):
        run.predict(inputs)
    with np.errstate(over="ignore"):
        found = run.predict(inputs, allow_nan=True)
    assert np.isfinite(found[[0, 1, 2, 4]]).all()
    assert abs(found[3]) > 1e30 or np.isnan(found[3])


def test_bad_rows_stop_a_prediction_or_are_left_out_and_listed(
    diabetes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    inputs, targets = measurements()
    inputs[[4, 300]] = np.nan
    np.savez(tmp_path / "data.npz", inputs=inputs, targets=targets)
    words = ["predict", f"--workdir={diabetes}", f"--data={tmp_path / 'data.npz'}", f"--output={tmp_path / 'out.csv'}"]
    assert main(words) == 3
    where = f"{tmp_path / 'data.npz'}[inputs], row 4: got inputs[4, 0] = nan"
    assert where in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
    assert main([*words, "--skip-bad"]) == 0
    said = capsys.readouterr().out
    assert "left out 2 examples that cannot be read:" in said
    assert where in said
    kept = np.delete(np.arange(442), [4, 300])
    assert column(tmp_path / "out.csv", "id") == [str(i) for i in kept]
    expected = load_run(diabetes).predict(inputs[kept])
    np.testing.assert_allclose(np.array(column(tmp_path / "out.csv", "prediction"), float), expected, rtol=1e-12)


# Tables


def people() -> list[dict[str, Any]]:
    """Numbers, some of which are missing in one column, and categories; the class is a rule of both."""
    draw = np.random.default_rng(0)
    age = draw.normal(40, 10, COUNT).round(1).tolist()
    job = draw.choice(["nurse", "cook", "pilot"], COUNT).tolist()
    return [
        {
            "age": None if i % 17 == 0 else age[i],
            "job": job[i],
            "noise": int(draw.integers(-3, 3)),
            "pay": "high" if age[i] > 40 else "low",
        }
        for i in range(COUNT)
    ]


PEOPLE = people()


def as_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def as_json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)))


def as_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pa: Any = pytest.importorskip("pyarrow")
    pq: Any = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=32)


FORMATS = {"csv": as_csv, "jsonl": as_json_lines, "parquet": as_parquet}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a CSV; exported."""
    folder = tmp_path_factory.mktemp("people")
    as_csv(folder / "people.csv", PEOPLE)
    given = {"data.name": "csv", "data.path": str(folder), "data.file": "people.csv", "data.target": "pay"}
    train_and_evaluate(tiny({**SHORT, **given}), folder / "run", quiet=True)
    export_run(folder / "run")
    return folder / "run"


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in ("age", "job", "noise")}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_of_tables_is_read_in_blocks(
    name: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for module in ("csv_files", "json_lines", "parquet_files"):
        monkeypatch.setattr(f"jaxtrain.data.readers.{module}.BLOCK", 64)
    reordered = [dict(reversed(row.items())) for row in PEOPLE]
    FORMATS[name](tmp_path / f"new.{name}", reordered)
    predicted = predict(table, tmp_path / f"new.{name}", tmp_path / "out.npz")
    found = arrays_of(tmp_path / "out.npz")
    expected = load_run(table).predict(columns_of(PEOPLE))
    np.testing.assert_allclose(found["logits"], expected, atol=1e-6)
    assert found["id"].tolist() == list(range(COUNT))
    truth = ["high" if row["pay"] == "high" else "low" for row in PEOPLE]
    classes = np.array(["high", "low"])[expected.argmax(axis=1)]
    assert predicted.metrics["accuracy"] == pytest.approx(accuracy_score(truth, classes))


def test_a_file_without_its_target_has_no_metrics_and_part_of_them_counts_alone(table: Path, tmp_path: Path):
    without = [{name: value for name, value in row.items() if name != "pay"} for row in PEOPLE]
    as_csv(tmp_path / "without.csv", without)
    assert predict(table, tmp_path / "without.csv", tmp_path / "a.csv").measured == 0
    partly = [{**row, "pay": row["pay"] if i % 2 else ""} for i, row in enumerate(PEOPLE)]
    as_csv(tmp_path / "partly.csv", partly)
    predicted = predict(table, tmp_path / "partly.csv", tmp_path / "b.csv")
    assert predicted.measured == COUNT // 2
    names = column(tmp_path / "b.csv", "class_name")
    right = [name == row["pay"] for name, row in zip(names[1::2], PEOPLE[1::2], strict=True)]
    assert predicted.metrics["accuracy"] == pytest.approx(np.mean(right))
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_a_table_predicts_by_its_export_alike(table: Path, tmp_path: Path):
    as_csv(tmp_path / "new.csv", PEOPLE)
    by_run = predict(table, tmp_path / "new.csv", tmp_path / "run.npz")
    model = ExportModel(load_export(table / "export"))
    by_export = predict_to_file(model, [str(tmp_path / "new.csv")], tmp_path / "export.npz")
    found, expected = (arrays_of(tmp_path / name)["logits"] for name in ("export.npz", "run.npz"))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert by_export.metrics == pytest.approx(by_run.metrics, rel=1e-4)


def test_a_column_that_is_missing_or_not_of_training_is_named(table: Path, tmp_path: Path):
    for name, write in FORMATS.items():
        write(tmp_path / f"new.{name}", [{"age": 3.0, "jobs": "cook", "noise": 1}] * 3)
        with pytest.raises(DataError, match=rf"new\.{name}: got (no column 'job'|the column 'jobs')"):
            predict(table, tmp_path / f"new.{name}", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_an_unknown_category_is_said_once(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jaxtrain.data.readers.csv_files.BLOCK", 16)
    as_csv(
        tmp_path / "new.csv",
        [{**row, "job": "astronaut" if i % 10 == 0 else row["job"]} for i, row in enumerate(PEOPLE)],
    )
    with pytest.warns(JaxtrainWarning, match="20 of 200 rows with a category of 'job' that no training row") as said:
        predict(table, tmp_path / "new.csv", tmp_path / "out.csv")
    assert len(said) == 1


def test_a_missing_number_is_missing_where_training_missed_some_and_refused_elsewhere(table: Path, tmp_path: Path):
    run, model = load_run(table), load_export(table / "export")
    gap = {"age": [np.nan, 30.0], "job": ["cook", "cook"], "noise": [1.0, np.nan]}
    fine = {**gap, "noise": [1.0, 2.0]}
    assert np.isfinite(run.predict(fine)).all()
    said = r"row 1: got no value in the column 'noise'; expected a finite number in each row, as in training"
    for predictor in (run, model):
        with pytest.raises(DataError, match=said):
            predictor.predict(gap)
    mean = run.predict({**gap, "noise": [1.0, float(np.mean([row["noise"] for row in PEOPLE]))]})
    np.testing.assert_allclose(run.predict(gap, allow_nan=True), mean, atol=0.2)  # filled by the training mean
    np.testing.assert_allclose(
        model.predict(gap, allow_nan=True)["logits"], run.predict(gap, allow_nan=True), atol=1e-5
    )
    as_csv(tmp_path / "new.csv", [PEOPLE[1], {**PEOPLE[2], "noise": None}])
    with pytest.raises(DataError, match=r"new\.csv, line 3: got no value in the column 'noise'"):
        run.predict_files(tmp_path / "new.csv")
    with pytest.raises(DataError, match=r"new\.csv, line 3: got no value .* leave the row out by --skip-bad$"):
        predict(table, tmp_path / "new.csv", tmp_path / "out.csv")
    assert run.predict_files(tmp_path / "new.csv", allow_nan=True).shape == (2, 2)


BAD_LINES = {
    "csv": {5: "17.5,cook", 9: "old,cook,1,low", 20: "30.0,cook,,low", 33: "30.0,cook,1,middling"},
    "jsonl": {
        5: '{"age": 17.5,',
        9: '{"age": "old", "job": "cook", "noise": 1}',
        20: '{"age": 1, "job": "cook", "noise": null}',
        33: '{"age": 1, "job": "cook", "noise": [1]}',
    },
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_rows_of_a_table_that_cannot_be_read_are_named_or_left_out(name: str, table: Path, tmp_path: Path):
    path = tmp_path / f"new.{name}"
    FORMATS[name](path, PEOPLE)
    lines = path.read_text().splitlines()
    first = 2 if name == "csv" else 1  # the line of row 0
    for row, text in BAD_LINES[name].items():
        lines[row + first - 1] = text
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"new\.{name}, line {5 + first}: got"):
        predict(table, path, tmp_path / "out.csv")
    assert not [*tmp_path.glob("*out*")]
    predicted = predict(table, path, tmp_path / "out.csv", skip_bad=True)
    assert sorted(error.key for error in predicted.skipped) == sorted(
        f"{path}, line {row + first}" for row in BAD_LINES[name]
    )
    kept = [row for row in range(COUNT) if row not in BAD_LINES[name]]
    assert column(tmp_path / "out.csv", "id") == [str(row) for row in kept]
    expected = load_run(table).predict(columns_of([PEOPLE[row] for row in kept]))
    np.testing.assert_allclose(
        np.array(column(tmp_path / "out.csv", "p(low)"), float), probabilities(expected)[:, 1], atol=1e-6
    )


def test_what_is_wrong_with_the_file_is_not_skipped_row_by_row(table: Path, tmp_path: Path):
    as_csv(tmp_path / "new.csv", [{"age": 3.0, "jobs": "cook", "noise": 1}] * 3)
    bad = Bad(skip=True)
    examples = open_examples([tmp_path / "new.csv"], RunModel(load_run(table)).form, bad)
    with pytest.raises(DataError, match=r"new\.csv: got no column 'job' but 'jobs'"):
        list(examples.pieces())
    assert not bad.errors


def test_a_column_number_as_target_stays_the_target_in_a_new_file(tmp_path: Path):
    rows = [{"a": float(i % 7), "b": float(i % 3), "y": ("no", "yes")[i % 2]} for i in range(60)]
    as_csv(tmp_path / "data.csv", rows)
    given = {"data.name": "csv", "data.path": str(tmp_path), "data.file": "data.csv", "data.target": -1}
    train_and_evaluate(
        tiny({**SHORT, **given, "data.header": True, "data.batch_size": 16}), tmp_path / "run", quiet=True
    )
    assert predict(tmp_path / "run", tmp_path / "data.csv", tmp_path / "a.csv").measured == 60
    as_csv(tmp_path / "new.csv", [{"b": row["b"], "a": row["a"]} for row in rows])
    assert predict(tmp_path / "run", tmp_path / "new.csv", tmp_path / "b.csv").measured == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


# Pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits 0 and 1 as files in folders of their classes."""
    root = tmp_path_factory.mktemp("pictures")
    inputs, targets = images()
    for label in (0, 1):
        (root / f"classes/digit_{label}").mkdir(parents=True)
        for i, image in enumerate(inputs[targets == label][:40]):
            Image.fromarray(image[..., 0] * 15).save(root / f"classes/digit_{label}/{i:02}.png")
    return root


@pytest.fixture(scope="module")
def folders(pictures: Path) -> Path:
    given = {"data.name": "image_folder", "data.path": str(pictures), "data.folder": "classes"}
    train_and_evaluate(tiny({**SHORT, **given, "data.batch_size": 16}), pictures / "run", quiet=True)
    return pictures / "run"


def test_a_folder_of_classes_has_metrics_and_names_of_files(pictures: Path, folders: Path, tmp_path: Path):
    predicted = predict(folders, pictures / "classes", tmp_path / "out.csv")
    names = [f"digit_{label}/{i:02}.png" for label in (0, 1) for i in range(40)]
    assert column(tmp_path / "out.csv", "id") == names
    expected = load_run(folders).predict_files(*(pictures / "classes" / name for name in names))
    assert column(tmp_path / "out.csv", "class") == [str(i) for i in expected.argmax(axis=1)]
    right = [name.startswith(own) for name, own in zip(names, column(tmp_path / "out.csv", "class_name"), strict=True)]
    assert predicted.metrics["accuracy"] == pytest.approx(np.mean(right))
    predict(folders, str(pictures / "classes/*/0[0-4].png"), tmp_path / "some.csv")
    assert column(tmp_path / "some.csv", "id")[0] == str(pictures / "classes/digit_0/00.png")
    assert len(rows_of(tmp_path / "some.csv")) == 10
    assert predict(folders, str(pictures / "classes/**/*"), tmp_path / "once.csv").examples == len(names)


def test_what_an_operating_system_puts_beside_pictures_is_passed_over(pictures: Path, folders: Path, tmp_path: Path):
    root = tmp_path / "new"
    shutil.copytree(pictures / "classes/digit_0", root / "digit_0")
    for name in ("Thumbs.db", "digit_0/Thumbs.db", "digit_0/.DS_Store", "__MACOSX/._digit_0", "digit_0/@eaDir/00.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"no picture")
    by_a_shell = [str(path) for path in sorted((root / "digit_0").glob("[!.]*"))]
    for data in (root, root / "*", root / "digit_0/*", root / "**/*.png", by_a_shell):
        assert predict(folders, data, tmp_path / "out.csv").examples == 40
    with pytest.raises(DataError, match=r"--data: got '\S*Thumbs\.db'; expected a file, a folder or a pattern"):
        predict(folders, root / "Thumbs.db", tmp_path / "out.csv")
    (root / "digit_0/notes.txt").touch()
    with pytest.raises(UsageError, match=r"--data: got '\S*digit_0/notes\.txt'; expected .* or pictures"):
        predict(folders, root / "digit_0/*", tmp_path / "out.csv")
    with pytest.warns(JaxtrainWarning, match=r"got files that are no images \(\.txt: 1\).* They are left out"):
        assert predict(folders, root, tmp_path / "out.csv").examples == 40


def test_a_damaged_picture_is_named_or_left_out(pictures: Path, folders: Path, tmp_path: Path):
    shutil.copytree(pictures / "classes", tmp_path / "new")
    (tmp_path / "new/digit_0/07.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"new/digit_0/07\.png \(row 7\): got a file that is no image"):
        predict(folders, tmp_path / "new", tmp_path / "out.csv")
    predicted = predict(folders, tmp_path / "new", tmp_path / "out.csv", skip_bad=True)
    assert (predicted.examples, len(predicted.skipped), predicted.measured) == (79, 1, 79)
    whole = predict(folders, pictures / "classes", tmp_path / "whole.csv")
    assert whole.examples == 80
    rows = [row for row in rows_of(tmp_path / "whole.csv") if row["id"] != "digit_0/07.png"]
    assert [row["class"] for row in rows] == column(tmp_path / "out.csv", "class")


def test_pictures_that_a_table_or_parquet_holds(pictures: Path, folders: Path, tmp_path: Path):
    names = [f"digit_{label}/{i:02}.png" for label in (0, 1) for i in range(6)]
    expected = load_run(folders).predict_files(*(pictures / "classes" / name for name in names))
    listed = [{"picture": name, "kind": name[:7]} for name in names]
    as_csv(pictures / "classes" / "list.csv", listed)
    (tmp_path / "elsewhere").mkdir()
    as_csv(tmp_path / "elsewhere" / "list.csv", listed)
    content = [{"picture": {"bytes": (pictures / "classes" / n).read_bytes()}, "kind": n[:7]} for n in names]
    as_parquet(tmp_path / "some.parquet", content)
    given = {"path": str(pictures), "file": "classes/list.csv", "image": "picture", "target": "kind"}
    for name, data, own in (
        ("image_table", pictures / "classes" / "list.csv", {}),
        ("image_table", tmp_path / "elsewhere" / "list.csv", {"folder": "classes"}),  # of the data of training
        ("parquet", tmp_path / "some.parquet", {}),
    ):
        loaded = load_run(folders)
        section = {**loaded.config["data"], **given, **own, "name": name, "split_column": None, "drop": ()}
        model = RunModel(loaded)
        object.__setattr__(loaded, "config", {**loaded.config, "data": section})
        predicted = predict_to_file(model, [str(data)], tmp_path / f"{name}.npz")
        found = arrays_of(tmp_path / f"{name}.npz")
        np.testing.assert_array_equal(found["logits"], expected)
        assert predicted.measured == len(names)
        assert found["id"].tolist() == (names if name == "image_table" else list(range(len(names))))
    (pictures / "classes" / "list.csv").unlink()


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on pictures of 16 x 16 whose masks are where they are bright."""
    root = tmp_path_factory.mktemp("masks")
    for name in ("images", "masks"):
        (root / "pairs" / name).mkdir(parents=True)
    draw = np.random.default_rng(0)
    for i in range(24):
        image = draw.integers(0, 256, (16, 16)).astype(np.uint8)
        Image.fromarray(image).save(root / f"pairs/images/{i:02}.png")
        Image.fromarray((image > 128).astype(np.uint8)).save(root / f"pairs/masks/{i:02}.png")
    data = {"data.name": "image_masks", "data.path": str(root), "data.folder": "pairs", "data.batch_size": 8}
    task = {
        "task.name": "segmentation",
        "loss.name": "binary_cross_entropy",
        "model": {"name": "unet", "width": 2, "depth": 1},
    }
    nested = {f"model.{name}": value for name, value in task.pop("model").items()}
    train_and_evaluate(tiny({**SHORT, **data, **task, **nested, "train.duration": "4 steps"}), root / "run", quiet=True)
    return root / "run"


def test_masks_are_pictures_in_a_folder_whose_values_are_labels(masks: Path, tmp_path: Path):
    root = masks.parent / "pairs"
    predicted = predict(masks, root, tmp_path / "found")
    names = sorted((tmp_path / "found/images").iterdir())
    assert [path.name for path in names] == [f"{i:02}.png" for i in range(24)]
    found = np.stack([np.asarray(Image.open(path)) for path in names])
    logits = load_run(masks).predict_files(*sorted((root / "images").iterdir()))
    np.testing.assert_array_equal(found, logits > 0)
    truth = np.stack([np.asarray(Image.open(path)) for path in sorted((root / "masks").iterdir())])
    dice = 2 * np.sum(found & truth) / (found.sum() + truth.sum())
    assert predicted.metrics["dice"] == pytest.approx(dice, rel=1e-5)
    with pytest.raises(UsageError, match="which is there already"):
        predict(masks, root, tmp_path / "found")
    with pytest.raises(
        UsageError, match=r"--output: got a table, for masks; expected a folder, or a file named \*\.npz"
    ):
        predict(masks, root, tmp_path / "out.csv")
    predict(masks, str(root / "images" / "*.png"), tmp_path / "out.npz")
    np.testing.assert_array_equal(arrays_of(tmp_path / "out.npz")["mask"], found)


def test_masks_of_resized_pictures_have_the_sizes_of_their_files(masks: Path, tmp_path: Path):
    loaded = load_run(masks)
    object.__setattr__(loaded, "config", {**loaded.config, "data": {**loaded.config["data"], "size": (16, 16)}})
    for name, size in (("flat", (40, 20)), ("high", (8, 33))):  # width and height
        Image.open(masks.parent / "pairs/images/03.png").resize(size, Image.Resampling.NEAREST).save(
            tmp_path / f"{name}.png"
        )
    for output in ("found", "found.npz"):
        predict_to_file(RunModel(loaded), [str(tmp_path / "*.png")], tmp_path / output)
    arrays = arrays_of(tmp_path / "found.npz")
    assert arrays["mask"].shape == (2, 16, 16)
    assert arrays["size"].tolist() == [[20, 40], [33, 8]]
    for name, mask, size in zip(("flat", "high"), arrays["mask"], ((40, 20), (8, 33)), strict=True):
        (written,) = tmp_path.glob(f"found/**/{name}.png")
        expected = Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
        np.testing.assert_array_equal(np.asarray(Image.open(written)), np.asarray(expected))


# Rows


def info_of(**fields: Any) -> DataInfo:
    given: dict[str, Any] = {"input_shape": (2,), "classes": None, "target_shape": (), "target_mean": (0.0,)}
    return DataInfo(**{**given, "target_std": (1.0,), "input_mean": (0.0,), "input_std": (1.0,), **fields})


def test_labels_and_boxes_have_rows():
    ids = np.arange(2)
    info = info_of(target_shape=(3,), target_names=("red", "round", "big"))
    outputs = {
        "labels": np.array([[1, 0, 1], [0, 0, 0]]),
        "probabilities": np.array([[0.9, 0.2, 0.8], [0.1, 0.2, 0.3]]),
    }
    rows = Layout(info, info.target_names, nested=False).columns(ids, outputs)
    assert rows["labels"] == ["red|big", ""]
    assert rows["p(round)"] == [0.2, 0.2]
    assert Layout(info, info.target_names, nested=True).columns(ids, outputs)["labels"] == [["red", "big"], []]
    boxes = np.array([[[1, 2, 3, 4, 0.5, 0.0], [5, 6, 7, 8, 0.25, 0.75]], [[0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0]]])
    found = Layout(info_of(box_classes=2), (), nested=True).columns(ids, {"outputs": boxes.astype(np.float32)})["boxes"]
    second = {"y": 5.0, "x": 6.0, "height": 7.0, "width": 8.0}
    assert found[0] == [
        {"class": 1, "score": 0.75, **second},
        {"class": 0, "score": 0.5, "y": 1.0, "x": 2.0, "height": 3.0, "width": 4.0},
        {"class": 0, "score": 0.25, **second},
    ]
    assert found[1] == []


def test_one_logit_for_two_classes_gives_both_their_probabilities():
    outputs = {"class": np.array([1, 0]), "probabilities": np.array([0.75, 0.25]), "logits": np.zeros(2)}
    rows = Layout(info_of(classes=2), ("no", "yes"), nested=False).columns(np.arange(2), outputs)
    assert rows["class_name"] == ["yes", "no"]
    assert rows["probability"] == rows["p(yes)"][:1] + rows["p(no)"][1:] == [0.75, 0.75]


# Texts


TRANSFORMER = {"model.name": "transformer", "model.width": 8, "model.layers": 1, "model.heads": 2, "model.dropout": 0.0}


def of_words(folder: Path, given: dict[str, Any]) -> Any:
    """Writes a text into a folder; returns the config of a short run on its characters."""
    (folder / "words.txt").write_text("the cat sat. a dog ran! " * 60)
    data = {"name": "text", "path": str(folder), "file": "words.txt", "context": 16, "tokens": "characters"}
    return tiny({**SHORT, "data": {**data, "batch_size": 8}, "task.name": "language_modelling", **given})


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a text of characters; exported with weights in int8, too."""
    folder = tmp_path_factory.mktemp("texts")
    train_and_evaluate(of_words(folder, TRANSFORMER), folder / "run", quiet=True)
    assert main(["export", f"--workdir={folder / 'run'}", "--quiet", "--quantize=int8"]) == 0
    description = json.loads((folder / "run/export/model.json").read_text())
    assert description["quality"]["export"].keys() == {"loss", "accuracy", "perplexity", "bits_per_byte"}
    export_run(folder / "run")
    return folder / "run"


def test_a_language_model_continues_each_line(texts: Path, tmp_path: Path):
    (tmp_path / "prompts.txt").write_text("the cat\na dog ran\n")
    predict(texts, tmp_path / "prompts.txt", tmp_path / "out.csv")
    loaded = load_run(texts)
    assert column(tmp_path / "out.csv", "prompt") == ["the cat", "a dog ran"]
    assert column(tmp_path / "out.csv", "text") == [loaded.generate("the cat"), loaded.generate("a dog ran")]
    (tmp_path / "gap.txt").write_text("the cat\n\na dog ran")
    with pytest.raises(DataError, match=r"gap\.txt, line 2: got an empty line"):
        predict(texts, tmp_path / "gap.txt", tmp_path / "out.csv")
    (tmp_path / "new.txt").write_text("the catß\nthe cat\n")
    with pytest.warns(JaxtrainWarning, match=r"new\.txt: got 1 prompts with characters that the training part lacks"):
        predict(texts, tmp_path / "new.txt", tmp_path / "new.csv")
    words = ["--length=9", "--temperature=0.5", "--top-k=3"]
    for source in (f"--workdir={texts}", f"--export={texts / 'export'}"):
        files = [f"--data={tmp_path / 'prompts.txt'}", f"--output={tmp_path / 'short.csv'}"]
        assert main(["predict", source, *files, *words, "--quiet"]) == 0
        expected = [loaded.generate(prompt, 9, 0.5, 3) for prompt in ("the cat", "a dog ran")]
        assert column(tmp_path / "short.csv", "text") == expected
    model = ExportModel(load_export(texts / "export"))
    predict_to_file(model, [str(tmp_path / "prompts.txt")], tmp_path / "export.csv")
    assert (tmp_path / "export.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()


def test_an_export_of_a_text_has_the_logits_of_the_run_and_draws_as_it_does(texts: Path, digits: Path):
    run, model = load_run(texts), load_export(texts / "export")
    assert run.info.vocabulary is not None
    tokens = run.info.vocabulary.encode("the cat sat. a dog ran! ")[None, :16]
    np.testing.assert_allclose(model.predict(tokens)["logits"], run.predict(tokens), atol=1e-5)
    for prompt in ("t", "the cat sat. a d", "the cat sat. a dog ran! the cat"):  # one, a full window, more than one
        drawings: list[dict[str, Any]] = [{"temperature": 0.0}, {"seed": 3}, {"top_k": 2, "temperature": 0.7}]
        for drawing in drawings:
            assert model.generate(prompt, 40, **drawing) == run.generate(prompt, 40, **drawing)
    described = model.description
    assert described["files"]["continuation.jaxexp"]["bytes"] < 2**16, "it holds no copy of the weights"
    assert described["check"]["worst"]["continuation.jaxexp"]["tokens"] <= 1e-5
    with pytest.raises(DataError, match="expected tokens, integers from 0 to"):
        model.predict(tokens.astype(np.int64) + 100)
    with pytest.raises(UsageError, match="at least one token"):
        model.generate("")
    with pytest.raises(UsageError, match="generate: got a model that was not trained on a text"):
        load_export(digits / "export").generate("the")


def test_an_export_without_a_cache_says_that_it_continues_no_text(texts: Path):
    model = replace(load_export(texts / "export"), continuation=None)
    with pytest.raises(
        UsageError, match=r"generate: got an export without continuation\.jaxexp; expected one that can"
    ):
        model.generate("the")


def test_an_ensemble_of_language_models_draws_by_the_mean_of_their_probabilities(tmp_path: Path):
    train_and_evaluate(of_words(tmp_path, {**TRANSFORMER, "train.seeds": 2}), tmp_path / "run", quiet=True)
    folder, _ = export_run(tmp_path / "run", ensemble=True, formats=[])
    model = load_export(folder)
    runs = [load_run(tmp_path / "run", seed=seed) for seed in (0, 1)]
    vocabulary = runs[0].info.vocabulary
    assert vocabulary is not None
    text = "the cat" + model.generate("the cat", 9, temperature=0.0)
    tokens = vocabulary.encode(text)[None, :16]
    mean = np.mean([jax.nn.softmax(run.predict(tokens)) for run in runs], axis=0)
    assert mean[0, 6:-1].argmax(axis=-1).tolist() == tokens[0, 7:].tolist()


class NoCache(nn.Module):
    """Logits of the next token from the last one alone."""

    outputs: int

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        return nn.Embed(self.outputs, self.outputs)(inputs)


class FixedCache(NoCache):
    """The same with a method decode that takes one text at a time."""

    def decode(self, tokens: jax.Array, cache: Any, position: jax.Array | int) -> tuple[jax.Array, Any]:
        raise NotImplementedError("one text at a time")


@pytest.mark.parametrize(
    ("model", "reason"),
    [("NoCache", "which caches nothing"), ("FixedCache", r"whose method decode .* \(one text at a time\)")],
)
def test_a_model_that_continues_no_text_is_exported_without_that_and_says_why(model: str, reason: str, tmp_path: Path):
    train_and_evaluate(of_words(tmp_path, {"model.name": f"{__name__}:{model}"}), tmp_path / "run", quiet=True)
    with pytest.warns(JaxtrainWarning, match=rf"continuation\.jaxexp: got the model .*, {reason}; .* It is left out"):
        folder, _ = export_run(tmp_path / "run", formats=[])
    assert load_export(folder).continuation is None


def test_tokens_are_compared_with_the_logits_at_their_places():
    logits = np.zeros((2, 5, 3), np.float32)
    logits[..., 1] = 2.0
    logits[1, 3, 2] = 8.0  # the best token after three given ones, of which the second is drawn
    windows = np.ones((2, 5), np.int32)

    def draws(token: int) -> float:
        drawn = np.full((2, 5), token)
        return greedy_distance(lambda arguments: {"tokens": drawn}, lambda arguments: {"logits": logits}, windows)

    assert draws(1) == (8 - 2) / 8
    assert draws(2) == 2 / 8
    logits[1, 3, 2] = 2.0
    assert draws(1) == 0.0


# Files and processes


def test_numbers_that_are_not_finite_are_null_in_json(tmp_path: Path):
    writer = JsonlWriter(tmp_path, info_of(), ())
    writer.write(np.arange(3), {"numbers": np.array([0.5, np.nan, np.inf])})
    lines = writer.finish().read_text().splitlines()
    writer.close()
    rows = [json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) for line in lines]
    assert [row["prediction"] for row in rows] == [0.5, None, None]


def test_what_does_not_suit_is_one_line(digits: Path, table: Path, archive: Path, tmp_path: Path):
    np.savez(tmp_path / "two.npz", train_inputs=images()[0], test_inputs=images()[0])
    np.save(tmp_path / "flat.npy", np.zeros((3, 64), np.uint8))
    np.savez(tmp_path / "wrong.npz", inputs=images()[0][:3], targets=np.array([1, 2, 10]))
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "large.png")
    (tmp_path / "list.csv").write_text("a\n1\n")
    cases: list[tuple[Path, Any, str, str]] = [
        (digits, "none.npy", "out.csv", r"--data: got 'none\.npy'; expected a file, a folder or a pattern"),
        (digits, tmp_path / "*.bmp", "out.csv", r"--data: got '.*\*\.bmp'"),
        (digits, archive, "out.txt", r"--output: got '.*out\.txt'; expected a file whose name ends in one of \.csv"),
        (digits, archive, "folder", r"--output: got a folder, for a model that makes no masks"),
        (digits, tmp_path / "two.npz", "out.csv", r"two\.npz: got the arrays test_inputs, train_inputs"),
        (
            digits,
            tmp_path / "flat.npy",
            "out.csv",
            r"flat\.npy: got the shape \(3, 64\); expected the shape \(n, 8, 8, 1",
        ),
        (digits, tmp_path / "wrong.npz", "out.csv", r"wrong\.npz.*, row 2: got the target 10; expected a label from 0"),
        (digits, tmp_path / "large.png", "out.csv", r"large\.png.*: got the size \(9, 8\); expected \(8, 8\)"),
        (digits, tmp_path / "list.csv", "out.csv", r"--data: got '.*list\.csv'; expected arrays"),
        (digits, [str(archive), str(tmp_path / "large.png")], "out.csv", r"--data: got arrays .* and pictures"),
        (table, archive, "out.csv", r"--data: got '.*digits\.npz'; expected a table: one of csv, jsonl, parquet"),
    ]
    for workdir, data, output, said in cases:
        with pytest.raises(JaxtrainError, match=said):
            predict(workdir, data if isinstance(data, list) else str(data), tmp_path / output)
        assert not (tmp_path / output).exists()
    assert not [*tmp_path.glob(".*")]


def test_options_that_are_missing_or_do_not_fit_are_named(digits: Path, capsys: pytest.CaptureFixture[str]):
    export, data = f"--export={digits / 'export'}", "--data=x.npy"
    cases = [
        ([data, "--output=a.csv"], "--workdir or --export: got nothing; expected the directory of a run, or that of"),
        ([f"--workdir={digits}", export, data, "--output=a.csv"], "--workdir or --export: got both"),
        ([export, "--output=a.csv"], "--data: got nothing; expected files to predict from"),
        ([export, data], "--output: got nothing; expected the file to write"),
        ([f"--workdir={digits}", data, "--output=a.csv", "--fold=1"], "fold: got 1; expected none, as "),
        ([export, data, "--output=a.csv", "--fold=1"], "--fold: got 1; expected none for an export"),
        ([export, data, "--output=a.csv", "--top-k=2"], "--top-k: got it for a model that was not trained on a text"),
        ([export, data, "--output=a.csv", "--temperature=hot"], "--temperature: got 'hot'; expected a number"),
        ([export, data, "--output=a.csv", "--config.seed=1"], "predict: got a config; expected --workdir=DIR alone"),
        ([export, data, "--output=a.csv", "--ensemble"], "predict: got --ensemble; expected it with export alone"),
    ]
    for words, said in cases:
        assert main(["predict", *words]) == 2
        assert said in capsys.readouterr().err


def test_a_kill_leaves_the_output_as_it_was_and_the_next_call_is_whole(digits: Path, tmp_path: Path):
    np.save(tmp_path / "many.npy", np.tile(images()[0], (400, 1, 1, 1)))
    (tmp_path / "out.csv").write_bytes(b"mine")
    words = ["predict", f"--workdir={digits}", "--data=many.npy", "--output=out.csv", "--quiet"]
    process = start(tmp_path, *words)
    written = tmp_path / ".out.csv.unfinished/work/table.csv"
    deadline = time.monotonic() + PATIENCE
    while not (written.exists() and written.stat().st_size > 10_000):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert (tmp_path / "out.csv").read_bytes() == b"mine"
    assert written.exists()
    np.save(tmp_path / "many.npy", images()[0][:50])
    assert main([*words[:2], f"--data={tmp_path / 'many.npy'}", f"--output={tmp_path / 'out.csv'}", "--quiet"]) == 0
    assert len(rows_of(tmp_path / "out.csv")) == 50
    assert not (tmp_path / ".out.csv.unfinished").exists()


def test_a_second_process_does_not_write_the_same_output(digits: Path, archive: Path, tmp_path: Path):
    from jaxtrain.storage.locks import run_lock

    with run_lock(tmp_path / ".out.csv.unfinished"), pytest.raises(UsageError, match="a directory in use by process"):
        predict(digits, archive, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
    predict(digits, archive, tmp_path / "out.csv")
    assert len(rows_of(tmp_path / "out.csv")) == 1797


def test_an_output_takes_no_place_of_what_is_read(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.savez(tmp_path / "mine.npz", inputs=images()[0][:3])
    mine = (tmp_path / "mine.npz").read_bytes()
    (tmp_path / "link.npz").symlink_to("mine.npz")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for data in ("../mine.npz", "../link.npz", "../*.npz"):
        with pytest.raises(UsageError, match=r"^--output: got \S+mine\.npz, which is read; expected another file"):
            predict(digits, data, tmp_path / "mine.npz")
    with pytest.raises(UsageError, match=r"^--output: got '\.'; expected a path that ends in a name"):
        predict(digits, "../mine.npz", Path())
    assert (tmp_path / "mine.npz").read_bytes() == mine


def test_data_given_in_python_are_predicted_from_files(tmp_path: Path):
    columns = {name: [row[name] for row in PEOPLE] for name in ("age", "job", "noise")}
    data = Source({"train": (columns, np.array([row["pay"] for row in PEOPLE]))})
    train_and_evaluate(tiny({**SHORT, "data.name": "memory"}), tmp_path / "run", quiet=True, data=data)
    without = [{name: value for name, value in row.items() if name != "pay"} for row in PEOPLE]
    as_csv(tmp_path / "new.csv", without)
    predict(tmp_path / "run", tmp_path / "new.csv", tmp_path / "out.npz")
    expected = load_run(tmp_path / "run").predict(columns)
    np.testing.assert_allclose(arrays_of(tmp_path / "out.npz")["logits"], expected, atol=1e-6)
