"""The description of an export, `model.json`: what is needed to use the model, and where it comes from."""

import datetime
from collections.abc import Mapping
from typing import Any

from jaxtrain.config.defaults import Config
from jaxtrain.config.identity import digest
from jaxtrain.config.registry import knobs_of
from jaxtrain.core.trees import state_digest
from jaxtrain.data import Settings
from jaxtrain.data.info import DataInfo
from jaxtrain.export.loading import FORMAT, Inputs, inputs_of, sha256_of
from jaxtrain.export.outputs import restores_on_host
from jaxtrain.export.padded import Outputs
from jaxtrain.export.program import PLATFORMS
from jaxtrain.export.table_inputs import TableInputs
from jaxtrain.export.to_onnx.names import describe_inputs as describe_onnx_inputs
from jaxtrain.export.to_onnx.names import name_outputs
from jaxtrain.storage.environment import describe_environment
from jaxtrain.storage.result import Result
from jaxtrain.training.trained_run import Run

PROMISE = datetime.timedelta(days=180)
"""The time for which JAX promises to read an exported program."""


def describe_export(runs: Mapping[int, Run], result: Result, outputs: Outputs) -> dict[str, Any]:
    """Returns the content of `model.json`, but for files and check.

    `runs` are the members, by their seeds; `outputs` show names, shapes and dtypes.
    """
    run = next(iter(runs.values()))
    today = datetime.datetime.now(datetime.UTC).date()
    return {
        "format": FORMAT,
        "task": run.config["task"]["name"],
        "model": run.config["model"]["name"],
        "platforms": PLATFORMS,
        "inputs": _describe_inputs(inputs_of(run.info)),
        "outputs": {name: _describe_output(name, output, run.info) for name, output in outputs.items()},
        "class_names": run.class_names,
        "config": _describe_config(run.config),
        "data": run.info.to_json(),
        "run": {
            "config": digest(run.config),
            "members": [
                {"seed": seed, "step": member.step, "state": state_digest(member.state)}
                for seed, member in runs.items()
            ],
        },
        "versions": describe_environment()["packages"],
        "written": today.isoformat(),
        "readable_until": (today + PROMISE).isoformat(),
        "test": result.test,
    }


def describe_files(contents: Mapping[str, bytes]) -> dict[str, Any]:
    """Returns {name: checksum and size} of the files beside the description."""
    return {name: {"sha256": sha256_of(file), "bytes": len(file)} for name, file in contents.items()}


def describe_onnx(info: DataInfo, outputs: Outputs) -> dict[str, Any]:
    """Returns the inputs and outputs of `model.onnx`: float64 where `model.jaxexp` needs more than one float32."""
    inputs = inputs_of(info)
    described = {}
    for name, own in name_outputs(outputs, inputs.specs).items():
        is_exact = name == "numbers" and restores_on_host(info)
        described[own] = _describe_array(name, outputs[name]) | ({"dtype": "float64"} if is_exact else {})
    return {"inputs": describe_onnx_inputs(inputs), "outputs": described}


def _describe_config(config: Config) -> dict[str, Any]:
    """Returns what reads files and measures predictions: how the source read them, the task and the loss."""
    settings = knobs_of(Settings)
    data = {name: value for name, value in config["data"].items() if name not in settings}
    return {"data": data, "task": config["task"], "loss": config["loss"]}


def _describe_inputs(inputs: Inputs) -> dict[str, Any]:
    described: dict[str, Any] = {
        name: {"shape": ["n", *spec.shape], "dtype": spec.dtype.name} for name, spec in inputs.specs.items()
    }
    if isinstance(inputs, TableInputs):
        if inputs.numbers:
            described["numbers"]["columns"] = [column.name for column in inputs.numbers]
        if inputs.categories:
            described["codes"]["columns"] = {
                column.name: ["(unknown)", *column.categories, "(missing)"] for column in inputs.categories
            }
    return described


def _describe_output(name: str, output: Any, info: DataInfo) -> dict[str, Any]:
    described = _describe_array(name, output)
    if name == "numbers" and restores_on_host(info):
        # The program returns (number - offset) / scale, which float32 holds.
        described |= {"offset": info.target_mean, "scale": info.target_std}
    return described


def _describe_array(name: str, output: Any) -> dict[str, Any]:
    """Returns shape and type of an output; a run predicts numbers in float64, and a program in float32."""
    dtype = "float32" if name == "numbers" else output.dtype.name
    return {"shape": ["n", *output.shape[1:]], "dtype": dtype}
