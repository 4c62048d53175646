"""Every shipped config names its command; a small version of it runs two steps, is exported, predicted with, served."""

import ast
import asyncio
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import PATIENCE, ROOT

from jaxtrain import export_run, load_config, load_export
from jaxtrain.data import SOURCES
from jaxtrain.export.box_distance import box_distance
from jaxtrain.main import main
from jaxtrain.serve import device, page, service
from jaxtrain.serve.interface import interface_of
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
    """Tells whether a config has a knob, such as "model.width", that is not off."""
    section, name = knob.split(".")
    return config[section].get(name) is not None


def needing(path):
    """Returns a config as a test parameter, marked as needing its data unless they are embedded."""
    embedded = path.stem in WRITTEN or load_config(path)["data"]["name"] in EMBEDDED
    return pytest.param(path, id=path.stem, marks=() if embedded else pytest.mark.needs("data"))


@pytest.mark.filterwarnings("ignore:.*with a category of .* that no training row has")  # one country of `adult`
@pytest.mark.parametrize("path", [needing(path) for path in CONFIGS])
def test_a_config_runs_two_steps_is_exported_in_all_formats_predicted_with_and_served(path, tmp_path, monkeypatch):
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
    export, described = export_run(tmp_path / "run", formats=["onnx", "mlflow"])
    assert {"model.jaxexp", "model.onnx", "MLmodel", "weights.safetensors"} <= described["files"].keys()
    continues = {"continuation.jaxexp"} if config["data"]["name"] in ("text", "python_source") else set()
    assert described["check"]["worst"].keys() == {"model.jaxexp", "model.onnx", "MLmodel"} | continues
    bytes_of = {name: file["bytes"] for name, file in described["files"].items()}
    assert bytes_of["model.onnx"] < 1.01 * bytes_of["weights.safetensors"] + 2**16
    for module in (device, service):
        monkeypatch.setattr(module, "SIZES", (1, 4))
    monkeypatch.setattr(device, "CONTINUATION_SIZES", (1,))
    monkeypatch.setattr(page, "MOST_EXAMPLE_VALUES", 10**7)
    model = load_export(export)
    examples = page._examples(model, interface_of(model))
    if model.info.vocabulary is not None:
        assert_continued(model, [example["text"] for example in examples])
        return
    inputs, expected = inputs_of_examples(model, examples), model.read_examples()[1]
    assert_near(predicted(export, inputs), expected, model)
    assert_near(served(model, inputs), expected, model)


def inputs_of_examples(model, examples):
    """Returns the raw inputs of the examples of an export, by name."""
    values = {name: [example[name] for example in examples] for name in examples[0]}
    return {
        name: np.array(column) if model.info.encoding else np.reshape(column, (-1, *model.info.input_shape))
        for name, column in values.items()
    }


def predicted(export, inputs):
    """Predicts from files by the command; returns the outputs by name."""
    if load_export(export).info.encoding:
        rows = zip(*(column.tolist() for column in inputs.values()), strict=True)
        file = Path("rows.jsonl")
        values = [{name: value for name, value in zip(inputs, row, strict=True) if value == value} for row in rows]
        file.write_text("\n".join(map(json.dumps, values)))
    else:
        file = Path("rows.npy")
        np.save(file, inputs["inputs"].astype(load_export(export).info.input_dtype))
    assert main(["predict", f"--export={export}", f"--data={file}", "--output=predicted.npz", "--quiet"]) == 0
    with np.load("predicted.npz") as archive:
        return {name: archive[name] for name in archive.files if name not in ("id", "class_names")}


def ask(model, body, *, for_text=False):
    """Answers one request by the service of a model, compiled and checked as that of a server is."""

    async def chunks():
        yield json.dumps(body).encode()

    async def stays():
        await asyncio.Event().wait()

    async def answer():
        served = service.Service(model, service.Limits(8, PATIENCE, 2**26))
        try:
            await served.device.start()
            if for_text:
                return await served.generate(chunks(), stays)
            return json.loads((await served.infer(chunks(), None, stays))[1])
        finally:
            served.device.stop()

    return asyncio.run(answer())


def served(model, inputs):
    """Returns the outputs by name of a served model."""
    specs = interface_of(model).inputs
    given = [
        {
            "name": name,
            "datatype": specs[name].datatype,
            "shape": values.shape,
            "data": [None if value != value else value for value in values.ravel().tolist()],
        }
        for name, values in inputs.items()
    ]
    outputs = ask(model, {"inputs": [{**tensor, "shape": list(tensor["shape"])} for tensor in given]})["outputs"]
    return {output["name"]: np.reshape(output["data"], output["shape"]) for output in outputs}


def assert_near(found, expected, model):
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        if model.description["task"] == "detection":
            overlap = model.description["config"]["task"]["overlap"]
            assert box_distance(found[name], wanted, len(wanted), 1e-4, overlap) <= 1e-4
        elif wanted.dtype.kind == "f":  # decisions follow from these
            np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def assert_continued(model, prompts):
    """Compares the texts of the command and of the server with those of the model."""
    Path("prompts.txt").write_text("def mean\nclass\n")
    words = [f"--export={model.folder}", "--data=prompts.txt", "--output=texts.jsonl", "--length=12", "--quiet"]
    assert main(["predict", *words]) == 0
    texts = [json.loads(line)["text"] for line in Path("texts.jsonl").read_text().splitlines()]
    assert texts == [model.generate(prompt, 12) for prompt in ("def mean", "class")]
    answer = ask(model, {"text_input": prompts[0], "parameters": {"max_tokens": 12}}, for_text=True)
    assert answer["text_output"] == model.generate(prompts[0], 12)
