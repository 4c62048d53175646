"""Every shipped config names its command, and a small version of it runs two steps and is exported."""

import ast
import os
import re
from pathlib import Path

import pytest
from tiny_runs import ROOT

from jaxtrain import export_run, load_config
from jaxtrain.data import SOURCES
from jaxtrain.training.train import train_and_evaluate

README = (ROOT / "README.md").read_text()
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
EMBEDDED = ("digits", "breast_cancer", "diabetes", "python_source")
WRITTEN = ("digits_folder",)
"""Configs of files that the test writes, by the program that the README shows."""
SMALL = {
    **{"model.hidden": (8,), "model.features": (4, 4), "model.widths": (4, 4, 4, 4), "model.width": 16},
    **{"model.layers": 1, "data.context": 16, "data.stride": 4096},
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_opens_with_its_command(path):
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert len(docstring.splitlines()[0]) > 20
    verb = "search " if load_config(path)["search"]["space"] else ""
    assert f"python -m jaxtrain.main {verb}--config=configs/{path.name}" in docstring


def is_in(config, knob):
    """Tells whether a config has a knob, such as "model.width"."""
    section, name = knob.split(".")
    return name in config[section]


def needing(path):
    """Returns a config as a test parameter, marked as needing its data unless they are embedded."""
    embedded = path.stem in WRITTEN or load_config(path)["data"]["name"] in EMBEDDED
    return pytest.param(path, id=path.stem, marks=() if embedded else pytest.mark.needs("data"))


@pytest.mark.filterwarnings("ignore:.*with a category of .* that no training row has")  # one country of `adult`
@pytest.mark.parametrize("path", [needing(path) for path in CONFIGS])
def test_a_config_runs_two_steps_and_is_exported_in_all_formats(path, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXTRAIN_DATA", str(Path(os.environ.get("JAXTRAIN_DATA", "data")).resolve()))
    monkeypatch.chdir(tmp_path)
    if path.stem in WRITTEN:
        (program,) = re.findall(r"```python file=write_examples\.py\n(.*?)```", README, re.DOTALL)
        exec(program, {})
    config = load_config(path)
    assert config["data"]["name"] in SOURCES.members
    small = {knob: value for knob, value in SMALL.items() if is_in(config, knob)}
    shrunk = {"train.duration": "2 steps", "data.batch_size": 8, "parallel.mesh": 1}
    if config["task"]["name"] not in ("segmentation", "detection"):  # whose pictures are large
        shrunk["data.eval_batch_size"] = 2000
    result = train_and_evaluate(load_config(path, small | shrunk), tmp_path / "run", quiet=True)
    assert (result.status, result.step) == ("done", 2)
    assert result.test is not None
    _, described = export_run(tmp_path / "run", formats=["onnx", "mlflow"])
    assert {"model.jaxexp", "model.onnx", "MLmodel", "weights.safetensors"} <= described["files"].keys()
    assert described["check"]["worst"].keys() == {"model.jaxexp", "model.onnx"}
    bytes_of = {name: file["bytes"] for name, file in described["files"].items()}
    assert bytes_of["model.onnx"] < 1.01 * bytes_of["weights.safetensors"] + 2**16
