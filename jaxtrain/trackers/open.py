"""Opens the trackers of a run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxtrain.config.defaults import Config, flatten
from jaxtrain.config.hparams import hyperparameters, schedule_entries
from jaxtrain.config.identity import to_json
from jaxtrain.trackers.base import Tracker
from jaxtrain.trackers.composite import CompositeTracker
from jaxtrain.trackers.console import ConsoleTracker
from jaxtrain.trackers.event_files import TensorBoardTracker
from jaxtrain.trackers.jsonl import JsonlTracker
from jaxtrain.trackers.picture_files import PictureFiles
from jaxtrain.trackers.progress import Progress

COMPARED = ("seed", "task", "model", "loss", "optimizer", "augment", "schedule", "train")
"""The sections whose values TensorBoard's page HPARAMS compares; more columns than these hide them."""


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
