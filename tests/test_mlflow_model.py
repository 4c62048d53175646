"""The export as a model of MLflow: it loads, predicts as the run does, tells its inputs, and is served."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optional_parts import PEERS
from test_export import COUNT, PEOPLE, SHORT, images, people
from tiny_runs import PATIENCE, tiny

from jaxtrain import Source, export_run, load_run
from jaxtrain.export.exported_model import ExportedModel
from jaxtrain.training.train import train_and_evaluate

NUMBERS = 1e6 + np.random.default_rng(0).normal(size=(COUNT, 3))

RUNS: dict[str, tuple[dict[str, Any], Source | None]] = {
    "digits": ({}, None),
    "table": ({"data.name": "memory"}, PEOPLE),
    "numbers": (
        {"task.name": "regression", "loss.name": "mse", "data.name": "memory"},
        Source({"train": (NUMBERS, 2460000.5 + 0.05 * (NUMBERS[:, 0] - 1e6))}),
    ),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on pictures, on a table, and on numbers far from 0; each is exported."""
    folder = tmp_path_factory.mktemp("runs")
    for name, (given, data) in RUNS.items():
        train_and_evaluate(tiny({**SHORT, **given}), folder / name, quiet=True, data=data)
        export_run(folder / name, data=data, formats=["mlflow"])
    return folder


def columns() -> dict[str, Any]:
    """Columns of a table, some missing, with a category that no training row has."""
    found = {name: column[:40] for name, column in people()[0].items()}
    return {**found, "job": np.where(np.arange(40) == 3, "astronaut", found["job"])}


GIVEN = {"digits": lambda: images().astype(np.uint8), "table": columns, "numbers": lambda: NUMBERS[:20]}


def expected(runs: Path, name: str) -> np.ndarray:
    """Returns what the run predicts: logits or numbers."""
    return load_run(runs / name).predict(GIVEN[name]())


@pytest.mark.filterwarnings("ignore:.*that no training row has")
@pytest.mark.parametrize("name", RUNS)
def test_the_code_of_an_export_predicts_as_the_run_does(name: str, runs: Path):
    found = ExportedModel(runs / name / "export").predict(GIVEN[name]())
    output = "numbers" if name == "numbers" else "logits"
    wanted = expected(runs, name)
    np.testing.assert_allclose(found[output], wanted, rtol=0, atol=2e-5 * np.ptp(wanted))


def test_columns_of_other_libraries_are_understood(runs: Path):
    model = ExportedModel(runs / "table" / "export")
    wanted = model.predict({name: column[:5] for name, column in columns().items()})["logits"]
    objects = {name: column[:5].tolist() for name, column in columns().items()}
    objects["job"] = [None if value == "" else value for value in objects["job"]]
    objects["day"] = np.array([None if value != value else value for value in objects["day"]], object)
    np.testing.assert_array_equal(model.predict(objects)["logits"], wanted)
    whole = {**objects, "gain": [0, 1, 2, 3, 4]}
    assert model.predict(whole)["class"].shape == (5,)


def test_more_examples_than_one_program_takes_are_predicted_in_pieces(runs: Path):
    model = ExportedModel(runs / "digits" / "export")
    many = np.resize(images().astype(np.uint8), (1030, 8, 8, 1))
    np.testing.assert_allclose(model.predict(many)["logits"][1020:], model.predict(many[1020:])["logits"], atol=1e-5)
    assert model.predict(many[:0])["class"].shape == (0,)


def test_what_is_unlike_training_is_refused_in_one_line(runs: Path, tmp_path: Path):
    table = ExportedModel(runs / "table" / "export")
    given = {name: column[:2] for name, column in columns().items()}
    with pytest.raises(ValueError, match="inputs: got no column 'day'; expected the columns of training, by name"):
        table.predict({name: column for name, column in given.items() if name != "day"})
    with pytest.raises(ValueError, match="inputs: got a text in the column 'gain'; expected numbers"):
        table.predict({**given, "gain": ["much", "little"]})
    with pytest.raises(ValueError, match=r"inputs: got a column 'job' of shape \(2, 1\); expected one value for each"):
        table.predict({**given, "job": given["job"][:, None]})
    with pytest.raises(ValueError, match=r"inputs: got numbers of the type float64; expected uint8 numbers"):
        ExportedModel(runs / "digits" / "export").predict(np.full((1, 8, 8, 1), 1.7))
    shutil.copytree(runs / "digits" / "export", tmp_path / "copy")
    program = tmp_path / "copy" / "model.jaxexp"
    program.write_bytes(program.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"model\.jaxexp: got content that fails its checksum"):
        ExportedModel(tmp_path / "copy")


LOADING = """
import json, sys
import mlflow, numpy as np, pandas as pd

folder, given = sys.argv[1:]
found = {}
for name in ("digits", "table", "numbers"):
    model = mlflow.pyfunc.load_model(f"{folder}/{name}/export")
    inputs = np.load(f"{given}/{name}.npy") if name != "table" else pd.read_json(f"{given}/table.json")
    outputs = model.predict(inputs)
    found[name] = {
        "predicted": np.asarray(outputs["numbers" if name == "numbers" else "logits"], float).tolist(),
        "signature": model.metadata.signature.to_dict(),
        "metadata": model.metadata.metadata,
    }
    try:
        model.predict(inputs.drop(columns="day") if name == "table" else inputs[:, :2])
    except mlflow.exceptions.MlflowException as error:
        found[name]["refused"] = str(error)
print(json.dumps(found))
"""


def peer_variables(folder: Path) -> dict[str, str]:
    """Returns the variables of a program of the other environment, which must not see this one."""
    own = {"PYTHONPATH", "VIRTUAL_ENV", "XLA_FLAGS"}
    kept = {name: value for name, value in os.environ.items() if name not in own}
    path = os.pathsep.join([str(PEERS.parent), os.environ["PATH"]])
    return {**kept, "PATH": path, "HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true", "JAX_PLATFORMS": "cpu"}


@pytest.mark.needs("peers")
@pytest.mark.filterwarnings("ignore:.*that no training row has")
def test_mlflow_loads_an_export_and_predicts_as_the_run_does(runs: Path, tmp_path: Path):
    """In an environment without this framework and what it trains with."""
    table = {name: column.tolist() for name, column in columns().items()}
    table["day"] = [None if value != value else value for value in table["day"]]
    (tmp_path / "table.json").write_text(json.dumps(table))
    for name in ("digits", "numbers"):
        np.save(tmp_path / f"{name}.npy", GIVEN[name]())
    command = [str(PEERS), "-c", textwrap.dedent(LOADING), str(runs), str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=peer_variables(tmp_path), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name in RUNS:
        wanted = expected(runs, name)
        np.testing.assert_allclose(found[name]["predicted"], wanted, rtol=0, atol=2e-5 * np.ptp(wanted))
        assert "enforce schema" in found[name]["refused"]
    inputs = {name: json.loads(found[name]["signature"]["inputs"]) for name in RUNS}
    assert inputs["digits"] == [{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, 8, 8, 1]}}]
    assert inputs["numbers"][0]["tensor-spec"] == {"dtype": "float64", "shape": [-1, 3]}
    assert {column["name"]: column["type"] for column in inputs["table"]} == {
        **dict.fromkeys(("day", "gain"), "any"),
        **dict.fromkeys(("job", "town"), "string"),
    }
    outputs = json.loads(found["digits"]["signature"]["outputs"])
    assert {output["name"] for output in outputs} == {"logits", "probabilities", "class"}
    assert found["digits"]["metadata"]["class_names"] == list("0123456789")


@contextmanager
def served(export: Path, folder: Path) -> Iterator[str]:
    """Serves an export as its user does; yields the address once it answers, and ends the processes afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(PEERS), "-m", "mlflow", "models", "serve", "-m", str(export), "--env-manager", "local"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            **{"cwd": folder, "env": peer_variables(folder), "stdout": log, "stderr": log, "start_new_session": True},
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/ping", server, folder / "server.log")
            yield address
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(PATIENCE)


def _wait_for(address: str, server: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def invoke(address: str, body: Any) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.loads(answer.read())["predictions"]


@pytest.mark.slow
@pytest.mark.needs("peers")
@pytest.mark.filterwarnings("ignore:.*that no training row has")
def test_mlflow_serves_an_export(runs: Path, tmp_path: Path):
    table = {name: column.tolist() for name, column in columns().items()}
    rows = [
        [None if value == "" or value != value else value for value in row] for row in zip(*table.values(), strict=True)
    ]
    with served(runs / "table" / "export", tmp_path) as address:
        found = invoke(address, {"dataframe_split": {"columns": [*table], "data": rows}})
        wanted = expected(runs, "table")
        np.testing.assert_allclose(found["logits"], wanted, rtol=0, atol=2e-5 * np.ptp(wanted))
        assert found["class"] == wanted.argmax(axis=1).tolist()
        with pytest.raises(urllib.error.HTTPError, match="400"):
            invoke(address, {"dataframe_split": {"columns": ["day"], "data": [[1.0]]}})


def test_the_code_of_an_export_uses_nothing_of_this_package(runs: Path):
    """It is copied as it is, and its imports are what `requirements.txt` asks for."""
    code = (runs / "digits" / "export" / "code" / "exported_model.py").read_text()
    imported = set(re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE))
    assert imported == {"hashlib", "json", "collections", "pathlib", "typing", "jax", "numpy"}
    required = (runs / "digits" / "export" / "requirements.txt").read_text().split()
    assert {re.split("[=>]", line)[0] for line in required} == {"jax", "numpy", "flatbuffers", "mlflow"}
