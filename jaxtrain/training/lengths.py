"""The durations of a run in steps."""

import math
from typing import NamedTuple

from jaxtrain.config.defaults import Config
from jaxtrain.config.durations import MOST_STEPS, seconds_of, steps_of
from jaxtrain.data.dataset import Dataset
from jaxtrain.data.order import steps_per_epoch
from jaxtrain.errors import ConfigError


class Lengths(NamedTuple):
    """The durations of a config in steps; `patience` is None without early stopping."""

    total: int
    log: int
    eval: int
    checkpoint: int
    patience: int | None

    def due(self, every: int, step: int) -> bool:
        """Tells whether an action that is due every `every` steps, and at the last step, is due at this step."""
        return step % every == 0 or step == self.total

    def pauses_at(self, step: int) -> bool:
        """Tells whether an evaluation or a save is due at this step."""
        return self.due(self.eval, step) or self.due(self.checkpoint, step)

    def pauses(self) -> int:
        """Returns the number of steps at which an evaluation or a save is due."""
        both = math.lcm(self.eval, self.checkpoint)
        counted = self.total // self.eval + self.total // self.checkpoint - self.total // both
        return counted + (not (self.total % self.eval == 0 or self.total % self.checkpoint == 0))

    def next(self, step: int) -> int:
        """Returns the next step at which a log row, an evaluation or a checkpoint is due."""
        return min(self.total, *((step // every + 1) * every for every in (self.log, self.eval, self.checkpoint)))


def lengths_of(config: Config, dataset: Dataset, total: int | None = None) -> Lengths:
    """Converts the durations of a config into steps on this dataset.

    `total` is that of a run whose duration is a time, once `training/timed_duration.py` has fixed it; until then such
    a run counts as one of an epoch.
    """
    epoch = steps_per_epoch(dataset.epoch_examples, config["data"]["batch_size"])
    text = config["train"]["duration"]
    if total is None:
        total = steps_of(text if seconds_of(text) is None else "1 epoch", steps_per_epoch=epoch)
    if total >= MOST_STEPS:
        raise ConfigError("train.duration", text, f"fewer than {int(MOST_STEPS):,} steps", "Shorten it")

    def steps(text: str) -> int:
        return min(total, steps_of(text, steps_per_epoch=epoch, total=total))

    log, evaluation, checkpoint = (steps(config[section]["every"]) for section in ("log", "eval", "checkpoint"))
    patience = config["train"]["early_stopping"]
    return Lengths(total, log, evaluation, checkpoint, None if patience is None else steps(patience))
