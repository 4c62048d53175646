"""The smoke test of a run: two steps and all that follows them, in a temporary directory that is removed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxtrain.config.debug_modes import without_debug_mode
from jaxtrain.config.defaults import Config
from jaxtrain.data import Source
from jaxtrain.data.dataset import Dataset
from jaxtrain.errors import StorageError, Words
from jaxtrain.files import remove, temporary_directory
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.storage.result import Result
from jaxtrain.storage.run_files import list_run_files
from jaxtrain.trackers.memory import MemoryTracker
from jaxtrain.training.train import train_and_evaluate

STEPS = 2

EVALUATED = 2
"""Batches of an evaluation: enough for a whole one and a padded one."""


WHAT = {"train": "training step", "test": "checkpoint, pictures and evaluation of test"}
"""The things that have passed when a row of a split is written; of another split its evaluation."""


class Stopwatch(MemoryTracker):
    """Says each thing that passed, and the seconds since the last one; it is a tracker of the run."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Starts the watch."""
        super().__init__()
        self._say = say
        self._last = time.perf_counter()

    def passed(self, what: str) -> None:
        """Says that something passed."""
        now = time.perf_counter()
        self._say(f"passed  {now - self._last:7.2f} s  {what}")
        self._last = now

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Says that a step was taken or a split was evaluated."""
        self.passed(f"{WHAT.get(split, f'evaluation of {split}')}: loss {values['loss']:.4g} at step {step}")

    def text(self, name: str, text: str, step: int = 0) -> None:
        """Says that the run can start, when the first text comes, which is that of the config."""
        if not self.texts:
            self.passed("data, model and trackers")
        super().text(name, text, step)


def smoke(config: Config, workdir: Path, *, data: Source | None, say: Callable[[str], None], quiet: bool) -> Result:
    """Takes two steps, evaluates, saves, tests and writes every file, then restores what was saved to the bit.

    It evaluates the first examples of each split. Raises what the run would raise, and StorageError where the state
    that is restored is not the one that was saved.
    """
    del quiet  # of the progress, which two steps do not show
    begin = _first_step(config)
    total = begin + STEPS
    shortened = without_debug_mode(config, _shortened(config, total))
    cut = None if begin else lambda dataset: cut_evaluations(dataset, EVALUATED * config["data"]["eval_batch_size"])
    with temporary_directory("jaxtrain-smoke-") as folder:
        place = folder / "run"
        watch = Stopwatch(say)
        result = train_and_evaluate(shortened, place, data=data, trackers=[watch], quiet=True, cut=cut)
        if result.status != "done":
            return result
        watch.passed(f"files: {', '.join(name for name, _ in list_run_files(place))}")
        _restore(shortened, place, result, data, cut)
        watch.passed(f"restored step {result.step} from its checkpoint, equal to the bit")
    say(f"smoke: all passed; {workdir} is as it was, and the temporary directory is removed")
    return result


def _first_step(config: Config) -> int:
    """Returns the step at which the run begins: 0, or that of the run which it continues."""
    source = config["checkpoint"]["continue_from"]
    if source is None:
        return 0
    return max(Checkpoints(Path(source) / "checkpoints", keep=1, say=lambda _: None).steps(), default=0)


def _shortened(config: Config, total: int) -> dict[str, object]:
    """Returns the overrides of a run that ends at step `total` and does everything at its end."""
    track = config["track"]
    return {
        "train.duration": f"{total} steps",
        "train.early_stopping": None,
        "log.every": "1 steps",
        "eval.every": f"{total} steps",
        "checkpoint.every": f"{total} steps",
        **{f"track.{name}": "100 %" for name in ("pictures", "histograms") if track[name] is not None},
    }


def cut_evaluations(dataset: Dataset, most: int) -> Dataset:
    """Returns the dataset with at most `most` examples in each split but that of training."""
    folds = tuple(cut_evaluations(fold, most) for fold in dataset.folds)
    parts = {
        name: part if name == "train" else part.pick(np.arange(min(most, len(part))))
        for name, part in dataset.parts.items()
    }
    return replace(folds[0], folds=folds) if folds else replace(dataset, parts=parts)


def _restore(
    config: Config,
    place: Path,
    result: Result,
    data: Source | None,
    cut: Callable[[Dataset], Dataset] | None,
) -> None:
    """Resumes the run as if it had been killed after its last checkpoint; raises StorageError for another state."""
    remove(place / "result.json")
    restored = train_and_evaluate(config, place, data=data, quiet=True, cut=cut)
    if (restored.step, restored.state_digest) != (result.step, result.state_digest):
        got = Words(f"a restored state of step {restored.step} with the digest {restored.state_digest[:12]}")
        expected = f"{result.state_digest[:12]}, that of step {result.step} when it was saved"
        hint = "Check the disk and the memory, and that nothing changes arrays of the state in place"
        raise StorageError("checkpoint", got, expected, hint)
