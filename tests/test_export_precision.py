"""Exports with rounded weights: by independent arithmetic, in size, and measured beside the run."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax import export
from safetensors.numpy import load_file
from sklearn.metrics import accuracy_score, log_loss
from tiny_runs import tiny

from jaxtrain import Source, export_run, load_export, load_run
from jaxtrain.config.resolve import resolve_config
from jaxtrain.errors import StorageError, UsageError
from jaxtrain.export import check
from jaxtrain.export.program import export_program, member_of
from jaxtrain.export.quality import MOST_LOSS, Quality, demand_quality
from jaxtrain.export.stored_weights import Quantized, plain_weights, store_weights
from jaxtrain.main import main
from jaxtrain.training.bookkeeping import to_numbers
from jaxtrain.training.experiment import build
from jaxtrain.training.measuring import Measure, is_measured
from jaxtrain.training.train import train_and_evaluate
from jaxtrain.training.trained_run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a network large enough for its weights to be most of an export."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    given = {"train.duration": "80 steps", "eval.every": "80 steps", "model.hidden": (256, 256), "model.dropout": None}
    train_and_evaluate(tiny(given), folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def exports(run: Path) -> dict[str, Path]:
    """The exports of the run, by how their weights are stored."""
    options = {"float32": [], "bfloat16": ["--precision=bfloat16"], "int8": ["--quantize=int8"]}
    for name, words in options.items():
        assert main(["export", f"--workdir={run}", f"--output={run.parent / name}", "--quiet", *words]) == 0
    return {name: run.parent / name for name in options}


def description_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "model.json").read_text())


def split_of(run: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns raw inputs and labels of a split."""
    dataset = build(load_run(run).config).dataset
    part = dataset.parts[name]
    assert part.rows is not None
    return part.split.inputs[part.rows], dataset.targets(name)


def network(weights: dict[str, np.ndarray], inputs: np.ndarray, run: Path) -> np.ndarray:
    """Computes the logits of the network in float64, by NumPy alone."""
    info = load_run(run).info
    values = ((inputs - info.input_mean[0]) / info.input_std[0]).reshape(len(inputs), -1)
    for layer in range(3):
        values = values @ weights[f"params/Dense_{layer}/kernel"] + weights[f"params/Dense_{layer}/bias"]
        values = np.maximum(values, 0.0) if layer < 2 else values
    return values


def test_int8_weights_are_the_nearest_of_255_levels_in_each_channel(run: Path, exports: dict[str, Path]):
    exact = {
        name: array.astype(np.float64) for name, array in load_file(exports["float32"] / "weights.safetensors").items()
    }
    stored = load_file(exports["int8"] / "weights.safetensors")
    restored = {}
    for name, weights in exact.items():
        if weights.ndim < 2:
            np.testing.assert_array_equal(stored[name], weights)
            restored[name] = weights
            continue
        step = np.abs(weights).max(axis=0) / 127
        np.testing.assert_allclose(stored[f"{name}_scale"], step, rtol=1e-6)
        assert stored[name].dtype == np.int8
        restored[name] = stored[name] * stored[f"{name}_scale"].astype(np.float64)
        assert (np.abs(restored[name] - weights) <= 0.5 * step * (1 + 1e-5)).all()
        assert (np.abs(stored[name]).max(axis=0) == 127).all()
    inputs, _ = split_of(run, "test")
    found = load_export(exports["int8"]).predict(inputs)["logits"]
    np.testing.assert_allclose(found, network(restored, inputs, run), atol=1e-4)
    assert abs(found - load_run(run).predict(inputs)).max() > 1e-3, "else nothing was rounded"


def test_bfloat16_weights_are_the_nearest_ones_of_16_bits(run: Path, exports: dict[str, Path]):
    exact = load_file(exports["float32"] / "weights.safetensors")
    stored = load_file(exports["bfloat16"] / "weights.safetensors")
    kernel = exact["params/Dense_1/kernel"]
    bits = np.ascontiguousarray(kernel).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)  # half to even
    np.testing.assert_array_equal(stored["params/Dense_1/kernel"].astype(np.float32), rounded)
    assert stored["params/Dense_1/bias"].dtype == np.float32
    inputs, _ = split_of(run, "test")
    weights = {name: array.astype(np.float64) for name, array in stored.items()}
    found = load_export(exports["bfloat16"]).predict(inputs)["logits"]
    np.testing.assert_allclose(found, network(weights, inputs, run), atol=1e-4)


def test_files_are_smaller_by_as_much_as_the_weights(exports: dict[str, Path]):
    for name in ("model.jaxexp", "weights.safetensors"):
        sizes = {kind: (folder / name).stat().st_size for kind, folder in exports.items()}
        assert sizes["int8"] <= 0.30 * sizes["float32"]
        assert sizes["bfloat16"] <= 0.52 * sizes["float32"]


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_metrics_stand_beside_those_of_the_run(kind: str, run: Path, exports: dict[str, Path]):
    inputs, targets = split_of(run, "test")
    described = description_of(exports[kind])
    quality = described["quality"]
    assert (quality["split"], quality["examples"], described["weights"]) == ("test", len(targets), kind)
    for who, logits in (
        ("run", load_run(run).predict(inputs)),
        ("export", load_export(exports[kind]).predict(inputs)["logits"]),
    ):
        assert quality[who]["accuracy"] == pytest.approx(accuracy_score(targets, logits.argmax(axis=1)))
        assert quality[who]["loss"] == pytest.approx(log_loss(targets, jax.nn.softmax(logits)), rel=1e-4)
    assert quality["run"]["loss"] != quality["export"]["loss"]
    assert quality["run"] == pytest.approx({k: v for k, v in described["test"].items() if k != "step"}, rel=1e-4)
    card = (exports[kind] / "README.md").read_text()
    assert f"The weights are stored in {kind}" in card
    assert f"| accuracy | {quality['run']['accuracy']} | {quality['export']['accuracy']} |" in card
    assert description_of(exports["float32"])["quality"] is None


def test_the_report_says_what_rounding_costs(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["export", f"--workdir={run}", f"--output={tmp_path / 'out'}", "--quantize=int8"]) == 0
    said = capsys.readouterr().out
    assert "weights in int8; on 180 examples of test:" in said
    assert said.count("accuracy 0.") == 2
    assert "repeats the run, with its weights rounded to int8, on" in said


def test_weights_that_cost_too_much_are_refused_with_the_numbers(
    run: Path, exports: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Three levels are too few; what was there stays."""
    export_run(run, tmp_path / "out")
    before = (tmp_path / "out" / "model.jaxexp").read_bytes()
    monkeypatch.setattr("jaxtrain.export.stored_weights.LARGEST", 1)
    said = r"--quantize: got accuracy 0\.\d+, where the run has 0\.\d+, on 180 examples of the test split; expected"
    with pytest.raises(UsageError, match=said):
        export_run(run, tmp_path / "out", quantize="int8")
    assert (tmp_path / "out" / "model.jaxexp").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_that_computes_otherwise_than_its_rounded_weights_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("jaxtrain.export.program.Member.plain", member_of_float32(run))
    with pytest.raises(StorageError, match=r"'logits' off by .* of its spread"):
        export_run(run, tmp_path / "out", quantize="int8")


def member_of_float32(run: Path) -> Any:
    """Returns a method that gives the weights before they were rounded."""
    member = member_of(load_run(run))
    return lambda _: member


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--precision=float16"], "--precision: got 'float16'; expected one of float32, bfloat16"),
        (["--quantize=int4"], "--quantize: got 'int4'; expected int8"),
        (["--quantize=int8", "--precision=bfloat16"], "--quantize: got it with --precision=bfloat16; expected one of"),
    ],
)
def test_types_that_there_are_not_are_named(
    options: list[str], said: str, run: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["export", f"--workdir={run}", *options]) == 2
    assert said in capsys.readouterr().err
    assert not (run / "export").exists()


KINDS: dict[str, dict[str, Any]] = {
    "cnn": {"features": (4, 4), "hidden": (8,)},
    "vit": {"width": 8, "layers": 1, "heads": 2, "patch": 4},
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
def test_each_kind_of_model_computes_with_the_rounded_weights(name: str, storage: Any, tmp_path: Path):
    pictures = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3)).astype(np.uint8)
    model = {f"model.{knob}": value for knob, value in KINDS[name].items()}
    given = {"data.name": "memory", "data.batch_size": 8, "model.name": name, **model, "parallel.mesh": 1}
    config = resolve_config({}, given).config
    experiment = build(config, data=Source({"train": (pictures, np.arange(64) % 2)}, classes=2))
    run = Run(tmp_path, config, experiment.dataset.info, experiment.rules, 0, experiment.init())
    member = member_of(run).stored(storage)
    program = export.deserialize(bytearray(export_program(run, [member])))
    found = jax.jit(program.call)(inputs=pictures[:8])["logits"]
    np.testing.assert_allclose(found, jax.jit(member.plain().predict)(pictures[:8]), atol=1e-5)
    stored = [array.dtype.name for array in member.arrays.values() if array.ndim > 1]
    assert set(stored) == {storage}


def test_zero_channels_and_vectors_stay_exact():
    weights = {"kernel": np.array([[0.0, 1.0], [0.0, -2.0]], np.float32), "bias": np.array([0.3], np.float32)}
    stored = store_weights(weights, "int8")
    assert isinstance(stored["kernel"], Quantized)
    assert stored["kernel"].values.tolist() == [[0, 64], [0, -127]]
    restored = plain_weights(stored)
    assert restored["kernel"][:, 0].tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(restored["bias"], weights["bias"])


def quality_of(run: dict[str, float], export: dict[str, float], falling: tuple[str, ...] = ()) -> Quality:
    return Quality("test", 100, run, export, falling)


def test_what_may_be_lost_is_a_point_or_a_share_of_the_loss():
    demand_quality(quality_of({"r2": 0.80}, {"r2": 0.795}, ("r2",)), "--quantize")
    for worse in (0.78, np.nan):
        with pytest.raises(UsageError, match=r"expected at most 0\.01 less\. Take --precision=bfloat16"):
            demand_quality(quality_of({"r2": 0.80}, {"r2": worse}, ("r2",)), "--quantize")
    demand_quality(quality_of({"loss": 2.0}, {"loss": 2.0 * (1 + 0.9 * MOST_LOSS)}), "--precision")
    with pytest.raises(UsageError, match=r"--precision: got loss 2\.1, where the run has 2"):
        demand_quality(quality_of({"loss": 2.0}, {"loss": 2.1}), "--precision")


def test_detections_are_measured_by_their_own_metrics():
    info: Any = type("Info", (), {"box_classes": 1, "standardised": False, "void": None})()
    config = {"task": {"name": "detection", "metrics": ("mean_average_precision_50",)}, "loss": {"name": "focal_giou"}}
    assert is_measured(config)
    assert not is_measured({**config, "loss": {"name": "mine:loss"}})
    found = np.array([[[0, 0, 10, 10, 0.9], [50, 50, 10, 10, 0.8]], [[0, 0, 10, 10, 0.9], [9, 9, 1, 1, 0.7]]])
    boxes = np.array([[[0, 0, 0, 10, 10], [0, 0, 20, 10, 10]], [[0, 0, 0, 10, 10], [-1, -1, -1, -1, -1]]], np.float32)
    measure = Measure(config, info, 8)
    measure.add(found, boxes)
    assert to_numbers(measure.metrics) == {"mean_average_precision_50": pytest.approx(2 / 3, abs=1e-3)}


def test_the_tolerance_is_that_of_the_coarser_of_run_and_weights():
    assert check.tolerance_of("float32", "float32") == check.tolerance_of("float32", "int8") == 1e-5
    assert check.tolerance_of("float32", "bfloat16") == check.tolerance_of("bfloat16", "int8") == 2e-2
