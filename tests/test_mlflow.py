"""Runs and searches on an MLflow server: each value once, whatever happens to the server and to the run."""

import json
import math
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow_server import MlflowServer, fake_server, forward, free_port, http, mlflow_server, named
from optional_parts import PEERS
from tiny_runs import PATIENCE, SHOWN, config_file, run, start, tiny

from jaxtrain import load_run
from jaxtrain.commands.sync import sync, sync_lines
from jaxtrain.config.defaults import Config, flatten
from jaxtrain.errors import ConfigError, StorageError, UsageError
from jaxtrain.main import main
from jaxtrain.search.run import run_search
from jaxtrain.storage.json_lines import JsonLines
from jaxtrain.storage.locks import run_lock
from jaxtrain.storage.ownership import claim, read_owner
from jaxtrain.trackers import mlflow_rest, mlflow_tracker
from jaxtrain.trackers.event_summaries import metrics_of, tag_of
from jaxtrain.trackers.figures import Picture
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.trackers.memory import MemoryTracker
from jaxtrain.trackers.mlflow_content import params_of
from jaxtrain.trackers.mlflow_files import RunSender, run_sender
from jaxtrain.trackers.mlflow_rest import MOST_METRICS, ServerDown, check_server, key_of
from jaxtrain.trackers.mlflow_tracker import CLOSE_SECONDS, MlflowTracker
from jaxtrain.trackers.picture_files import PictureFiles, read_exhibits
from jaxtrain.training.train import train_and_evaluate

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc000000301010018dd8db0"
    "0000000049454e44ae426082"
)
"""A picture of one red pixel."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as started:
        yield started


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the end of a run wait for a server that a busy machine slows down."""
    monkeypatch.setattr(mlflow_tracker, "CLOSE_SECONDS", PATIENCE)


def on(uri: str, **more: Any) -> Config:
    """Returns the tiny config, tracked at an address; keyword arguments are keys of `track.mlflow`."""
    section = {f"track.mlflow.{key}": value for key, value in {"uri": uri, **more}.items()}
    return tiny({**SHOWN, **section, "track.tensorboard": False})


def expected(workdir: Path) -> dict[tuple[int, str], float]:
    """Returns (step, name) -> value of what the server must hold of a run's rows."""
    return {
        (row["step"], key_of(tag_of(name, row["split"]))): math.nan if value is None else value
        for row in read_rows(workdir / "metrics.jsonl")
        for name, value in metrics_of(row).items()
    }


def of_rows(found: Mapping[tuple[int, str], float]) -> dict[tuple[int, str], float]:
    """Leaves out the metrics that come from no row."""
    return {key: value for key, value in found.items() if not key[1].startswith(("best/", "system/"))}


def made_run(workdir: Path, uri: str, name: str = "made", rows: int = 3, begin: float = 1000.0) -> None:
    """Makes the directory of a run by hand, with rows at times of its own."""
    if not (workdir / "run.json").exists():
        workdir.mkdir(exist_ok=True)
        claim(workdir, on(uri, experiment=name), f"id-of-{name}")
    numbers = [{"loss": step / 2, "undefined": None} for step in range(1, rows + 1)]
    written = [{"step": i, "split": "train", "time": begin + i, **values} for i, values in enumerate(numbers, 1)]
    JsonLines(workdir / "metrics.jsonl", written).close()


def sender_of(workdir: Path, say: Callable[[str], None] = print) -> RunSender:
    owner = read_owner(workdir)
    assert owner
    return run_sender(workdir, owner, owner.saved["track"]["mlflow"], owner.saved, say, dict)


# What the server holds


READ_BY_CLIENT = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
run = client.get_run(sys.argv[2])
history = {name: [[p.step, p.value, p.timestamp] for p in client.get_metric_history(run.info.run_id, name)]
           for name in run.data.metrics}
print(json.dumps([run.info.status, run.info.run_name, run.data.params, run.data.tags, history,
                  [file.path for file in client.list_artifacts(run.info.run_id)]]))
"""


@pytest.mark.usefixtures("patient")
@pytest.mark.needs("peers")
def test_a_run_is_there_with_its_values_parameters_tags_and_files(server: MlflowServer, tmp_path: Path):
    """All is read by MLflow's own client."""
    config = on(server.uri, experiment="whole", run="named", tags={"team": "vision"})
    workdir = tmp_path / "run"
    train_and_evaluate(config, workdir, quiet=True)
    (found,) = server.runs("whole")
    script = [PEERS, "-c", READ_BY_CLIENT, server.uri, found["info"]["run_id"]]
    done = subprocess.run(script, capture_output=True, text=True, timeout=PATIENCE, check=True)
    status, name, params, tags, history, files = json.loads(done.stdout.splitlines()[-1])
    assert (status, name) == ("FINISHED", "named")
    values = {(step, key): value for key, points in history.items() for step, value, _ in points}
    assert len(values) == sum(map(len, history.values()))
    assert of_rows(values) == expected(workdir)
    result = json.loads((workdir / "result.json").read_text())
    assert history["best/loss"][0][:2] == [result["best"]["step"], result["best"]["value"]]
    times = {(row["step"], row["split"]): round(1000 * row["time"]) for row in read_rows(workdir / "metrics.jsonl")}
    assert all(time == times[step, "validation"] for step, _, time in history["loss/validation"])
    kept = {key: str(list(value) if isinstance(value, tuple) else value) for key, value in flatten(config).items()}
    assert params == {key: value for key, value in kept.items() if not key.startswith("track.")}
    environment = json.loads((workdir / "environment.json").read_text())
    assert tags["team"] == "vision"
    assert tags["host"] == environment["host"]
    assert tags["devices"] == ", ".join(environment["devices"])
    assert tags["version.jax"] == environment["packages"]["jax"]
    assert tags["mlflow.source.git.commit"] == environment["git_commit"]
    assert tags["jaxtrain.id"] == json.loads((workdir / "run.json").read_text())["id"]
    assert {"result.json", "config.json", "environment.json"} <= set(files)
    assert sync_lines(sync(workdir)[0])[0] == "sent nothing, since nothing was missing"


@pytest.mark.needs("peers")
def test_what_a_run_shows_is_sent_from_its_files(server: MlflowServer, tmp_path: Path):
    """Undefined numbers are NaN, one row exceeds a request, a picture is under the name that the pages look for."""
    workdir = tmp_path / "shown"
    made_run(workdir, server.uri, "shown")
    long = {f"class_{i} (x)": float(i) for i in range(MOST_METRICS + 5)}
    rows = [*read_rows(workdir / "metrics.jsonl"), {"step": 4, "split": "train", "time": 5.0, **long}]
    JsonLines(workdir / "metrics.jsonl", rows).close()
    pictures = PictureFiles(workdir)
    pictures.image(2, "examples/worst", Picture(PNG, 1, 1))
    pictures.text("generated", "to be", 2)
    pictures.performance(2, {"examples_per_second": 7.0})
    pictures.close()
    for _ in range(2):
        sender = sender_of(workdir)
        sender.end("KILLED")
        sender.send()
        sender.run.close()
    (found,) = server.runs("shown")
    assert len(found["data"]["metrics"]) == 2 + MOST_METRICS + 5 + 1
    last = f"class_{MOST_METRICS + 4} (x)/train"
    names = ["loss/train", "undefined/train", "system/examples_per_second", key_of("class_7 (x)/train"), key_of(last)]
    values = server.metrics(found, names)
    assert [values[2, name] for name in (names[0], names[2])] == [1.0, 7.0]
    assert math.isnan(values[2, "undefined/train"])
    assert [values[4, name] for name in names[3:]] == [7.0, MOST_METRICS + 4.0]
    files = server.artifacts(found)
    shown = sorted(path for path in files if path.startswith("images/"))
    assert [path.split("+")[:3] for path in shown] == [["images/examples~worst", "step", "2"]] * 2
    assert shown[0].endswith("+compressed.webp")
    assert {files[path] for path in shown} == {len(PNG)}
    assert files["texts/generated/2.md"] == len("to be")
    assert found["info"]["status"] == "KILLED"


@pytest.mark.needs("peers")
def test_a_parameter_that_is_too_long_is_cut_and_said(server: MlflowServer, tmp_path: Path):
    workdir = tmp_path / "long"
    made_run(workdir, server.uri, "long")
    said: list[str] = []
    sender = sender_of(workdir, said.append)
    sender.run.identity.config["model"]["hidden"] = list(range(10**9, 10**9 + 600))
    sender.send()
    sender.run.close()
    params = named(server.runs("long")[0]["data"]["params"])
    assert len(params["model.hidden"]) == 6000
    assert params["model.hidden"].endswith("(7,200 characters; config.json has all)")
    assert "model.hidden exceed" in said[0]


@pytest.mark.needs("peers")
def test_a_server_that_takes_no_files_is_said_once_and_gets_the_values(server: MlflowServer, tmp_path: Path):
    """It names a bucket as the place of files, to which clients would write themselves."""

    def answer(first: str, body: bytes) -> tuple[bytes, float]:
        return forward(server.uri, first, body, lambda real: real.replace(b"mlflow-artifacts:/", b"s3://")), 0.0

    workdir = tmp_path / "run"
    said: list[str] = []
    with fake_server(answer) as (uri, asked):
        made_run(workdir, uri, "bare")
        sender = sender_of(workdir, said.append)
        sender.end("FINISHED")
        sender.send()
        sender.send()
        sender.run.close()
    assert len(server.metrics(server.runs("bare")[0])) == 6
    assert not [line for line in asked if line.startswith("PUT")]
    assert ["takes none over HTTP" in line for line in said] == [True]


# Servers and runs that fail


class Killing(MemoryTracker):
    """Kills the server when a row of some step is written."""

    def __init__(self, server: MlflowServer, at: int) -> None:
        super().__init__()
        self._server = server
        self._at = at

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        super().write(step, split, values)
        if step >= self._at:
            self._server.kill()


class Awaiting(MemoryTracker):
    """Lets the first row wait for an event, so that what it is written after has begun."""

    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self._event = event

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        super().write(step, split, values)
        assert self._event.wait(PATIENCE)


@pytest.mark.needs("peers")
def test_a_server_killed_in_mid_run_or_before_gets_everything_by_sync_or_the_next_start(
    server: MlflowServer, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    during = tmp_path / "during"
    before = tmp_path / "before"
    config = on(server.uri, experiment="killed")
    try:
        assert train_and_evaluate(config, during, trackers=[Killing(server, 40)]).status == "done"
        said = capfd.readouterr().err
        assert f"has not got all; the command sync sends the rest of {during}" in said
        assert train_and_evaluate(config, before).status == "done"
        said = capfd.readouterr().err
        assert said.count("Connection refused; the run continues, and what the server misses is sent later") == 1
        assert main(["sync", f"--workdir={before}"]) == 5
        assert "does not answer (Connection refused)" in capfd.readouterr().err
    finally:
        server.start()
    assert main(["sync", f"--workdir={during}"]) == 0
    assert "sent " in capfd.readouterr().out
    monkeypatch.setattr(mlflow_tracker, "CLOSE_SECONDS", PATIENCE)
    train_and_evaluate(config, before)  # the next start, which has nothing else to do
    runs = {found["info"]["run_name"]: found for found in server.runs("killed")}
    assert runs.keys() == {"during", "before"}
    for workdir in (during, before):
        assert of_rows(server.metrics(runs[workdir.name])) == expected(workdir)
        assert runs[workdir.name]["info"]["status"] == "FINISHED"
        assert "result.json" in server.artifacts(runs[workdir.name])


FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "nonsense": lambda real: http(200, b"<html>Welcome</html>"),
    "full": lambda real: http(500, b'{"error_code": "INTERNAL_ERROR", "message": "database or disk is full"}'),
    "no answer": lambda real: b"",
    "half an answer": lambda real: real[: len(real) // 2],
}
"""What comes in the place of the real answer."""

DONE = ("no answer", "half an answer")
"""The faults with which the server has done what was asked."""


@pytest.mark.needs("peers")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_fails_now_and_then_has_every_value_once(server: MlflowServer, tmp_path: Path, fault: str):
    """Every fifth request is answered so, and each delivery is that of a session of its own."""
    count = 0

    def answer(first: str, body: bytes) -> tuple[bytes, float]:
        nonlocal count
        count += 1
        is_fault = count % 5 == 4
        real = b"" if is_fault and fault not in DONE else forward(server.uri, first, body)
        return (FAULTS[fault](real) if is_fault else real), 0.0

    workdir = tmp_path / "run"
    name = fault.replace(" ", "-")
    failures = 0
    with fake_server(answer) as (uri, _):
        for number in (*range(1, 13), *[12] * 12):
            made_run(workdir, uri, name, rows=number)
            sender = sender_of(workdir)
            sender.end("FAILED")
            try:
                sender.send()
            except ServerDown:
                failures += 1
            finally:
                sender.run.close()
    (found,) = server.runs(name)
    assert server.metrics(found) == pytest.approx(expected(workdir), nan_ok=True)
    assert len(expected(workdir)) == 24
    assert found["info"]["status"] == "FAILED"
    assert failures > 1


@pytest.mark.needs("peers")
def test_what_the_server_always_fails_at_is_set_aside_and_the_rest_is_sent(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A parameter, tag, row and picture are answered by status 500 for as long as the run lasts; `sync` sends them."""
    monkeypatch.setattr(mlflow_tracker, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(mlflow_tracker, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(mlflow_tracker, "CLOSE_SECONDS", PATIENCE)
    is_fixed = False
    said: queue.SimpleQueue[str] = queue.SimpleQueue()

    def answer(first: str, body: bytes) -> tuple[bytes, float]:
        poison = (b'"step": 3', b'"key": "data.name"', b'"key": "jaxtrain.directory"')
        fails = ("log-batch" in first and any(part in body for part in poison)) or "step%2B3%2B" in first
        return (FAULTS["full"](b"") if fails and not is_fixed else forward(server.uri, first, body)), 0.0

    workdir = tmp_path / "run"
    with fake_server(answer) as (uri, _):
        made_run(workdir, uri, "poisoned", rows=5)
        all_params = params_of(on(uri)).keys()
        pictures = PictureFiles(workdir)
        for step in (2, 3, 4):
            pictures.image(step, "examples/worst", Picture(PNG, 1, 1))
        pictures.close()
        tracker = MlflowTracker(sender_of(workdir, said.put), workdir, said.put)
        lines = [said.get(timeout=PATIENCE) for _ in range(5)]
        assert lines[0] == (
            f"MLflow: {uri}: status 500 database or disk is full; "
            "the run continues, and what the server misses is sent later"
        )
        aside = sum("which is set aside; the rest is sent" in line for line in lines)
        assert aside == 3, "parameters and tags, then rows, then pictures"
        assert lines[4].startswith(f"MLflow: {uri}/#")
        made_run(workdir, uri, "poisoned", rows=7)
        tracker.write(7, "train", {})
        tracker.close()
        assert said.get() == f"MLflow: {uri} has not got all; the command sync sends the rest of {workdir}"
        (found,) = server.runs("poisoned")
        assert {step for step, _ in server.metrics(found)} == {1, 2, 4, 5, 6, 7}
        assert all_params - named(found["data"]["params"]).keys() == {"data.name"}
        tags = named(found["data"]["tags"])
        assert "mlflow.source.type" in tags
        assert "jaxtrain.directory" not in tags
        is_fixed = True
        assert sync(workdir)[0].counts == {"row": 1, "image": 1}
    (found,) = server.runs("poisoned")
    assert named(found["data"]["params"]).keys() == all_params
    assert named(found["data"]["tags"])["jaxtrain.directory"] == str(workdir)
    assert server.metrics(found) == pytest.approx(expected(workdir), nan_ok=True)
    assert sum(path.startswith("images/") for path in server.artifacts(found)) == 6


@pytest.mark.needs("peers")
def test_a_server_that_comes_back_during_a_run_is_told_what_it_missed(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mlflow_tracker, "PAUSE_SECONDS", 0.01)
    is_away = threading.Event()
    is_away.set()
    said: queue.SimpleQueue[str] = queue.SimpleQueue()

    def answer(first: str, body: bytes) -> tuple[bytes, float]:
        return (http(503, b"") if is_away.is_set() else forward(server.uri, first, body)), 0.0

    workdir = tmp_path / "run"
    with fake_server(answer) as (uri, asked):
        made_run(workdir, uri, "back", rows=5)
        tracker = MlflowTracker(sender_of(workdir), workdir, said.put)
        assert (
            said.get(timeout=PATIENCE)
            == f"MLflow: {uri}: status 503; the run continues, and what the server misses is sent later"
        )
        while len(asked) < 4:  # it is tried again
            time.sleep(0.001)
        is_away.clear()
        assert said.get(timeout=PATIENCE).startswith(f"MLflow: {uri}/#/experiments/")
        (found,) = server.runs("back")
        tracker.close()
    assert len(server.metrics(found)) == 10
    assert said.empty()


@pytest.mark.needs("peers")
def test_rows_that_were_on_their_way_when_a_run_was_killed_are_there_once_though_the_resume_writes_them_anew(
    server: MlflowServer, tmp_path: Path
):
    """The server took the rows, the run did not learn of it, and wrote them again at other times."""
    is_cut = False

    def answer(first: str, body: bytes) -> tuple[bytes, float]:
        real = forward(server.uri, first, body)
        return (b"" if is_cut and b'"metrics"' in body else real), 0.0

    workdir = tmp_path / "run"
    with fake_server(answer) as (uri, _):
        made_run(workdir, uri, "anew", rows=2)
        killed = sender_of(workdir)
        killed.send()
        is_cut = True
        made_run(workdir, uri, "anew", rows=5)
        with pytest.raises(ServerDown):
            killed.send()
        killed.run.close()
        is_cut = False
        made_run(workdir, uri, "anew", rows=6, begin=9000.0)
        resumed = sender_of(workdir)
        resumed.send()
        resumed.run.close()
    made_run(workdir, uri, "anew", rows=6, begin=20_000.0)
    sync(workdir, server.uri)  # the same server under another address
    (found,) = server.runs("anew")
    values = server.metrics(found)
    assert {step for step, _ in values} == {1, 2, 3, 4, 5, 6}


@pytest.mark.needs("peers")
def test_a_run_killed_and_resumed_goes_on_under_its_id_with_every_value_once(server: MlflowServer, tmp_path: Path):
    """It is killed while the server takes rows that no checkpoint counts on; it lasts longer than a server begins."""
    given = {"train.duration": "80000 steps", "log.every": "400 steps", "eval.every": "8000 steps"}
    config = config_file(tmp_path, given | {"checkpoint.every": "4000 steps"})
    workdir = tmp_path / "run"
    is_time = threading.Event()

    def saved() -> int:
        return max((int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit()), default=0)

    def answer(first: str, body: bytes) -> tuple[bytes, float]:
        real = forward(server.uri, first, body)
        metrics = json.loads(body).get("metrics", []) if "log-batch" in first else []
        if not is_time.is_set() and max((metric["step"] for metric in metrics), default=0) > saved() > 0:
            is_time.set()
            return real, PATIENCE
        return real, 0.0

    with fake_server(answer) as (uri, _):
        tracked = {"mlflow.uri": uri, "mlflow.experiment": "resumed", "tensorboard": False, "pictures": None}
        arguments = [f"--config={config}", f"--workdir={workdir}"]
        arguments += [f"--config.track.{key}={value}" for key, value in tracked.items()]
        process = start(tmp_path, *arguments, "--quiet")
        assert is_time.wait(PATIENCE), process.communicate()
        process.kill()
        process.communicate()
        assert 0 < saved() < 80_000
        (before,) = server.runs("resumed")
        assert before["info"]["status"] == "RUNNING"
        ended = run(tmp_path, *arguments)
        assert ended.returncode == 0, ended.stderr
        sync(workdir)  # what a busy server did not take in time
    (found,) = server.runs("resumed")
    assert found["info"]["run_id"] == before["info"]["run_id"]
    assert of_rows(server.metrics(found)) == expected(workdir)
    assert found["info"]["status"] == "FINISHED"


@pytest.mark.needs("peers")
def test_no_step_waits_for_a_slow_server_which_has_every_value_once_by_sync(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """It does what it is asked, but answers only once the run has ended, so a step that waited would never be taken."""
    monkeypatch.setattr(mlflow_tracker, "CLOSE_SECONDS", 0.5)
    monkeypatch.setattr(mlflow_rest, "ANSWER_SECONDS", 10 * PATIENCE)
    has_ended = threading.Event()
    was_told = threading.Event()
    held: list[bool] = []

    def answer(first: str, body: bytes) -> tuple[bytes, float]:
        real = forward(server.uri, first, body)
        if "log-batch" in first:
            was_told.set()
            held.append(has_ended.wait(PATIENCE))
        return real, 0.0

    workdir = tmp_path / "run"
    with fake_server(answer) as (uri, _):
        result = train_and_evaluate(on(uri, experiment="slow"), workdir, trackers=[Awaiting(was_told)])
        assert (result.status, result.step) == ("done", 60)
        assert not held, "an answer has come before the end"
        has_ended.set()
        assert f"has not got all; the command sync sends the rest of {workdir}" in capfd.readouterr().err
        sync(workdir)
    (found,) = server.runs("slow")
    assert of_rows(server.metrics(found)) == expected(workdir)
    assert found["info"]["status"] == "FINISHED"


def test_a_server_that_never_answers_delays_no_row_and_the_end_by_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mlflow_tracker, "CLOSE_SECONDS", 0.5)
    said: list[str] = []
    with fake_server(lambda first, body: (b"", PATIENCE)) as (uri, asked):
        made_run(tmp_path / "run", uri)
        tracker = MlflowTracker(sender_of(tmp_path / "run"), tmp_path / "run", said.append)
        began = time.monotonic()
        for step in range(1000):
            tracker.write(step, "train", {"loss": 1.0})
        assert time.monotonic() - began < 1.0
        while not asked:
            time.sleep(0.001)
        began = time.monotonic()
        tracker.close()
        tracker.close()
        assert time.monotonic() - began < CLOSE_SECONDS / 2
    assert said == [f"MLflow: {uri} has not got all; the command sync sends the rest of {tmp_path / 'run'}"]


def test_a_run_without_its_server_ends_as_any_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    began = time.monotonic()
    made_run(tmp_path / "run", f"http://127.0.0.1:{free_port()}")
    tracker = MlflowTracker(sender_of(tmp_path / "run"), tmp_path / "run", print)
    tracker.close()
    assert time.monotonic() - began < CLOSE_SECONDS
    assert "has not got all" in capfd.readouterr().out


# Errors before training


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (http(200, b"<html>Hello</html>"), "status 200 and 18 bytes that are no JSON object"),
        (http(404, b"nothing"), "status 404 and 7 bytes that are no JSON object"),
        (http(200, b'{"a": 1}'), "JSON without 'experiment'"),
        (http(404, b'{"detail": "Not Found"}'), "status 404 without an error_code"),
        (b"SSH-2.0-OpenSSH\r\n", "what is no HTTP (BadStatusLine)"),
        (http(403, b"{}"), "refuses (status 403: it asks for another user or password)"),
        (http(200, b'{"experiment": {"experiment_id": "1", "lifecycle_stage": "deleted"}}'), "track.mlflow.experiment"),
    ],
)
def test_what_is_no_server_for_the_run_is_an_error_before_it_trains(answer: bytes, got: str, tmp_path: Path):
    with fake_server(lambda first, body: (answer, 0.0)) as (uri, asked):
        for begin in (train_and_evaluate, run_search):
            config = on(uri) if begin is train_and_evaluate else on(uri) | searched(uri)
            with pytest.raises(ConfigError) as found:
                begin(config, tmp_path / "run", quiet=True)
            assert got in str(found.value)
    assert not (tmp_path / "run").exists()
    assert asked[0].startswith("GET /api/2.0/mlflow/experiments/get-by-name?experiment_name=jaxtrain ")


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///runs.db",
        "http://host/#/experiments",
        "127.0.0.1:5000",
        "http://",
        "http://me:secret@host",
        "http://h:x",
    ],
)
def test_an_address_that_is_none_is_an_error_of_the_config(uri: str):
    with pytest.raises(ConfigError, match=r"track\.mlflow\.uri: got .*; expected .*http://HOST:PORT"):
        on(uri)


def test_a_run_is_tracked_nowhere_unless_its_section_is_given():
    assert tiny()["track"]["mlflow"] is None
    assert tiny({"track.mlflow": None})["track"]["mlflow"] is None
    named_only = {"track.mlflow.run": "x"}
    with pytest.raises(ConfigError, match=r"track\.mlflow\.uri: got nothing"):
        tiny(named_only)
    with pytest.raises(ConfigError, match=r"track\.mlflow\.tags: got .*; expected a text for each name"):
        on("file", tags={"a": {"b": 1}})


# Searches


def searched(uri: str) -> Config:
    """Returns a search of four trials, one of which diverges."""
    space = {"search.space.optimizer.learning_rate": ("grid", (1e-3, 3e-3, 1e30)), "search.sampler": "grid"}
    return tiny(
        {
            **{"track.mlflow.uri": uri, "track.mlflow.experiment": "search", "track.tensorboard": False},
            **{"train.duration": "40 steps", "search.compare_seeds": 0, **space},
        }
    )


@pytest.mark.usefixtures("patient")
@pytest.mark.needs("peers")
def test_a_search_is_a_run_whose_children_are_its_trials(server: MlflowServer, tmp_path: Path):
    workdir = tmp_path / "study"
    run_search(searched(server.uri), workdir, quiet=True)
    trials = [json.loads(line) for line in (workdir / "search" / "trials.jsonl").read_text().splitlines()]

    def look() -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
        runs = server.runs("search")
        (parent,) = [found for found in runs if "mlflow.parentRunId" not in named(found["data"]["tags"])]
        children = [found for found in runs if found is not parent]
        assert {named(child["data"]["tags"])["mlflow.parentRunId"] for child in children} == {parent["info"]["run_id"]}
        numbered = {int(named(child["data"]["tags"])["jaxtrain.trial"]): child for child in children}
        assert len(numbered) == len(children)
        return parent, numbered

    parent, children = look()
    assert parent["info"]["run_name"] == "search study"
    assert parent["info"]["status"] == "FINISHED"
    assert {"report.html", "result.json", "best_config.json", "pictures/history.png"} <= server.artifacts(parent).keys()
    assert children.keys() == {trial["trial"] for trial in trials}
    for trial in trials:
        child = children[trial["trial"]]
        assert child["info"]["status"] == ("FINISHED" if trial["status"] == "done" else "FAILED")
        rate = named(child["data"]["params"])["optimizer.learning_rate"]
        assert float(rate) == trial["point"]["optimizer.learning_rate"]
        curve = {(step, "loss/validation"): value for step, value in trial["curve"]}
        value = {(trial["step"], "value"): trial["value"]} if trial["value"] is not None else {}
        assert server.metrics(child) == curve | value
    assert "diverged" in {trial["status"] for trial in trials}
    values = {(trial["trial"], "value of a trial"): trial["value"] for trial in trials if trial["value"] is not None}
    best = min(value for value in values.values())
    assert {k: v for k, v in server.metrics(parent).items() if k[1] != "best value"} == values
    assert [v for k, v in server.metrics(parent).items() if k[1] == "best value"] == [best]
    for path in (workdir / "search" / "mlflow").iterdir():  # without notes everything is sent again
        path.unlink()
    assert sync(workdir)[0].counts["trial"] == len(trials)
    again, found = look()
    assert again["info"]["run_id"] == parent["info"]["run_id"]
    assert {n: child["info"]["run_id"] for n, child in found.items()} == {
        n: child["info"]["run_id"] for n, child in children.items()
    }
    assert all(server.metrics(found[number]) == server.metrics(children[number]) for number in children)


# The command sync


@pytest.mark.needs("peers")
def test_a_run_that_was_not_tracked_is_sent_later(
    server: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name, overrides in {"untracked": {}, "file": {"track.mlflow.uri": "file"}}.items():
        workdir = tmp_path / name
        train_and_evaluate(tiny(SHOWN | overrides), workdir, quiet=True)
        assert not (workdir / "mlflow").exists()
        assert main(["sync", f"--workdir={workdir}"]) == 2
        assert "--uri: got nothing; expected the address of a server" in capsys.readouterr().err
        assert main(["sync", f"--workdir={workdir}", f"--uri={server.uri}/"]) == 0
        lines = capsys.readouterr().out.splitlines()
        shown = [exhibit for exhibit in read_exhibits(workdir) if exhibit["kind"] == "image"]
        assert lines[0].startswith("sent 7 rows, ")
        assert lines[0].endswith(f", {len(shown)} pictures")
        assert lines[1].startswith(f"  {server.uri}/#/experiments/")
        (found,) = [found for found in server.runs() if found["info"]["run_name"] == name]
        assert of_rows(server.metrics(found)) == expected(workdir)
        assert named(found["data"]["tags"])["host"]
        pictures = [path for path in server.artifacts(found) if path.startswith("images/")]
        assert len(pictures) == 2 * len(shown) > 0  # each with its preview


LOAD = """
import json, sys
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
run = mlflow.get_run(sys.argv[2])
(output,) = run.outputs.model_outputs
model = mlflow.get_logged_model(output.model_id)
found = mlflow.pyfunc.load_model(f"models:/{output.model_id}").predict(np.load(sys.argv[3]))
print(json.dumps([model.name, str(model.status), model.source_run_id, output.step, found["logits"].tolist()]))
"""


@pytest.mark.usefixtures("patient")
@pytest.mark.needs("peers")
def test_the_export_of_a_run_is_its_model_which_the_client_loads(
    server: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    workdir = tmp_path / "run"
    config = on(server.uri, experiment="models")
    train_and_evaluate({**config, "train": {**config["train"], "duration": "20 steps"}}, workdir, quiet=True)
    server.kill()
    assert main(["export", f"--workdir={workdir}", "--format=mlflow"]) == 0
    assert "sync --workdir=" in capsys.readouterr().err, "the export is there, and is sent later"
    server.start()
    (sent,) = sync(workdir)
    assert sent.counts == {"model": 1}
    assert main(["export", f"--workdir={workdir}", "--format=mlflow"]) == 0
    (own,) = server.runs("models")
    (output,) = own["outputs"]["model_outputs"]
    mlflow_rest.MlflowServer(server.uri).log_output(
        own["info"]["run_id"], output["model_id"], 20
    )  # as after a lost answer
    pictures = np.zeros((2, 8, 8, 1), np.uint8)
    np.save(tmp_path / "pictures.npy", pictures)
    command = [str(PEERS), "-c", LOAD, server.uri, own["info"]["run_id"], str(tmp_path / "pictures.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    name, status, source, step, logits = json.loads(done.stdout)
    assert (name, status, source, step) == ("mlp", "READY", own["info"]["run_id"], 20)
    np.testing.assert_allclose(logits, load_run(workdir).predict(pictures), atol=1e-5)


@pytest.mark.needs("peers")
def test_a_run_deleted_on_the_server_is_not_made_anew(server: MlflowServer, tmp_path: Path):
    workdir = tmp_path / "run"
    made_run(workdir, server.uri, "deleted")
    sync(workdir)
    (found,) = server.runs("deleted")
    server.delete(found)
    with pytest.raises(UsageError, match="was deleted; restore it there, or remove"):
        sync(workdir)


def test_sync_errors(tmp_path: Path):
    with pytest.raises(UsageError, match=r"got a directory without config\.json"):
        sync(tmp_path)
    made_run(tmp_path / "run", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(
        StorageError, match=r"track\.mlflow\.uri: got .*Connection refused.*expected a server that answers"
    ):
        sync(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"--uri: got 'here'; expected"):
        sync(tmp_path / "run", "here")
    with run_lock(tmp_path / "run"), pytest.raises(UsageError, match="in use by process"):
        sync(tmp_path / "run")


def test_the_user_is_named_to_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A password is read from the variables of MLflow's own client, since a run saves its config."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    with fake_server(lambda first, body: (http(401, b"{}"), 0.0)) as (uri, asked):
        with pytest.raises(ConfigError, match="which refuses"):
            check_server(on(uri)["track"]["mlflow"])
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "word")
        with pytest.raises(ConfigError, match="which refuses"):
            check_server(on(uri)["track"]["mlflow"])
    assert [line.partition(" HTTP/1.1 ")[2] for line in asked] == ["Basic bWU6c2VjcmV0", "Bearer word"]
