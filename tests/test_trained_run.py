"""Loaded runs: predictions from raw inputs, evaluations, and errors."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.metrics import r2_score
from tiny_runs import Interrupting, outcome, tiny

from jaxtrain import main
from jaxtrain.commands.evaluate import evaluate
from jaxtrain.core.averaging import schedule_free_average
from jaxtrain.errors import DataError, StorageError, UsageError
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.training.experiment import build
from jaxtrain.training.train import train_and_evaluate
from jaxtrain.training.trained_run import load_run

REGRESSION = {
    "data.name": "diabetes",
    "task.name": "regression",
    "loss.name": "mse",
    "optimizer.learning_rate": 0.01,
    "train.duration": "100 steps",
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run with averaged parameters, at so high a rate that its best step is not its last."""
    directory = tmp_path_factory.mktemp("runs") / "digits"
    high = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.5, "schedule.optimizer.learning_rate": "constant"}
    result = train_and_evaluate(tiny(high), directory, quiet=True)
    assert result.best is not None
    assert result.best["step"] < result.step
    return directory


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "diabetes"
    train_and_evaluate(tiny(REGRESSION), directory, quiet=True)
    return directory


def rows_of(workdir: Path, split: str) -> np.ndarray:
    """Returns the indices of a split's rows in the arrays of the source."""
    rows = build(load_run(workdir).config).dataset.parts[split].rows
    assert rows is not None
    return rows


def test_predictions_from_raw_inputs_have_the_accuracy_of_the_evaluation(digits):
    """Predicts with the averaged parameters of the best step, as the test split was evaluated."""
    images, labels = load_digits(return_X_y=True)
    rows, run = rows_of(digits, "test"), load_run(digits)
    logits = run.predict(images[rows].reshape(-1, 8, 8, 1))
    assert logits.shape == (len(rows), 10)
    test = json.loads((digits / "result.json").read_text())["test"]
    assert run.step == test["step"]
    assert np.mean(logits.argmax(axis=1) == labels[rows]) == pytest.approx(test["accuracy"], abs=1e-6)
    normalised = run.info.normalise(images[rows].reshape(-1, 8, 8, 1))
    averaged = run.task.predict(*run.state.ema, normalised, run.state.hparams)
    current = run.task.predict(run.state.params, run.state.model_state, normalised, run.state.hparams)
    np.testing.assert_allclose(logits, averaged, atol=1e-4)
    assert not np.allclose(logits, current, atol=1e-2), "else this test shows nothing"


def test_any_number_of_examples_is_predicted_by_four_programs(digits):
    """In pieces that are padded; with those of an evaluation's batch, 4 of 1,024 as one."""
    run = load_run(digits)
    images, _ = load_digits(return_X_y=True)
    images = np.concatenate([images] * 2).reshape(-1, 8, 8, 1)
    most = run.config["data"]["eval_batch_size"]
    expected = np.asarray(run.task.predict(*run.state.ema, run.info.normalise(images), run.state.hparams))
    with count_compilations() as compiled:
        for count in (0, 1, 2, 8, 9, 64, 65, most - 1, most, most + 3, len(images)):
            found = run.predict(images[:count])
            assert found.shape == (count, 10)
            np.testing.assert_allclose(found, expected[:count], atol=1e-4)
    assert compiled.count <= 4


def test_predictions_of_a_regression_are_in_the_targets_own_units(diabetes):
    data: Any = load_diabetes(scaled=False)
    rows = rows_of(diabetes, "test")
    predicted = load_run(diabetes).predict(data["data"][rows].astype(np.float32))
    test = json.loads((diabetes / "result.json").read_text())["test"]
    truth = data["target"][rows]
    assert predicted.shape == truth.shape
    assert np.mean((predicted - truth) ** 2) == pytest.approx(test["mse"], rel=1e-4)
    assert r2_score(truth, predicted) == pytest.approx(test["r2"], abs=1e-4)
    assert 20 < predicted.std() < 200
    assert 100 < predicted.mean() < 200


@pytest.mark.one_fast_of(2)
@pytest.mark.parametrize(
    ("offset", "more"), [(2460000.5, {"parallel.mesh": 2}), (-5e7, {"train.seeds": 2})], ids=["devices", "lanes"]
)
def test_a_regression_far_from_0_reports_and_predicts_as_in_float64(offset, more, tmp_path):
    """The spread is 0.05; float32 holds Julian days to a quarter of a day, and offsets of 5e7 to 4."""
    inputs = 1e6 + np.random.default_rng(0).normal(size=(300, 3))
    targets = offset + 0.05 * (inputs[:, 0] - 1e6)
    np.savez(tmp_path / "data.npz", inputs=inputs, targets=targets)
    own = {"data.name": "arrays", "data.file": "data.npz", "data.path": str(tmp_path)}
    found = train_and_evaluate(tiny(REGRESSION | own | more), tmp_path / "run", quiet=True)
    run, rows = load_run(tmp_path / "run"), rows_of(tmp_path / "run", "test")
    predicted = run.predict(inputs[rows])
    assert predicted.dtype == np.float64
    centred, truth = predicted - offset, targets[rows] - offset
    assert r2_score(truth, centred) > 0.9
    if "train.seeds" in more:
        experiment = build(run.config)
        test = {name: m.result() for name, m in jax.device_get(experiment.evaluate(run.state, "test")).items()}
    else:
        assert found.test is not None
        test = found.test
    assert test["r2"] == pytest.approx(r2_score(truth, centred), rel=1e-4)
    assert test["mse"] == pytest.approx(np.mean((truth - centred) ** 2), rel=1e-4)


def test_inputs_of_another_shape_are_refused_and_lists_are_taken(digits):
    run = load_run(digits)
    with pytest.raises(DataError, match=r"\(3, 8, 8\).*\(n, 8, 8, 1\)"):
        run.predict(np.zeros((3, 8, 8)))
    assert run.predict([[[[0.0]] * 8] * 8]).shape == (1, 10)


def test_a_second_prediction_of_the_same_shape_compiles_nothing(digits):
    run, inputs = load_run(digits), np.zeros((5, 8, 8, 1))
    first = run.predict(inputs)
    with count_compilations() as compiled:
        np.testing.assert_array_equal(run.predict(inputs), first)
    assert compiled.count == 0


def test_an_evaluation_repeats_the_numbers_of_the_run(digits):
    found, result = evaluate(digits), json.loads((digits / "result.json").read_text())
    assert found["test"] == {name: value for name, value in result["test"].items() if name != "step"}
    assert found["step"] == result["best"]["step"]
    assert found["validation"]["loss"] == result["best"]["value"]
    assert json.loads((digits / "evaluation.json").read_text()) == found


def test_an_evaluation_that_cannot_be_written_is_refused_before_it_is_made(digits, tmp_path, monkeypatch, capsys):
    shutil.copytree(digits, tmp_path / "run")
    (tmp_path / "run/evaluation.json").unlink(missing_ok=True)
    (tmp_path / "run/evaluation.json").mkdir()
    monkeypatch.setattr("jaxtrain.commands.evaluate.build", lambda *_, **__: pytest.fail("the data were read"))
    assert main.main(["evaluate", f"--workdir={tmp_path / 'run'}"]) == StorageError.exit_code
    assert "evaluation.json: got the error 'Is a directory'" in capsys.readouterr().err


def test_the_verb_evaluate_needs_no_config(digits, capsys):
    before = read_rows(digits / "metrics.jsonl")
    assert main.main(["evaluate", f"--workdir={digits}"]) == 0
    out = capsys.readouterr().out
    accuracy = json.loads((digits / "result.json").read_text())["test"]["accuracy"]
    assert f"accuracy {accuracy:.4g}" in out
    assert "evaluation.json" in out
    assert read_rows(digits / "metrics.jsonl") == before


def test_directories_without_a_run_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"config\.json"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(tiny()))
    with pytest.raises(StorageError, match="no checkpoint"):
        load_run(tmp_path)


def test_an_evaluation_on_changed_data_is_refused(tmp_path):
    targets = np.arange(200) % 4
    np.savez(tmp_path / "data.npz", inputs=np.random.default_rng(0).normal(size=(200, 8)), targets=targets)
    own = {"data.name": "arrays", "data.file": "data.npz", "data.path": str(tmp_path)}
    train_and_evaluate(tiny(own), tmp_path / "run", quiet=True)
    np.savez(tmp_path / "data.npz", inputs=np.random.default_rng(1).normal(size=(200, 8)), targets=targets)
    with pytest.raises(DataError, match="fingerprint"):
        evaluate(tmp_path / "run")
    assert load_run(tmp_path / "run").predict(np.zeros((1, 8))).shape == (1, 4), "predicting needs no data"


def test_a_run_can_be_moved_and_a_damaged_best_step_is_never_replaced_in_silence(digits, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(digits, moved)
    run = load_run(moved)
    for path in (moved / "checkpoints" / str(run.step) / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(StorageError, match=f"damaged checkpoints alone.*step {run.step}"):
        load_run(moved)


def test_a_schedule_free_run_is_evaluated_and_predicts_at_its_averaged_parameters_and_resumes_whole(tmp_path):
    free = {"optimizer.name": "schedule_free_adamw", "optimizer.learning_rate": 0.02, "train.ema": None}
    free |= {"schedule.optimizer.learning_rate": {"name": "warmup_stable_decay", "decay": 0.0}, "model.dropout": None}
    train_and_evaluate(tiny(free), tmp_path / "whole", quiet=True)
    train_and_evaluate(tiny(free), tmp_path / "cut", trackers=[Interrupting(40)], quiet=True)
    train_and_evaluate(tiny(free), tmp_path / "cut", quiet=True)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    run = load_run(tmp_path / "whole")
    x = run.state.replace(params=schedule_free_average(run.state.opt_state, run.state.params), opt_state=())
    y = run.state.replace(opt_state=())
    experiment = build(tiny(free))
    losses = {}
    for name, state in (("free", run.state), ("x", x), ("y", y)):
        found = experiment.evaluate(state, "validation")
        losses[name] = jax.device_get(found["loss"]).result()
    assert losses["free"] == pytest.approx(losses["x"], rel=1e-5) != pytest.approx(losses["y"], rel=1e-3)
    rows = [row for row in read_rows(tmp_path / "whole" / "metrics.jsonl") if row["split"] == "validation"]
    assert any(row["loss"] == pytest.approx(losses["x"], rel=1e-5) for row in rows)
    inputs = np.random.default_rng(0).random((5, *run.info.input_shape), np.float32)
    plain = dataclasses.replace(run, state=x).predict(inputs)
    np.testing.assert_allclose(run.predict(inputs), plain, rtol=1e-5)
