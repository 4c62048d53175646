"""A run of an MLflow server: found again or made, with notes on what it has, so that each thing is sent once."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxtrain.config.defaults import Config
from jaxtrain.files import exists, file_time, full_path
from jaxtrain.trackers.mlflow_content import RUN_TAG, milliseconds, params_of, tags_of, too_long
from jaxtrain.trackers.mlflow_deliveries import Deliveries
from jaxtrain.trackers.mlflow_ledger import FOLDER, Batch, Key, Ledger
from jaxtrain.trackers.mlflow_rest import PROXIED, Json, MlflowServer, Refused, ServerDown


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Properties of a run of the server.

    folder: the directory of the run or of the search; id: by which the server's run is found again; name: what it is
    called; section: a resolved `track.mlflow`; config: whose values are its parameters; started: Unix milliseconds;
    environment: returns what `describe_environment` does, of the machine that is used.
    """

    folder: Path
    id: str
    name: str
    section: Config
    config: Config
    started: int
    environment: Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class Request:
    """Something that is sent; where the server fails at it, each of its `parts` is tried alone."""

    send: Callable[[], None]
    parts: tuple["Request", ...] = ()


class MlflowRun:
    """The server's run, which `connect` finds or makes; the methods after it raise ServerDown or Refused.

    `requests` are those that belong to no file of the run: parameters, tags and the status. After `give_up`, which
    another thread may call, nothing is sent or noted any more.
    """

    def __init__(self, identity: Identity, say: Callable[[str], None]) -> None:
        """Reads what was sent before; touches no network. `say` prints a line."""
        self.identity = identity
        self.server = MlflowServer(identity.section["uri"])
        self.page = ""
        self.experiment = ""
        self.requests: Deliveries[Request] = Deliveries(lambda own: own.send(), say, lambda own: own.parts)
        self._say = say
        self._ledger = Ledger(identity.folder, self.server.uri)
        self._artifacts: str | None = None
        self._given_up = False

    @property
    def id(self) -> str:
        """The id that the server gave the run."""
        assert self._ledger.run is not None
        return self._ledger.run

    @property
    def takes_files(self) -> bool:
        """Tells whether the server takes files over HTTP, once it is connected."""
        return self._artifacts is not None

    @property
    def noted(self) -> Mapping[str, int]:
        """Kind -> number of things that were sent in this session."""
        return self._ledger.noted

    def has(self, key: Key) -> bool:
        """Tells whether the server has something."""
        return self._ledger.has(key)

    def connect(self, *, is_running: bool) -> None:
        """Finds the server's run, or makes it, and adds parameters and tags to `requests`.

        First among these is what was on its way when a session was killed, which is sent once more.
        """
        identity = self.identity
        self.experiment = self.server.make_experiment(identity.section["experiment"])
        tags = tags_of(identity.id, full_path(str(identity.folder)), identity.environment(), identity.section["tags"])
        found = self._find()
        if found is None:
            found = self.server.create_run(self.experiment, identity.name, identity.started, {RUN_TAG: identity.id})
        info = found["info"]
        self._demand_control()
        self._ledger.begin(info["run_id"])
        self._artifacts = self._place_of(info.get("artifact_uri", ""))
        if batch := self._ledger.unsettled():
            self.requests.add([Request(lambda: self._settle(batch))])
        known = {param["key"] for param in found["data"].get("params", [])}  # one that is there cannot be changed
        params = {name: value for name, value in params_of(identity.config).items() if name not in known}
        self._add_pairs("params", params)
        self.add_tags(tags)
        if is_running and info.get("status") != "RUNNING":
            self.requests.add([Request(lambda: self.server.set_status(self.id, "RUNNING"))])
        if cut := too_long(identity.config):
            self._say(f"MLflow: {', '.join(cut)} exceed what a parameter can hold; config.json has all")
        self.page = f"{self.server.uri}/#/experiments/{info['experiment_id']}/runs/{self.id}"

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Adds tags to `requests`."""
        self._add_pairs("tags", tags)

    def log(self, batch: Batch) -> None:
        """Sends metrics; where a kill leaves it open whether they arrived, the next session sends the same again."""
        self._demand_control()
        self._ledger.note_sending(batch)
        self.server.log(self.id, batch.metrics)
        self.note(batch.keys)

    def end(self, metrics: Iterable[Batch], status: str, ended: float) -> None:
        """Sends those of the last metrics and the status that the server lacks, of a run that ended at a Unix time."""
        lacking = [batch for batch in metrics if not self.has(batch.keys[0])]
        self.requests.add(Request(lambda batch=batch: self.log(batch)) for batch in lacking)
        if not self.has(_ended(status, ended)):
            self.requests.add([Request(lambda: self._set_ended(status, ended))])
        self.requests.send(is_last=True)

    def put(self, paths: Sequence[str], content: bytes) -> None:
        """Stores a file under each of the paths, where the server takes files."""
        for path in paths:
            if self._artifacts is not None:
                self._demand_control()
                self.server.put_artifact(self._artifacts, path, content)

    def note(self, keys: Sequence[Key]) -> None:
        """Notes that the server has something."""
        self._demand_control()
        self._ledger.note_sent(keys)

    def give_up(self) -> None:
        """Keeps a call that another thread is in from sending or noting anything further."""
        self._given_up = True

    def close(self) -> None:
        """Closes the notes."""
        self._ledger.close()

    def _settle(self, batch: Batch) -> None:
        """Sends what was on its way, unless it was read from the run's files and sent since."""
        if not all(map(self.has, batch.keys)):
            self.log(batch)

    def _add_pairs(self, kind: Literal["params", "tags"], values: Mapping[str, str]) -> None:
        """Adds a request with all of these, whose parts are one for each."""

        def log(own: Mapping[str, str]) -> Request:
            return Request(lambda: self.server.log(self.id, **{kind: own}))  # pyright: ignore[reportArgumentType]

        parts = tuple(log({name: value}) for name, value in values.items())
        self.requests.add([Request(log(values).send, parts)])

    def _set_ended(self, status: str, ended: float) -> None:
        self._demand_control()
        self.server.set_status(self.id, status, milliseconds(ended))
        self.note([_ended(status, ended)])

    def _find(self) -> Json | None:
        """Returns the server's run: that of the notes, or one with the id; None if there is none."""
        found = self.server.run(self.id) if self._ledger.run else None
        if found is None:
            return next(self.server.find_runs(self.experiment, RUN_TAG, self.identity.id), None)
        if found["info"].get("lifecycle_stage") == "deleted":
            folder = self.identity.folder / FOLDER
            raise Refused("DELETED", f"its run {self.id} was deleted; restore it there, or remove {folder}")
        return found

    def _place_of(self, artifacts: str) -> str | None:
        """Returns where the server's run keeps files; None, and says so once, where the server does not take them."""
        if artifacts.startswith(PROXIED):
            return artifacts
        self._say(f"MLflow: the server keeps files at {artifacts}, and takes none over HTTP, so none are sent")
        return None

    def _demand_control(self) -> None:
        if self._given_up:
            raise ServerDown("the run has ended")


def _ended(status: str, ended: float) -> Key:
    """Returns the key of the status of a run that ended at a time, in Unix seconds."""
    return "status", milliseconds(ended), status, 0


def written(path: Path) -> float:
    """Returns when a file was written, in Unix seconds; now for one that is missing."""
    return file_time(str(path)) / 1e9 if exists(path) else time.time()
