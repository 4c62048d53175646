"""Sends a search to an MLflow server: the search as a run, and each trial that has ended as a child of it."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxtrain.config.defaults import Config
from jaxtrain.files import exists, full_path, list_directory, read_json
from jaxtrain.search.identity import without_storage
from jaxtrain.search.study import read_appended_outcomes
from jaxtrain.search.trials import Outcome
from jaxtrain.storage.environment import describe_environment
from jaxtrain.storage.ownership import Owner, read_owner
from jaxtrain.trackers.event_summaries import tag_of
from jaxtrain.trackers.mlflow_content import metric, milliseconds
from jaxtrain.trackers.mlflow_deliveries import Deliveries, demand_nothing_left
from jaxtrain.trackers.mlflow_files import send_files
from jaxtrain.trackers.mlflow_ledger import Batch, Key
from jaxtrain.trackers.mlflow_rest import LONGEST_PARAM, Json, key_of, shortened
from jaxtrain.trackers.mlflow_runs import Identity, MlflowRun, written
from jaxtrain.trackers.mlflow_tracker import Follower
from jaxtrain.trackers.open import mlflow_section

PARENT_TAG = "mlflow.parentRunId"
TRIAL_TAG = "jaxtrain.trial"

STATUS = {"done": "FINISHED", "stopped": "KILLED", "undefined": "FAILED", "diverged": "FAILED"}
"""Status of a trial -> that of the server's run."""

FILES = ("result.json", "best_config.json", "comparison.json", "report.html", "trials.jsonl")


class SearchSender:
    """Sends what the folder of a search holds and the server lacks; trials are those of this folder's trials.jsonl."""

    def __init__(self, run: MlflowRun, say: Callable[[str], None], *, sealed: bool) -> None:
        """Takes the server's run of the search; `sealed` tells whether lines without a seal were changed by others."""
        self.run = run
        self._folder = run.identity.folder
        self._metric = run.identity.config["eval"]["metric"]
        self._sealed = sealed
        self._outcomes = Deliveries(self._send_trial, say)
        self._children: dict[str, Json] = {}
        self._found_children = False
        self._read = 0
        self._ending: str | None = None

    def end(self, status: str) -> None:
        """Lets the next `send` also set the status of the search and send the files of its end."""
        self._ending = status

    def send(self) -> None:
        """Sends every trial that is new; first of all, in each session, the search itself."""
        if not self.run.page:
            self.run.connect(is_running=self._ending is None)
        self.run.requests.send(is_last=self._ending is not None)
        if not self._found_children:
            found = self.run.server.find_runs(self.run.experiment, PARENT_TAG, self.run.id)
            self._children = {_tag(child, TRIAL_TAG): child for child in found}
            self._found_children = True
        outcomes, self._read = read_appended_outcomes(self._folder / "trials.jsonl", self._read, sealed=self._sealed)
        self._outcomes.add(outcomes)
        self._outcomes.send(is_last=self._ending is not None)
        if self._ending:
            self._send_end(self._ending)
            demand_nothing_left(self.run.requests, self._outcomes)

    def _send_trial(self, outcome: Outcome) -> None:
        """Sends a trial: where it was begun before, its run there is found by its number, and its times are that run's.

        So what is sent again is the same, which the server counts once.
        """
        key: Key = ("trial", outcome.trial, "", 0)
        if self.run.has(key):
            return
        child = self._children.get(str(outcome.trial)) or self._make_child(outcome)
        began = child["info"]["start_time"] / 1000
        run = child["info"]["run_id"]
        name = tag_of(self._metric, "validation")
        curve = [metric(name, value, began, int(step)) for step, value in outcome.curve]
        value = [] if outcome.value is None else [metric("value", outcome.value, began, outcome.step)]
        params = {key_of(name): shortened(str(chosen), LONGEST_PARAM) for name, chosen in outcome.point.items()}
        self.run.server.log(run, metrics=curve + value, params=params, tags={"status": outcome.status})
        self.run.server.set_status(run, STATUS[outcome.status], milliseconds(began + outcome.seconds))
        if outcome.value is not None:
            of_search = metric("value of a trial", outcome.value, began, outcome.trial)
            self.run.log(Batch((("value", outcome.trial, "", 0),), [of_search]))
        self.run.note([key])

    def _make_child(self, outcome: Outcome) -> Json:
        tags = {PARENT_TAG: self.run.id, TRIAL_TAG: str(outcome.trial), "mlflow.source.name": "jaxtrain"}
        began = milliseconds(time.time() - outcome.seconds)
        child = self.run.server.create_run(self.run.experiment, f"trial {outcome.trial}", began, tags)
        self._children[str(outcome.trial)] = child
        return child

    def _send_end(self, status: str) -> None:
        """Sends the best value, the status, and the files of the search's end."""
        ended = written(self._folder / "result.json")
        best = _result(self._folder).get("best")
        batches = [Batch((("best", best["trial"], "", 0),), [_best_value(best, ended)])] if best else []
        self.run.end(batches, status, ended)
        send_files(self.run, [*FILES, *(f"pictures/{name}" for name in list_directory(self._folder / "pictures"))])


def search_sender(
    folder: Path,
    workdir: Path,
    owner: Owner,
    section: Config,
    config: Config,
    say: Callable[[str], None],
    environment: Callable[[], Mapping[str, Any]],
) -> SearchSender:
    """Makes the sender of the search that owns a folder in a directory; for the arguments see `Identity`."""
    worker = "" if folder.name == "search" else f" {folder.name}"
    identity = Identity(
        folder=folder,
        id=owner.id or full_path(str(folder)),
        name=section["run"] or f"search {Path(full_path(str(workdir))).name}{worker}",
        section=section,
        config=without_storage(config),
        started=milliseconds(written(folder / "run.json")),
        environment=environment,
    )
    return SearchSender(MlflowRun(identity, say), say, sealed=owner.seals)


def search_ending(folder: Path) -> str:
    """Returns the server's status of a search that is not running."""
    result = _result(folder)
    return ("FINISHED" if result["best"] else "FAILED") if "best" in result else "KILLED"


class SearchMirror:
    """The search on the server of its config, while it runs; does nothing where the config names none."""

    def __init__(self, follower: Follower | None) -> None:
        """Takes what sends; None: nothing is sent."""
        self._follower = follower
        self.status = "FAILED"

    def wake(self) -> None:
        """Lets what is new in the folder be sent; returns at once."""
        if self._follower:
            self._follower.wake()

    def close(self) -> None:
        """Sends what is left, for a bounded time; `status` is that of the search."""
        if self._follower:
            self._follower.close(self.status)


@contextmanager
def mirror_search(config: Config, folder: Path, workdir: Path, say: Callable[[str], None]) -> Iterator[SearchMirror]:
    """Mirrors the search in a folder on the server that its config names; ends it as FAILED where the block raises."""
    section = mlflow_section(config)
    owner = read_owner(folder)
    follower = None
    if section and owner:
        sender = search_sender(folder, workdir, owner, section, config, say, describe_environment)
        follower = Follower(sender, workdir, say)
    mirror = SearchMirror(follower)
    try:
        yield mirror
    finally:
        mirror.close()


def _best_value(best: Mapping[str, Any], ended: float) -> Json:
    return metric("best value", best["value"], ended, best["trial"])


def _tag(run: Json, name: str) -> str:
    return next((tag["value"] for tag in run["data"].get("tags", []) if tag["key"] == name), "")


def _result(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    return read_json(path) if exists(path) else {}
