"""Opens the trackers of a run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jaxtrain.config.defaults import Config
from jaxtrain.config.hparams import hyperparameters, schedule_entries
from jaxtrain.config.identity import to_json
from jaxtrain.trackers.base import Tracker
from jaxtrain.trackers.composite import CompositeTracker
from jaxtrain.trackers.console import ConsoleTracker
from jaxtrain.trackers.event_files import TensorBoardTracker
from jaxtrain.trackers.jsonl import JsonlTracker
from jaxtrain.trackers.picture_files import PictureFiles
from jaxtrain.trackers.progress import Progress


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
        mirrors.append(TensorBoardTracker(workdir, primary.rows(), bar.say, pictures.exhibits(), total))
    tracker = CompositeTracker([primary, *mirrors, *extra], bar.say)
    tracker.text("config", f"```json\n{to_json(config)}\n```")
    try:
        yield tracker
    finally:
        tracker.close()
