"""Opens the trackers of a run."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxtrain.config.defaults import Config, flatten
from jaxtrain.config.hparams import hyperparameters, schedule_entries
from jaxtrain.config.identity import to_json
from jaxtrain.storage.environment import describe_environment
from jaxtrain.storage.ownership import Owner, read_owner
from jaxtrain.trackers.base import Tracker
from jaxtrain.trackers.composite import CompositeTracker
from jaxtrain.trackers.console import ConsoleTracker
from jaxtrain.trackers.event_files import TensorBoardTracker
from jaxtrain.trackers.jsonl import JsonlTracker
from jaxtrain.trackers.picture_files import PictureFiles
from jaxtrain.trackers.progress import Progress

COMPARED = ("seed", "task", "model", "loss", "optimizer", "augment", "schedule", "train")
"""The sections whose values TensorBoard's page HPARAMS compares; more columns than these hide them."""


def check_trackers(config: Config) -> None:
    """Raises ConfigError, before a run starts, if a server that it is mirrored on could never take it."""
    if section := mlflow_section(config):
        from jaxtrain.trackers.mlflow_rest import check_server

        check_server(section)


def mlflow_section(config: Config) -> Config | None:
    """Returns `track.mlflow` of a config whose run is sent to a server while it trains; None for others."""
    section = config["track"]["mlflow"]
    return section if section and section["uri"] != "file" else None


def send_rest(config: Config, workdir: Path, owner: Owner | None, say: Callable[[str], None]) -> None:
    """Sends what the server of a run that has ended may lack of it, for a bounded time."""
    if owner and (section := mlflow_section(config)):
        from jaxtrain.trackers.mlflow_files import ending_of, environment_of, run_sender
        from jaxtrain.trackers.mlflow_tracker import Follower

        sender = run_sender(workdir, owner, section, config, say, lambda: environment_of(workdir))
        Follower(sender, workdir, say).close(ending_of(workdir))


@contextmanager
def open_trackers(
    config: Config,
    workdir: Path,
    primary: JsonlTracker,
    extra: Sequence[Tracker],
    bar: Progress,
    total: int,
    pictures: PictureFiles | None = None,
) -> Iterator[Tracker]:
    """Opens the mirrors of metrics.jsonl, to which the yielded tracker writes after it; closes all at the end.

    `pictures` are the files of what the run shows; None: those of a new run.
    """
    pictures = pictures or PictureFiles(workdir)
    scheduled = {target for target, _ in schedule_entries(config["schedule"], "")}
    constant = hyperparameters(config).keys() - scheduled  # recorded in every row, and always the same on a terminal
    mirrors: list[Tracker] = [ConsoleTracker(bar.say, total, constant), pictures]
    if config["track"]["tensorboard"]:
        own = compared(config)
        mirrors.append(TensorBoardTracker(workdir, primary.rows(), bar.say, pictures.exhibits(), total, own))
    if (section := mlflow_section(config)) and (owner := read_owner(workdir)):
        from jaxtrain.trackers.mlflow_files import run_sender
        from jaxtrain.trackers.mlflow_tracker import MlflowTracker

        sender = run_sender(workdir, owner, section, config, bar.say, describe_environment)
        mirrors.append(MlflowTracker(sender, workdir, bar.say))
    tracker = CompositeTracker([primary, *mirrors, *extra], bar.say)
    tracker.text("config", f"```json\n{to_json(config)}\n```")
    try:
        yield tracker
    finally:
        tracker.close()


def compared(config: Config) -> dict[str, Any]:
    """Returns the values by which runs are compared, by dotted names: those that are set and that trials vary."""
    kept = {name: section for name, section in config.items() if name in COMPARED}
    data = {name: config["data"][name] for name in ("name", "batch_size")}
    known = flatten({**kept, "data": data})
    return {name: value for name, value in known.items() if value is not None and value != () and value is not False}
