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
from jaxtrain.storage.environment import describe_environment
from jaxtrain.storage.result import Result
from jaxtrain.training.trained_run import Run

PROMISE = datetime.timedelta(days=180)
"""The time for which JAX promises to read an exported program."""


def describe_export(
    runs: Mapping[int, Run], result: Result, contents: Mapping[str, bytes], outputs: Outputs
) -> dict[str, Any]:
    """Returns the content of `model.json`, but for the check.

    `runs` are the members, by their seeds; `outputs` show names, shapes and dtypes, and `contents` are those of the
    files beside it.
    """
    run = next(iter(runs.values()))
    today = datetime.datetime.now(datetime.UTC).date()
    return {
        "format": FORMAT,
        "files": {name: {"sha256": sha256_of(file), "bytes": len(file)} for name, file in contents.items()},
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
    described = {"shape": ["n", *output.shape[1:]], "dtype": output.dtype.name}
    if name == "numbers" and restores_on_host(info):
        # The program returns (number - offset) / scale, which float32 holds.
        described |= {"dtype": "float32", "offset": info.target_mean, "scale": info.target_std}
    return described
