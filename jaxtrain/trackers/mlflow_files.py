"""Sends the files of a run to an MLflow server: what the server lacks, however often it was interrupted."""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from jaxtrain.config.defaults import Config
from jaxtrain.errors import StorageError
from jaxtrain.files import exists, full_path, read_bytes, read_json
from jaxtrain.storage.ownership import Owner
from jaxtrain.trackers.base import Row
from jaxtrain.trackers.jsonl import read_appended_rows
from jaxtrain.trackers.mlflow_content import (
    STATUS,
    batches_of_performance,
    batches_of_result,
    batches_of_row,
    in_requests,
    join_batches,
    milliseconds,
    picture_paths,
    text_path,
)
from jaxtrain.trackers.mlflow_deliveries import Deliveries, demand_nothing_left
from jaxtrain.trackers.mlflow_ledger import Batch, Key
from jaxtrain.trackers.mlflow_model import send_model
from jaxtrain.trackers.mlflow_runs import Identity, MlflowRun, written
from jaxtrain.trackers.picture_files import Exhibit, read_appended_exhibits, read_picture

FILES = ("result.json", "config.json", "config_difference.json", "environment.json", "plots/record.jsonl")
"""The files of a run that are sent when it ends, in this order."""


PICTURES_TAG = {"mlflow.loggedImages": "True"}


class Sender(Protocol):
    """Sends a run or a search; `run` is that of the server."""

    run: MlflowRun

    def end(self, status: str) -> None:
        """Lets the next `send` also set the status of the server's run and send the files of the end."""
        ...

    def send(self) -> None:
        """Sends what is new. Where it raises ServerDown or Refused, the next call continues there."""
        ...


class RunSender:
    """Sends what a run's directory holds and the server lacks."""

    def __init__(self, run: MlflowRun, say: Callable[[str], None], *, sealed: bool) -> None:
        """Takes the server's run; `sealed` tells whether rows without a seal were changed by others."""
        self.run = run
        self._workdir = run.identity.folder
        self._sealed = sealed
        self._metrics: Deliveries[tuple[Batch, ...]] = Deliveries(self._log, say, lambda own: [(one,) for one in own])
        self._files: Deliveries[str] = Deliveries(lambda name: send_files(run, [name]), say)
        self._shown = Deliveries(self._send_shown, say)
        self._rows_read = 0
        self._exhibits_read = 0
        self._ending: str | None = None
        self._is_tagged = False

    def end(self, status: str) -> None:
        """Lets the next `send` also set the status of the server's run and send the files of the run's end."""
        self._ending = status
        self._files.add(FILES)

    def send(self) -> None:
        """Sends everything that is new; first of all, in each session, the run itself with parameters and tags."""
        is_last = self._ending is not None
        if not self.run.page:
            self.run.connect(is_running=not is_last)
        self.run.requests.send(is_last=is_last)
        self._collect()
        self._metrics.send(is_last=is_last)
        if self._ending:
            self._send_end(self._ending)
        self._shown.send(is_last=is_last)
        self.run.requests.send(is_last=is_last)
        if is_last:
            send_model(self.run)
            demand_nothing_left(self.run.requests, self._metrics, self._files, self._shown)

    def _collect(self) -> None:
        """Reads what is new in the run's files."""
        path = self._workdir / "metrics.jsonl"
        rows, self._rows_read = read_appended_rows(path, self._rows_read, sealed=self._sealed)
        exhibits, self._exhibits_read = read_appended_exhibits(self._workdir, self._exhibits_read)
        self._metrics.add(in_requests(filter(self._is_new, _batches_of(rows, exhibits))))
        self._shown.add(shown for shown in exhibits if shown["kind"] in ("image", "text"))

    def _log(self, batches: tuple[Batch, ...]) -> None:
        """Sends metrics in one request."""
        self.run.log(join_batches(batches))

    def _is_new(self, batch: Batch) -> bool:
        return not self.run.has(batch.keys[0])

    def _send_end(self, status: str) -> None:
        """Sends the value of the best evaluation, the status, and the files of the run's end."""
        ended = _ended(self._workdir)
        self.run.end(batches_of_result(_read_object(self._workdir / "result.json"), ended), status, ended)
        self._files.send(is_last=True)

    def _send_shown(self, exhibit: Exhibit) -> None:
        """Sends a picture or a text of a step; a picture whose file is not as it was written is left out."""
        key: Key = (exhibit["kind"], exhibit["step"], exhibit["name"], 0)
        if self.run.has(key):
            return
        if exhibit["kind"] == "text":
            self.run.put([text_path(exhibit)], exhibit["text"].encode())
        elif picture := read_picture(self._workdir, exhibit):
            self.run.put(picture_paths(self.run.id, exhibit), picture.png)
            self._tag_pictures()
        self.run.note([key])

    def _tag_pictures(self) -> None:
        """Tells the server's pages once that there are pictures; they look for none otherwise."""
        if not self._is_tagged:
            self.run.add_tags(PICTURES_TAG)
            self._is_tagged = True


def send_files(run: MlflowRun, names: Iterable[str]) -> None:
    """Sends those files of a run's folder that the server lacks as they are."""
    for name in names:
        path = run.identity.folder / name
        if not exists(path):
            continue
        content = read_bytes(path)
        key: Key = ("file", 0, f"{name} {hashlib.sha256(content).hexdigest()[:16]}", 0)
        if not run.has(key):
            run.put([name], content)
            run.note([key])


def run_sender(
    workdir: Path,
    owner: Owner,
    section: Config,
    config: Config,
    say: Callable[[str], None],
    environment: Callable[[], Mapping[str, Any]],
) -> RunSender:
    """Makes the sender of the run that owns a directory; for the arguments see `Identity`."""
    identity = Identity(
        folder=workdir,
        id=owner.id or full_path(str(workdir)),
        name=section["run"] or Path(full_path(str(workdir))).name,
        section=section,
        config=config,
        started=_started(workdir, sealed=owner.seals),
        environment=environment,
    )
    return RunSender(MlflowRun(identity, say), say, sealed=owner.seals)


def ending_of(workdir: Path) -> str:
    """Returns the server's status of a run that is not running: of its result, or that of a run that was killed."""
    return STATUS.get(_read_object(workdir / "result.json").get("status", ""), "KILLED")


def _batches_of(rows: Iterable[Row], exhibits: Iterable[Exhibit]) -> Iterable[Batch]:
    for row in rows:
        yield from batches_of_row(row, time.time())
    for exhibit in exhibits:
        if exhibit["kind"] == "performance":
            yield from batches_of_performance(exhibit)


def environment_of(workdir: Path) -> dict[str, Any]:
    """Returns the environment in which a run ended; nothing if it was killed."""
    return _read_object(workdir / "environment.json")


def _read_object(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file; an empty one if there is none that can be read."""
    try:
        content = read_json(path) if exists(path) else {}
    except StorageError:
        return {}
    return content if isinstance(content, dict) else {}


def _started(workdir: Path, *, sealed: bool) -> int:
    """Returns when a run began, in Unix milliseconds, as far as its files tell."""
    rows, _ = read_appended_rows(workdir / "metrics.jsonl", 0, sealed=sealed)
    times = [row["time"] for row in rows[:1] if "time" in row]
    return milliseconds(min([*times, written(workdir / "run.json")]))


def _ended(workdir: Path) -> float:
    """Returns when a run ended, in Unix seconds: when it last wrote a result or a row."""
    names = [name for name in ("result.json", "metrics.jsonl") if exists(workdir / name)]
    return max((written(workdir / name) for name in names), default=time.time())
