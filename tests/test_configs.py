"""Every shipped config names its command, and a small version of it runs two steps."""

import ast

import pytest
from tiny_runs import ROOT

from jaxtrain import load_config
from jaxtrain.data import SOURCES
from jaxtrain.training.train import train_and_evaluate

CONFIGS = sorted((ROOT / "configs").glob("*.py"))
EMBEDDED = ("digits", "breast_cancer", "diabetes")
SMALL = {"model.hidden": (8,), "model.features": (4, 4), "model.widths": (4, 4, 4, 4), "model.width": 8}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_opens_with_its_command(path):
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert len(docstring.splitlines()[0]) > 20
    verb = "search " if load_config(path)["search"]["space"] else ""
    assert f"python -m jaxtrain.main {verb}--config=configs/{path.name}" in docstring


def needing(path):
    """Returns a config as a test parameter, marked as needing its data unless they are embedded."""
    embedded = load_config(path)["data"]["name"] in EMBEDDED
    return pytest.param(path, id=path.stem, marks=() if embedded else pytest.mark.needs("data"))


@pytest.mark.parametrize("path", [needing(path) for path in CONFIGS])
def test_a_config_runs_two_steps(path, tmp_path):
    config = load_config(path)
    assert config["data"]["name"] in SOURCES.members
    small = {knob: value for knob, value in SMALL.items() if knob.split(".")[1] in config["model"]}
    shrunk = {"train.duration": "2 steps", "data.batch_size": 8, "parallel.mesh": 1}
    if config["task"]["name"] != "segmentation":  # whose pictures are large
        shrunk["data.eval_batch_size"] = 2000
    result = train_and_evaluate(load_config(path, small | shrunk), tmp_path, quiet=True)
    assert (result.status, result.step) == ("done", 2)
    assert result.test is not None
