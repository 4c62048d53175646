"""Exports: programs that JAX alone runs give the run's numbers, and what is damaged, unfinished or wrong is refused."""

import json
import re
import shutil
import subprocess
import venv
from importlib import metadata
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from safetensors.numpy import load_file
from sklearn.datasets import load_digits
from tiny_runs import PATIENCE, ROOT, Interrupting, tiny

from jaxtrain import Source, export_run, load_export, load_run
from jaxtrain.config.resolve import resolve_config
from jaxtrain.data.table_encoding import TableEncoding
from jaxtrain.data.tables import Table
from jaxtrain.errors import DataError, StorageError, UsageError
from jaxtrain.export import check, mlflow_files, write
from jaxtrain.export.card import TO_BE_FILLED_IN
from jaxtrain.export.check import CheckedRows, check_export
from jaxtrain.export.exported_model import ExportedModel
from jaxtrain.export.loading import inputs_of
from jaxtrain.export.outputs import head_of
from jaxtrain.export.program import export_program, member_of
from jaxtrain.export.rows import decode
from jaxtrain.export.two_floats import centre, split
from jaxtrain.main import main
from jaxtrain.storage.locks import run_lock
from jaxtrain.training.experiment import build
from jaxtrain.training.train import train_and_evaluate
from jaxtrain.training.trained_run import Run

SHORT = {"train.duration": "20 steps", "eval.every": "20 steps"}
COUNT = 200


def people() -> tuple[dict[str, Any], np.ndarray]:
    """Columns far from 0, with ties and missing values, and their labels."""
    draw = np.random.default_rng(0)
    day = draw.normal(2460000.5, 3.0, COUNT)
    columns = {
        "day": np.where(np.arange(COUNT) % 17 == 0, np.nan, day),
        "gain": np.where(draw.random(COUNT) < 0.8, 0.0, draw.normal(5e3, 1e3, COUNT)),
        "job": np.where(np.arange(COUNT) % 19 == 0, "", draw.choice(["cook", "nurse", "pilot"], COUNT)),
        "town": draw.choice(["here", "there"], COUNT),
    }
    return columns, (day > 2460000.5).astype(int)


PEOPLE = Source({"train": people()})


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three seeds on numbers, with averaged parameters; its export is that of seed 1."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    train_and_evaluate(tiny({**SHORT, "train.seeds": 3, "seed": 1}), folder, quiet=True)
    assert main(["export", f"--workdir={folder}", "--seed=2", "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table whose model takes codes of categories, and ranks of numbers; exported."""
    folder = tmp_path_factory.mktemp("runs") / "table"
    given = {"data.quantiles": 30, "model": {"name": "tabular_mlp", "hidden": (8,)}, "data.name": "memory"}
    train_and_evaluate(tiny({**SHORT, **flat(given)}), folder, quiet=True, data=PEOPLE)
    export_run(folder, data=PEOPLE)
    return folder


def flat(given: dict[str, Any]) -> dict[str, Any]:
    """Returns overrides by dotted names."""
    nested = {k: v for k, v in given.items() if isinstance(v, dict)}
    inner = {f"{section}.{knob}": value for section, knobs in nested.items() for knob, value in knobs.items()}
    return {k: v for k, v in given.items() if k not in nested} | inner


def images() -> np.ndarray:
    return load_digits(return_X_y=True)[0][:10].reshape(-1, 8, 8, 1)


def test_the_export_of_a_seed_predicts_as_its_run_does(digits: Path):
    model = load_export(digits / "export")
    for count in (0, 1, 3, 10):
        found = model.predict(images()[:count])
        expected = load_run(digits, seed=2).predict(images()[:count])
        np.testing.assert_allclose(found["logits"], expected, atol=1e-5)
        assert found["class"].tolist() == expected.argmax(axis=1).tolist()
        np.testing.assert_allclose(found["probabilities"], jax.nn.softmax(expected), atol=1e-6)
    other = load_run(digits, seed=1).predict(images())
    assert not np.allclose(other, model.predict(images())["logits"], atol=1e-2), "else this test shows nothing"


def needed_by(*packages: str) -> set[str]:
    """Returns the packages with all that they depend on, without their extras."""
    found: set[str] = set()
    left = list(packages)
    while left:
        name = re.split(r"[^\w.-]", left.pop())[0].lower().replace("_", "-")
        if name not in found:
            found.add(name)
            left += [line for line in metadata.requires(name) or () if "extra ==" not in line]
    return found


@pytest.fixture(scope="module")
def jax_alone(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a Python in whose environment nothing but JAX and flatbuffers is installed."""
    folder = tmp_path_factory.mktemp("jax-alone")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in needed_by("jax", "flatbuffers"):
        files = metadata.distribution(name).files or ()
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            (packages / top).symlink_to(Path(str(metadata.distribution(name).locate_file(top))))
    return [str(folder / "bin" / "python"), "-E", "-s", "-P"]


def run_alone(command: list[str], code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, "-c", code], cwd=folder, capture_output=True, text=True, timeout=PATIENCE)


def test_that_environment_has_nothing_of_this_framework(jax_alone: list[str], tmp_path: Path):
    listed = run_alone(
        jax_alone, "from importlib import metadata; print(*[d.name for d in metadata.distributions()])", tmp_path
    )
    found = {name.lower().replace("_", "-") for name in listed.stdout.split()}
    assert found == needed_by("jax", "flatbuffers")
    assert not found & {"jaxtrain", "flax", "optax", "orbax-checkpoint", "safetensors", "onnx", "scikit-learn"}
    for name in ("jaxtrain", "flax", "safetensors"):
        assert "ModuleNotFoundError" in run_alone(jax_alone, f"import {name}", tmp_path).stderr


def test_the_card_shows_how_jax_alone_runs_the_program(digits: Path, jax_alone: list[str]):
    """The code of the card, and the examples, in an environment of JAX and flatbuffers alone."""
    folder = digits / "export"
    shown = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    examples = load_file(folder / "examples.safetensors")
    np.save(digits / "given.npy", examples["inputs/inputs"])
    own = f"print(model.call(inputs=np.load({str(digits / 'given.npy')!r}))['logits'].tolist())"
    done = run_alone(jax_alone, f"{shown}\n{own}", folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(found, examples["outputs/logits"], atol=1e-5)


def test_the_code_of_an_export_takes_columns_by_name_with_jax_alone(table: Path, jax_alone: list[str]):
    columns = {name: column[:5].tolist() for name, column in people()[0].items()}
    code = f"""
import sys

sys.path.insert(0, "code")
from exported_model import ExportedModel

nan = float("nan")
print(ExportedModel(".").predict({columns!r})["logits"].tolist())
"""
    done = run_alone(jax_alone, code, table / "export")
    assert done.returncode == 0, done.stderr
    expected = load_run(table).predict({name: column[:5] for name, column in people()[0].items()})
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), expected, atol=2e-5 * np.ptp(expected))


def test_the_program_is_for_three_platforms_and_the_description_tells_what_it_takes(digits: Path):
    folder = digits / "export"
    program = export.deserialize(bytearray((folder / "model.jaxexp").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    described = json.loads((folder / "model.json").read_text())
    assert described["inputs"] == {"inputs": {"shape": ["n", 8, 8, 1], "dtype": "uint8"}}
    assert described["outputs"]["logits"] == {"shape": ["n", 10], "dtype": "float32"}
    assert described["run"]["members"][0]["seed"] == 2
    assert described["class_names"] == list("0123456789")
    assert max(described["check"]["worst"]["model.jaxexp"].values()) <= 1e-5
    assert described["test"] == json.loads((digits / "result.json").read_text())["test"]
    sizes = {name: file["bytes"] for name, file in described["files"].items()}
    assert sizes["model.jaxexp"] < 1.01 * sizes["weights.safetensors"] + 2**16


PICTURES = {
    "cnn": {"features": (4, 4), "hidden": (8,)},
    "resnet9": {"widths": (4, 4, 4, 4)},
    "unet": {"width": 4},
    "vit": {"width": 8, "layers": 1, "heads": 2, "patch": 4},
}


@pytest.mark.parametrize("name", PICTURES)
def test_models_of_pictures_are_exported_with_native_convolutions(name: str, tmp_path: Path):
    """Whatever machine traces them, and with as little beside the weights as any other program."""
    pictures = np.tile(np.arange(64, dtype=np.uint8)[:, None, None, None] % 2, (1, 16, 16, 3))
    masks = name == "unet"
    targets = pictures[..., 0] if masks else np.arange(64) % 2
    task = {"name": "segmentation" if masks else "classification"}
    given = {"task": task, "data.name": "memory", "data.batch_size": 8, "model": {"name": name, **PICTURES[name]}}
    loss = {"loss.name": "binary_cross_entropy"} if masks else {}
    config = resolve_config({}, flat({**given, **loss, "parallel.mesh": 1})).config
    experiment = build(config, data=Source({"train": (pictures, targets)}, classes=2))
    run = Run(tmp_path, config, experiment.dataset.info, experiment.rules, 0, experiment.init())
    member = member_of(run)
    content = export_program(run, [member])
    program = export.deserialize(bytearray(content))
    assert "stablehlo.convolution" in program.mlir_module()
    assert len(content) < 1.01 * sum(array.nbytes for array in member.arrays.values()) + 2**16


class Wide(nn.Module):
    """A model as a user writes it: `len(inputs)` has no form in a program for any number of examples."""

    outputs: int

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        return nn.Dense(self.outputs)(nn.relu(nn.Dense(8)(inputs.reshape(len(inputs), -1))))


@pytest.mark.parametrize(
    ("own", "output"),
    [({"model": {"name": f"{__name__}:Wide"}}, "logits"), ({"task.name": "own_modules:plain_functions"}, "outputs")],
)
def test_a_model_that_asks_for_the_number_of_examples_is_exported(own: dict[str, Any], output: str, tmp_path: Path):
    train_and_evaluate(tiny({**SHORT, **own}), tmp_path, quiet=True)
    folder, _ = export_run(tmp_path, formats=["jaxexp"])
    inputs = load_digits(return_X_y=True)[0][:9].reshape(-1, 8, 8, 1).astype(np.uint8)
    found = load_export(folder).predict(inputs)[output]
    np.testing.assert_allclose(found, load_run(tmp_path).predict(inputs), atol=1e-5)


def test_the_archive_holds_the_averaged_weights(digits: Path):
    run = load_run(digits, seed=2)
    arrays = load_file(digits / "export" / "weights.safetensors")
    params, _ = run.state.ema
    np.testing.assert_array_equal(arrays["params/Dense_0/kernel"], params["Dense_0"]["kernel"])
    assert not np.array_equal(arrays["params/Dense_0/kernel"], run.state.params["Dense_0"]["kernel"])


def test_the_same_weights_are_always_the_same_bytes(digits: Path, tmp_path: Path):
    run = load_run(digits, seed=2)
    contents = set()
    for number in range(8):
        write._write_weights(tmp_path / f"{number}.safetensors", {2: member_of(run)}, run)
        contents.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(contents) == 1, "a tracker would take an export again for a new model"


def test_an_ensemble_has_the_mean_probabilities_of_all_seeds(digits: Path, tmp_path: Path):
    folder, described = export_run(digits, tmp_path / "all", ensemble=True)
    assert [member["seed"] for member in described["run"]["members"]] == [1, 2, 3]
    found = load_export(folder).predict(images())
    each = [jax.nn.softmax(load_run(digits, seed=seed).predict(images())) for seed in (1, 2, 3)]
    np.testing.assert_allclose(found["probabilities"], np.mean(each, axis=0), atol=1e-6)
    archive = load_file(folder / "weights.safetensors")
    assert {name.partition("/")[0] for name in archive} == {"seed_1", "seed_2", "seed_3"}


def test_a_table_enters_as_it_lies_in_files(table: Path):
    """Numbers far from 0, ties at a quantile, missing values and categories that no training row has."""
    model, run = load_export(table / "export"), load_run(table)
    columns = {name: column[:40] for name, column in people()[0].items()}
    columns["job"] = np.where(np.arange(40) == 3, "astronaut", columns["job"])
    with pytest.warns(match="no training row"):
        expected = run.predict(columns)
    found = model.predict(dict(reversed(columns.items())))
    np.testing.assert_allclose(found["logits"], expected, atol=2e-5 * np.ptp(expected))
    described = json.loads((table / "export" / "model.json").read_text())["inputs"]
    assert described["codes"]["columns"]["job"] == ["(unknown)", "cook", "nurse", "pilot", "(missing)"]
    assert described["numbers"]["columns"] == ["day", "gain"]
    with pytest.raises(DataError, match="no column 'day'"):
        model.predict({"gain": [0.0], "job": ["cook"], "town": ["here"]})
    with pytest.raises(DataError, match="columns by name"):
        model.predict(np.zeros((1, 4)))


@pytest.mark.parametrize("coded", [False, True])
def test_rows_of_a_table_are_decoded_to_the_columns_they_were_encoded_from(coded: bool):
    columns = Table(people()[0])
    encoding = TableEncoding.fit(columns, coded=coded, quantiles=30)
    found = decode(encoding, encoding.encode(columns))
    for name, column in columns.columns.items():
        np.testing.assert_array_equal(found[name], column)


def test_two_floats_hold_what_one_cannot():
    numbers = 2460000.5 + np.linspace(-1.0, 1.0, 1001)
    found = centre(*split(numbers), 2460000.5)
    np.testing.assert_allclose(found, np.linspace(-1.0, 1.0, 1001), atol=1e-7)
    compiled = jax.jit(lambda value, rest: centre(value, rest, 2460000.5))(*split(numbers))
    np.testing.assert_array_equal(compiled, found)
    assert split([np.nan, 1e300]).remainder.tolist() == [0.0, 0.0]


def test_numbers_of_a_regression_far_from_0_leave_standardised(tmp_path: Path):
    inputs = 1e6 + np.random.default_rng(0).normal(size=(COUNT, 3))
    data = Source({"train": (inputs, 2460000.5 + 0.05 * (inputs[:, 0] - 1e6))})
    given = {"task.name": "regression", "loss.name": "mse", "data.name": "memory"}
    train_and_evaluate(tiny({**SHORT, **given}), tmp_path / "run", quiet=True, data=data)
    folder, described = export_run(tmp_path / "run", data=data)
    assert described["inputs"].keys() == {"inputs", "inputs_remainder"}
    numbers = described["outputs"]["numbers"]
    assert numbers["dtype"] == "float32"
    expected = load_run(tmp_path / "run").predict(inputs[:20])
    np.testing.assert_allclose(load_export(folder).predict(inputs[:20])["numbers"], expected, atol=1e-6)
    examples = load_file(folder / "examples.safetensors")
    arguments = {name: examples[f"inputs/{name}"] for name in described["inputs"]}
    raw = load_export(folder).program.call(**arguments)["numbers"]
    np.testing.assert_allclose(raw * numbers["scale"][0] + numbers["offset"][0], examples["outputs/numbers"], atol=1e-6)


@pytest.mark.parametrize("name", ["model.jaxexp", "weights.safetensors", "model.json"])
def test_a_flipped_bit_is_found_before_anything_is_loaded(name: str, digits: Path, tmp_path: Path):
    shutil.copytree(digits / "export", tmp_path / "copy")
    path = tmp_path / "copy" / name
    content = bytearray(path.read_bytes())
    place = content.index(b'"test"') + 1 if name == "model.json" else len(content) // 2
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match=rf"{name}: got content that fails its checksum"):
        load_export(tmp_path / "copy")


def test_the_code_of_an_export_refuses_a_description_that_was_changed(table: Path, tmp_path: Path):
    """It holds categories and scales, which are part of the model."""
    shutil.copytree(table / "export", tmp_path / "copy")
    assert ExportedModel(tmp_path / "copy").description == load_export(tmp_path / "copy").description
    file = tmp_path / "copy" / "model.json"
    file.write_text(file.read_text().replace('"cook"', '"cool"'))
    with pytest.raises(ValueError, match=r"^model\.json: got content that fails its checksum"):
        ExportedModel(tmp_path / "copy")


def test_a_model_that_predicts_otherwise_is_not_left_behind(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(check.TOLERANCES, "float32", 0.0)
    with pytest.raises(StorageError, match=r"'logits' off by .* expected at most 0, the predictions of the run"):
        export_run(digits, tmp_path / "output")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "broken",
    [
        ("missing = len(names) - 1", "missing = 1", "MLmodel: got 'logits' off by .* of its spread"),
        ("ExportedModel(path)", "ExportedModel()", "a fresh process that failed .*missing 1 required"),
    ],
)
def test_code_for_mlflow_that_predicts_otherwise_is_not_left_behind(
    broken: tuple[str, str, str], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sound, faulty, message = broken
    monkeypatch.setattr(mlflow_files, "read_text", lambda path: path.read_text().replace(sound, faulty))
    with pytest.raises(StorageError, match=message):
        export_run(table, tmp_path / "output", formats=["mlflow"], data=PEOPLE)
    assert not list(tmp_path.iterdir())


def test_the_check_finds_the_export_of_another_seed(digits: Path, tmp_path: Path):
    shutil.copytree(digits / "export", tmp_path / "copy")
    run = load_run(digits, seed=1)
    logits = jnp.asarray(run.predict(images()))
    outputs = {k: np.asarray(v) for k, v in head_of("classification", run.info).outputs(logits).items()}
    rows = CheckedRows(inputs_of(run.info).arguments(images()), outputs, usual=10)
    with pytest.raises(StorageError, match="'logits' off by"):
        check_export(tmp_path / "copy", rows, 1e-5)


def test_inputs_that_differ_from_those_of_training_are_refused(digits: Path):
    model = load_export(digits / "export")
    with pytest.raises(DataError, match=r"\(3, 8, 8\).*\(n, 8, 8, 1\)"):
        model.predict(np.zeros((3, 8, 8)))
    with pytest.raises(DataError, match="was not trained on a table"):
        model.predict({"a": [1.0]})


def test_bytes_are_never_made_of_fractions(digits: Path):
    model = load_export(digits / "export")
    for wrong in (1.7, -1, 256, np.nan):
        with pytest.raises(DataError, match="numbers of the type uint8"):
            model.predict(np.full((1, 8, 8, 1), wrong))


def test_what_cannot_be_exported_is_one_line(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train_and_evaluate(tiny(), tmp_path / "cut", trackers=[Interrupting(20)], quiet=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    cases = [
        ([f"--workdir={tmp_path}"], "got a directory without config.json; expected the directory of a run"),
        ([f"--workdir={tmp_path / 'cut'}"], "got a run that was interrupted; expected a finished run"),
        ([f"--workdir={digits}", "--seed=9"], "seed: got 9; expected one of 1, 2, 3"),
        ([f"--workdir={digits}", "--seed=x"], "--seed: got 'x'; expected an integer"),
        ([f"--workdir={digits}", "--seed=1", "--ensemble"], "--ensemble: got it with --seed"),
        ([f"--workdir={digits}", f"--output={tmp_path / 'other'}"], "got a directory that holds 'thesis.tex'"),
    ]
    for words, said in cases:
        assert main(["export", *words]) != 0
        assert said in capsys.readouterr().err
    assert main(["evaluate", f"--workdir={digits}", "--ensemble"]) == 2
    assert "evaluate: got --ensemble; expected it with export alone" in capsys.readouterr().err
    assert (tmp_path / "other" / "thesis.tex").read_text() == "mine"


def test_an_output_takes_no_place_of_anything_but_an_export(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(digits / "export", tmp_path / "export")
    (tmp_path / "export" / "wheels").mkdir()
    with pytest.raises(UsageError, match="got a directory that holds 'wheels'; expected a new directory, or that of"):
        export_run(digits, tmp_path / "export")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for output in (".", tmp_path / "empty" / ".."):
        with pytest.raises(UsageError, match=r"expected a path that ends in a name|got a directory that holds"):
            export_run(digits, output)
    assert [*Path().iterdir()] == []


def test_a_card_that_a_person_filled_in_keeps_what_it_says_of_the_intended_use(digits: Path, tmp_path: Path):
    folder, _ = export_run(digits, tmp_path / "export", formats=[])
    card = (folder / "README.md").read_text()
    assert "## Intended use\n\n(To be filled in: what the model is for" in card
    mine = "Digits of {forms},\n\n## Not for\n\nletters."
    (folder / "README.md").write_text(card.replace(TO_BE_FILLED_IN, mine).replace("# mlp:", "# mine:"))
    export_run(digits, folder, formats=[])
    again = (folder / "README.md").read_text()
    assert f"## Intended use\n\n{mine}\n\n## Inputs and outputs\n" in again
    assert again == card.replace(TO_BE_FILLED_IN, mine), "the rest is written anew"


def test_a_second_process_does_not_write_the_same_export(digits: Path, tmp_path: Path):
    with run_lock(tmp_path / ".out.unfinished"), pytest.raises(UsageError, match="a directory in use by process"):
        export_run(digits, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_earlier_export_is_there_again_after_a_kill_between_the_renames(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(digits / "export", tmp_path / ".out.earlier")

    def fail(*_: object) -> None:
        raise StorageError("disk", "full", "space")

    monkeypatch.setattr(write, "_write_files", fail)
    with pytest.raises(StorageError, match="disk: got 'full'"):
        export_run(digits, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert load_export(tmp_path / "out").class_names == load_export(digits / "export").class_names


def test_a_directory_without_an_export_is_named(digits: Path, tmp_path: Path):
    for folder, hint in ((digits, f"Give {digits / 'export'}"), (tmp_path, ""), (tmp_path / "none", "")):
        with pytest.raises(StorageError) as refused:
            load_export(folder)
        expected = f"{folder}: got a directory without model.json; expected that of an export"
        assert str(refused.value) == f"{expected}{hint and '. '}{hint}"


def test_a_run_without_its_end_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(tiny()))
    with pytest.raises(UsageError, match="got a run that has not ended"):
        export_run(tmp_path)


def test_the_command_prints_the_files_and_the_worst_difference(digits: Path, capsys: pytest.CaptureFixture[str]):
    before = (digits / "export" / "model.jaxexp").read_bytes()
    assert main(["export", f"--workdir={digits}", "--seed=2"]) == 0
    printed = capsys.readouterr().out
    assert "model.jaxexp" in printed
    assert "a fresh process repeats the run on" in printed
    assert (digits / "export" / "model.jaxexp").read_bytes() == before, "the same run gives the same program"
    assert str(ROOT).encode() not in before, "a path of this machine"
