"""The durations of a run in steps."""

from typing import NamedTuple

from jaxtrain.config.defaults import Config
from jaxtrain.config.durations import MOST_STEPS, steps_of
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

    def next(self, step: int) -> int:
        """Returns the next step at which a log row, an evaluation or a checkpoint is due."""
        return min(self.total, *((step // every + 1) * every for every in (self.log, self.eval, self.checkpoint)))


def lengths_of(config: Config, dataset: Dataset) -> Lengths:
    """Converts the durations of a config into steps on this dataset."""
    epoch = steps_per_epoch(dataset.sizes["train"], config["data"]["batch_size"])
    total = steps_of(config["train"]["duration"], steps_per_epoch=epoch)
    if total >= MOST_STEPS:
        raise ConfigError(
            "train.duration", config["train"]["duration"], f"fewer than {int(MOST_STEPS):,} steps", "Shorten it"
        )

    def steps(text: str) -> int:
        return min(total, steps_of(text, steps_per_epoch=epoch, total=total))

    log, evaluation, checkpoint = (steps(config[section]["every"]) for section in ("log", "eval", "checkpoint"))
    patience = config["train"]["early_stopping"]
    return Lengths(total, log, evaluation, checkpoint, None if patience is None else steps(patience))
