"""A run's own files: the config that claims a directory, and the trackers that write into it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxtrain.config import Config, changes_numbers, default_config, difference, resolve_config, to_json
from jaxtrain.directory import read_json, write_json
from jaxtrain.errors import StorageError, UsageError
from jaxtrain.progress import Progress
from jaxtrain.trackers import ConsoleTracker, JsonlTracker, TensorBoardTracker, Tracker, several


def demand_own(workdir: Path, config: Config) -> None:
    """Raises UsageError where the directory holds a run of another config, StorageError where that cannot be told.

    What changes no number (how often to log, say) may differ. A knob that the run's version of jaxtrain did not have
    yet takes its default.
    """
    path = workdir / "config.json"
    if not path.exists():
        if (workdir / "checkpoints").exists():
            raise StorageError(f"{path}: not there, but checkpoints are; restore it, or give another --workdir")
        return
    saved = read_json(path)
    if not isinstance(saved, dict):
        raise StorageError(f"{path}: is not the config of a run; restore it from a copy, or give another --workdir")
    found = difference(changes_numbers(config), changes_numbers(resolve_config(saved).config))
    if found:
        lines = "; ".join(f"{name}: given {ours!r}, there {theirs!r}" for name, (ours, theirs) in found.items())
        raise UsageError(f"--workdir={workdir}: holds a run of another config. {lines}. Give another --workdir")


def claim(workdir: Path, config: Config) -> None:
    """Writes `config.json` and its difference from the default: from now on the directory is this run's."""
    write_json(workdir / "config.json", config)
    write_json(workdir / "config_difference.json", from_default(config))


def from_default(config: Config) -> Mapping[str, Any]:
    """Returns dotted name -> {"value", "default"} for what differs from the default config."""
    found = difference(config, resolve_config(default_config()).config)
    return {name: {"value": ours, "default": default} for name, (ours, default) in found.items()}


@contextmanager
def open_trackers(
    config: Config, workdir: Path, resumed: int | None, extra: Sequence[Tracker], bar: Progress, total: int
) -> Iterator[Tracker]:
    """Opens metrics.jsonl, cut back to the step that the run resumes at, and its mirrors."""
    truth = JsonlTracker(workdir / "metrics.jsonl", resumed)
    mirrors: list[Tracker] = [ConsoleTracker(bar.say, total)]
    if config["track"]["tensorboard"]:
        mirrors.append(TensorBoardTracker(workdir, truth.rows(), bar.say))
    tracker = several([truth, *mirrors, *extra], bar.say)
    tracker.text("config", f"```json\n{to_json(config)}\n```")
    try:
        yield tracker
    finally:
        tracker.close()
