"""ONNX: whole models, with what comes before and after them, give the numbers of the program of JAX."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from flax import nnx
from onnx import numpy_helper
from safetensors.numpy import load_file
from test_export import COUNT, PEOPLE, PICTURES, SHORT, flat, images, people
from test_onnx import assert_equal
from tiny_runs import tiny

from jaxtrain import Source, Task, export_run, load_run, nnx_task, pytree_task
from jaxtrain.config.resolve import resolve_config
from jaxtrain.errors import JaxtrainWarning, StorageError, UsageError
from jaxtrain.export import check, formats, write
from jaxtrain.export.formats import choose_formats
from jaxtrain.export.loading import inputs_of
from jaxtrain.export.outputs import head_of
from jaxtrain.export.program import Member, member_of, program_of
from jaxtrain.export.to_onnx.program import onnx_program
from jaxtrain.export.to_onnx.running import open_model
from jaxtrain.main import main
from jaxtrain.models.transformer import Transformer
from jaxtrain.training.experiment import build
from jaxtrain.training.train import train_and_evaluate
from jaxtrain.training.trained_run import Run

RANDOM = np.random.default_rng(0)
PICTURE_ROWS = RANDOM.integers(0, 256, (64, 16, 16, 3)).astype(np.uint8)


def perturbed(member: Member) -> Member:
    """Returns a member none of whose weights is 0, so that no part of the model is without effect."""

    def move(leaf: np.ndarray) -> np.ndarray:
        is_float = leaf.dtype.kind == "f"
        return (leaf + 0.1 * np.abs(RANDOM.normal(size=leaf.shape))).astype(leaf.dtype) if is_float else leaf

    return replace(member, params=jax.tree.map(move, member.params), model_state=jax.tree.map(move, member.model_state))


def untrained(tmp_path: Path, given: dict[str, Any], data: Source) -> Run:
    config = resolve_config({}, {"data.name": "memory", "data.batch_size": 8, "parallel.mesh": 1, **flat(given)}).config
    experiment = build(config, data=data)
    return Run(tmp_path, config, experiment.dataset.info, experiment.rules, 0, experiment.init())


def assert_same(run: Run, inputs: Any, tolerance: float = 1e-5) -> onnx.ModelProto:
    """Compares model and program at several numbers of examples; returns the model."""
    member = perturbed(member_of(run))
    content = onnx_program(run, {0: member})
    predict = open_model(content)
    form = inputs_of(run.info)
    program = jax.jit(program_of(form, [member], head_of(run.config["task"]["name"], run.info)))
    arguments = form.arguments(inputs, allow_nan=True)
    for size in (1, 7):
        rows = {name: array[:size] for name, array in arguments.items()}
        found, expected = predict(rows), program(**rows)
        assert found.keys() == expected.keys()
        for name, wanted in expected.items():
            assert (found[name].shape, found[name].dtype) == (wanted.shape, wanted.dtype)
            wanted = np.asarray(wanted, np.float64)
            scale = max(float(np.ptp(wanted[np.isfinite(wanted)])), 1e-3)
            np.testing.assert_allclose(found[name], wanted, atol=tolerance * scale, rtol=tolerance)
    return onnx.load_from_string(content)


MODELS: dict[str, dict[str, Any]] = {
    **{name: {"name": name, **knobs} for name, knobs in PICTURES.items()},
    **{
        f"mlp, {norm}, {activation}": {"name": "mlp", "hidden": (16,), "norm": norm, "activation": activation}
        for norm, activation in (("batch", "relu"), ("layer", "gelu"), ("group", "silu"), ("rms", "tanh"))
    },
    "resnet18": {"name": "resnet", "layers": 18, "width": 4, "norm": "group", "stem": "imagenet"},
}


@pytest.mark.parametrize("name", MODELS)
def test_models_of_pictures(name: str, tmp_path: Path):
    masks = name == "unet"
    targets = PICTURE_ROWS[..., 0] % 2 if masks else np.arange(64) % 2
    given = {"task.name": "segmentation" if masks else "classification", "model": MODELS[name]}
    loss = {"loss.name": "binary_cross_entropy"} if masks else {}
    run = untrained(tmp_path, {**given, **loss}, Source({"train": (PICTURE_ROWS, targets)}, classes=2))
    model = assert_same(run, PICTURE_ROWS)
    weights = sum(array.nbytes for array in member_of(run).arrays.values())
    assert model.ByteSize() < 1.01 * weights + 2**16
    if name in PICTURES:
        assert "Conv" in {node.op_type for node in model.graph.node}


TASKS: dict[str, tuple[dict[str, Any], np.ndarray, dict[str, Any]]] = {
    "three kinds of pixels": ({"task.name": "segmentation"}, PICTURE_ROWS[..., 0] % 3, {"classes": 3}),
    "one label or none": (
        {"task.name": "binary_classification", "loss.name": "binary_cross_entropy"},
        np.arange(64) % 2,
        {"classes": 2},
    ),
    "several labels": (
        {"task.name": "multi_label", "loss.name": "binary_cross_entropy"},
        (RANDOM.random((64, 3)) < 0.5).astype(np.int8),
        {"class_names": ("a", "b", "c")},
    ),
    "numbers": ({"task.name": "regression", "loss.name": "mse"}, RANDOM.normal(5.0, 2.0, (64, 2)), {}),
}


@pytest.mark.parametrize("name", TASKS)
def test_outputs_of_tasks(name: str, tmp_path: Path):
    given, targets, described = TASKS[name]
    model = {"name": "unet", "width": 4, "depth": 1} if "pixels" in name else {"name": "mlp", "hidden": (8,)}
    assert_same(
        untrained(tmp_path, {**given, "model": model}, Source({"train": (PICTURE_ROWS, targets)}, **described)),
        PICTURE_ROWS,
    )


def test_boxes_without_those_that_overlap(tmp_path: Path):
    boxes = np.tile(np.array([[[0, 2, 3, 8, 7]]], np.float32), (64, 1, 1))
    task = {"name": "detection", "candidates": 64}  # as many steps of a loop that leaves out what overlaps
    given = {"task": task, "loss.name": "focal_giou", "model": {"name": "grid_resnet", "widths": (4, 8)}}
    run = untrained(tmp_path, given, Source({"train": (PICTURE_ROWS, boxes)}, box_classes=1))
    model = assert_same(run, PICTURE_ROWS, 2e-4)  # sizes are exponentials, which multiply errors
    assert model.ByteSize() < sum(array.nbytes for array in member_of(run).arrays.values()) + 2**16


@pytest.mark.parametrize(
    "model", [{"name": "mlp", "hidden": (8,)}, {"name": "tabular_mlp", "hidden": (8,), "norm": "layer"}]
)
def test_tables(model: dict[str, Any], tmp_path: Path):
    run = untrained(tmp_path, {"model": model, "data.quantiles": 1000}, PEOPLE)
    columns = {name: column[:40] for name, column in people()[0].items()}
    columns["job"] = np.where(np.arange(40) == 3, "astronaut", columns["job"])
    columns["day"] = np.where(np.arange(40) == 5, 1e300, columns["day"])
    model_of_table = assert_same(run, columns)
    weights = sum(array.nbytes for array in member_of(run).arrays.values())
    assert model_of_table.ByteSize() < 1.01 * weights + 2**16, "the quantiles of two columns among them"
    types = {value.name: value.type.tensor_type.elem_type for value in model_of_table.graph.input}
    assert types == {"numbers": onnx.TensorProto.DOUBLE, "codes": onnx.TensorProto.INT32}


class Own(nn.Module):
    """A user's model: a recurrent cell over the rows of a picture, and one layer that ONNX lacks, if asked for."""

    outputs: int
    spectrum: bool = False

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        rows = inputs.reshape(*inputs.shape[:2], -1)
        if self.spectrum:
            rows = Spectrum()(rows)
        hidden: Any = nn.RNN(nn.GRUCell(8))(rows)
        return nn.Dense(self.outputs)(nn.LayerNorm()(hidden[:, -1]))


class Spectrum(nn.Module):
    @nn.compact
    def __call__(self, rows: jax.Array) -> jax.Array:
        return jnp.abs(jnp.fft.rfft(rows))


class OwnNNX(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.convolution = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.out = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        hidden = nnx.silu(self.norm(self.convolution(inputs.astype(jnp.float32) / 255.0)))
        return self.out(hidden.mean(axis=(1, 2)))


def own_nnx(model: Any, loss: Any, info: Any) -> Task:
    return nnx_task(lambda values, rngs: OwnNNX(rngs), loss, ("accuracy",))


def own_pytree(model: Any, loss: Any, info: Any) -> Task:
    def make(values: Any, key: jax.Array) -> dict[str, jax.Array]:
        return {"weights": jax.random.normal(key, (768, 2)), "order": jax.random.permutation(key, 768)}

    def apply(tree: dict[str, jax.Array], inputs: jax.Array, key: jax.Array, train: bool) -> jax.Array:
        return inputs.reshape(inputs.shape[0], -1)[:, tree["order"]].astype(jnp.float32) @ tree["weights"]

    return pytree_task(make, apply, loss, ("accuracy",))


OWN = {
    "linen": {"model.name": f"{__name__}:Own"},
    "nnx": {"task.name": f"{__name__}:own_nnx"},
    "pytree": {"task.name": f"{__name__}:own_pytree"},
}


@pytest.mark.parametrize("kind", OWN)
def test_modules_of_a_user(kind: str, tmp_path: Path):
    assert_same(
        untrained(tmp_path, OWN[kind], Source({"train": (PICTURE_ROWS, np.arange(64) % 2)}, classes=2)), PICTURE_ROWS
    )


def test_a_transformer_of_tokens():
    module = Transformer(17, width=16, layers=3, heads=2)
    tokens = RANDOM.integers(0, 17, (5, 6)).astype(np.int32)
    weights = module.init(jax.random.key(0), tokens)
    assert_equal(lambda tokens: module.apply(weights, tokens), tokens, tolerance=1e-5)


def own_run(folder: Path, **given: Any) -> Path:
    """Trains a user's model for two steps."""
    data = Source({"train": (PICTURE_ROWS, np.arange(64) % 2)}, classes=2)
    config = {"data.name": "memory", "data.batch_size": 8, "parallel.mesh": 1, "train.duration": "2 steps", **given}
    train_and_evaluate(resolve_config({}, config).config, folder, quiet=True, data=data)
    return folder


def test_a_layer_that_onnx_lacks_is_named_and_leaves_the_rest_of_the_export(tmp_path: Path):
    data = Source({"train": (PICTURE_ROWS, np.arange(64) % 2)}, classes=2)
    own_run(tmp_path / "run", **{"model.name": f"{__name__}:Own", "model.spectrum": True})
    named = r"onnx for a model with 'fft' in .*Spectrum_0.*test_onnx_models\.py"
    with pytest.raises(UsageError, match=named):
        export_run(tmp_path / "run", data=data, formats=["onnx"])
    assert not (tmp_path / "run" / "export").exists()
    with pytest.warns(JaxtrainWarning, match=named):
        folder, described = export_run(tmp_path / "run", data=data)
    assert "onnx" not in described
    assert "model.onnx" not in described["files"]
    assert (folder / "model.jaxexp").exists()


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two seeds on digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    train_and_evaluate(tiny({**SHORT, "train.seeds": 2}), folder, quiet=True)
    return folder


def test_the_command_writes_a_model_whose_initializers_are_the_weights(
    digits: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["export", f"--workdir={digits}", "--format=onnx"]) == 0
    printed = capsys.readouterr().out
    assert "  model.onnx: logits " in printed
    assert "MLmodel" not in printed
    folder = digits / "export"
    model = onnx.load(folder / "model.onnx")
    found = {array.name: numpy_helper.to_array(array) for array in model.graph.initializer}
    for name, expected in load_file(folder / "weights.safetensors").items():
        np.testing.assert_array_equal(found[name], expected)
    described = json.loads((folder / "model.json").read_text())
    assert described["onnx"]["inputs"] == {"inputs": {"shape": ["n", 8, 8, 1], "dtype": "uint8"}}
    assert described["check"]["worst"]["model.onnx"].keys() == {"logits", "probabilities", "class"}
    predict = open_model((folder / "model.onnx").read_bytes())
    expected = load_run(digits).predict(images())
    np.testing.assert_allclose(predict({"inputs": images().astype(np.uint8)})["logits"], expected, atol=1e-5)
    assert json.loads({entry.key: entry.value for entry in model.metadata_props}["class_names"]) == list("0123456789")


@pytest.mark.parametrize(
    ("chosen", "stored"),
    [({"quantize": "int8"}, onnx.TensorProto.INT8), ({"precision": "bfloat16"}, onnx.TensorProto.BFLOAT16)],
)
def test_rounded_weights_are_stored_as_they_are(
    chosen: dict[str, Any], stored: int, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(write, "demand_quality", lambda *given: None)  # of a run of a few steps,
    monkeypatch.setitem(check.TOLERANCES, "bfloat16", 0.1)  # whose outputs hardly spread
    folder, described = export_run(digits, tmp_path / "rounded", formats=["onnx"], **chosen)
    types = {array.name: array.data_type for array in onnx.load(folder / "model.onnx").graph.initializer}
    assert types["params/Dense_0/kernel"] == stored
    assert types["params/Dense_0/bias"] == onnx.TensorProto.FLOAT
    assert max(described["check"]["worst"]["model.onnx"].values()) <= described["check"]["tolerance"]


def test_an_ensemble_holds_the_weights_of_all_seeds(digits: Path, tmp_path: Path):
    folder, _ = export_run(digits, tmp_path / "all", ensemble=True, formats=["onnx"])
    names = {array.name for array in onnx.load(folder / "model.onnx").graph.initializer}
    assert set(load_file(folder / "weights.safetensors")) <= names


def test_a_model_that_differs_from_the_run_is_not_left_behind(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = onnx_program(load_run(digits, seed=1), {1: member_of(load_run(digits, seed=1))})
    monkeypatch.setattr(write, "_convert", lambda *given, **chosen: other)
    with pytest.raises(StorageError, match=r"model\.onnx: got 'logits' off by .* at 1 examples"):
        export_run(digits, tmp_path / "output", seed=0)
    assert not list(tmp_path.iterdir())


def test_numbers_far_from_0_leave_in_their_own_units_as_float64(tmp_path: Path):
    inputs = 1e6 + RANDOM.normal(size=(COUNT, 3))
    data = Source({"train": (inputs, 2460000.5 + 0.05 * (inputs[:, 0] - 1e6))})
    given = {"task.name": "regression", "loss.name": "mse", "data.name": "memory"}
    train_and_evaluate(tiny({**SHORT, **given}), tmp_path / "run", quiet=True, data=data)
    folder, described = export_run(tmp_path / "run", data=data)
    assert described["onnx"]["inputs"]["inputs"]["dtype"] == "float64"
    assert described["onnx"]["outputs"]["numbers"]["dtype"] == "float64"
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    found: Any = session.run(["numbers"], {"inputs": inputs[:20]})[0]
    np.testing.assert_allclose(found, load_run(tmp_path / "run").predict(inputs[:20]), rtol=0, atol=1e-6)


def test_an_output_with_the_name_of_an_input_has_another(tmp_path: Path):
    columns, _ = people()
    data = Source({"train": (columns, RANDOM.normal(size=COUNT))})
    given = {"task.name": "regression", "loss.name": "mse", "data.name": "memory"}
    train_and_evaluate(tiny({**SHORT, **given}), tmp_path / "run", quiet=True, data=data)
    _, described = export_run(tmp_path / "run", data=data)
    assert described["onnx"]["outputs"].keys() == {"predicted_numbers"}


def test_bfloat16_is_float32_in_onnx(tmp_path: Path):
    train_and_evaluate(tiny({**SHORT, "train.precision": "bfloat16"}), tmp_path / "run", quiet=True)
    _, described = export_run(tmp_path / "run", formats=["onnx"])
    assert described["check"]["tolerance"] == 2e-2
    assert max(described["check"]["worst"]["model.onnx"].values()) <= 2e-2


def test_formats_are_chosen_by_name_or_by_what_is_installed(monkeypatch: pytest.MonkeyPatch):
    assert choose_formats(None) == (("onnx", "mlflow"), False)
    assert choose_formats(["jaxexp", "mlflow"]) == (("mlflow",), True)
    with pytest.raises(UsageError, match=r"--format: got 'onxx'; expected some of .* Did you mean 'onnx'"):
        choose_formats(["onxx"])
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    assert choose_formats(None) == (("mlflow",), False)
    with pytest.raises(UsageError, match=r"Run pip install 'jaxtrain\[onnx\]'"):
        choose_formats(["onnx"])
