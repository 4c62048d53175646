"""The check of an export: which rows, which sizes of a batch, which formats, and what every program must refuse."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import tiny

from jaxtrain import Source, export_run, load_export, load_run
from jaxtrain.errors import StorageError
from jaxtrain.export import check
from jaxtrain.export.check import CheckedRows, check_export, predict_rows
from jaxtrain.export.fresh_process import ANSWERED, FAULTS, _demand_refusal, _programs
from jaxtrain.export.rows import NEVER_SEEN, rows_to_check
from jaxtrain.training.experiment import build
from jaxtrain.training.train import train_and_evaluate

FILES = ("model.jaxexp", "model.onnx", "MLmodel")
SIZES = (1, 2, 7, 64)
NAMES = ("logits", "probabilities", "class")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits with its export in all formats."""
    folder = tmp_path_factory.mktemp("checked") / "run"
    train_and_evaluate(tiny({"train.duration": "20 steps", "eval.every": "20 steps"}), folder, quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        export_run(folder, formats=["onnx", "mlflow"])
    assert [file.name for file in (folder / "export" / "code").iterdir()] == ["exported_model.py"]
    return folder


@pytest.fixture(scope="module")
def rows(run: Path) -> CheckedRows:
    loaded = load_run(run)
    return predict_rows([loaded], build(loaded.config).dataset)


@pytest.fixture(scope="module")
def found(run: Path, rows: CheckedRows) -> dict[str, np.ndarray]:
    """What a fresh process predicts."""
    return check._predict_afresh(run / "export", rows.arguments)


def test_every_format_predicts_every_row_in_batches_of_every_size(found: dict[str, np.ndarray], rows: CheckedRows):
    assert found.keys() == {f"{file}/{size}/{name}" for file in FILES for size in SIZES for name in NAMES}
    assert {len(output) for output in found.values()} == {len(rows)}


@pytest.mark.parametrize("file", FILES)
def test_a_difference_at_any_size_in_any_output_or_row_is_found(
    file: str, found: dict[str, np.ndarray], run: Path, rows: CheckedRows, monkeypatch: pytest.MonkeyPatch
):
    for size in SIZES:
        for name in NAMES[:2]:
            for row in (0, len(rows) - 1):
                key = f"{file}/{size}/{name}"
                other = found[key].copy()
                other[row, 3] += 1e-4 * np.abs(found[key]).max()
                monkeypatch.setattr(check, "_predict_afresh", lambda *_, new={key: other}: {**found, **new})
                with pytest.raises(StorageError, match=f"^{file}: got '{name}' off by .* at {size} examples"):
                    check_export(run / "export", rows, 1e-5)
    monkeypatch.setattr(check, "_predict_afresh", lambda *_: found)
    assert max(check_export(run / "export", rows, 1e-5)["worst"][file].values()) <= 1e-5


@pytest.mark.parametrize("file", FILES)
def test_a_class_that_is_not_the_best_is_found_and_a_tie_is_none(
    file: str, found: dict[str, np.ndarray], run: Path, rows: CheckedRows, monkeypatch: pytest.MonkeyPatch
):
    key = f"{file}/7/class"
    other = found[key].copy()
    other[5] = rows.outputs["logits"][5].argmin()
    monkeypatch.setattr(check, "_predict_afresh", lambda *_: {**found, key: other})
    with pytest.raises(StorageError, match=f"^{file}: got 'class' off by"):
        check_export(run / "export", rows, 1e-5)
    logits = rows.outputs["logits"].copy()
    logits[5, other[5]] = logits[5].max() - 1e-7
    tied = CheckedRows(rows.arguments, {"class": rows.outputs["class"], "logits": logits}, rows.usual)
    changed = {f"{name}/{size}/logits": logits for name in FILES for size in SIZES}
    monkeypatch.setattr(check, "_predict_afresh", lambda *_: {**found, **changed, key: other})
    check_export(run / "export", tied, 1e-5)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("file", FILES)
def test_every_program_refuses_what_is_unlike_its_inputs(
    file: str, fault: str, run: Path, rows: CheckedRows, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "path", [*sys.path])
    predict = _programs(load_export(run / "export"))[file]
    spoilt = {name: FAULTS[fault](array) for name, array in rows.arguments.items()}
    if fault in ANSWERED.get(file, ()):
        assert {len(output) for output in predict(spoilt).values()} == {len(next(iter(spoilt.values())))}
        return
    with pytest.raises((TypeError, ValueError)):
        predict(spoilt)
    with pytest.raises(StorageError, match=f"^{file}: got an answer to {fault}; expected an error"):
        _demand_refusal(file, lambda _: {}, fault, spoilt)


def examples(inputs: Any) -> Source:
    return Source({"train": (inputs, np.arange(600) % 2), "validation": (inputs, np.arange(600) % 2)})


def rows_of(source: Source) -> Any:
    return rows_to_check(build(tiny({"data.name": "memory"}), data=source).dataset)


def test_the_rows_are_256_of_validation_then_zeros_and_extremes():
    draw = np.random.default_rng(0)
    pictures = draw.integers(1, 200, (600, 4, 4, 1)).astype(np.uint8)
    found = rows_of(examples(pictures))
    assert (found.usual, len(found.inputs)) == (256, 259)
    assert all((pictures == row).all(axis=(1, 2, 3)).any() for row in found.inputs[:256])
    assert [set(row.ravel().tolist()) for row in found.inputs[256:]] == [{0}, {0}, {255}]
    numbers = draw.normal(size=(600, 5))
    found = rows_of(examples(numbers))
    assert (found.usual, len(found.inputs)) == (256, 259)
    kept = found.inputs[:256]
    np.testing.assert_array_equal(found.inputs[256:], [np.zeros(5), kept.min(axis=0), kept.max(axis=0)])


def test_the_rows_of_a_table_end_with_what_is_missing_and_what_no_training_row_has():
    columns = {"age": np.arange(600.0), "job": np.array(["cook", "smith"] * 300)}
    columns["age"][7] = np.nan
    found = rows_of(examples(columns))
    assert found.usual == 256
    age, job = found.inputs["age"][256:], found.inputs["job"][256:]
    assert (age[0], age[1], age[2] > 500) == (0, 0, True)
    assert np.isnan(age[3])
    assert (job[0], job[3]) == (NEVER_SEEN, "")
