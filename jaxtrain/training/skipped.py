"""Batches that were skipped as spikes: their steps and rows, and the lines that name them."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxtrain.core.metric import Mean
from jaxtrain.core.metric_names import FOLD, SKIPPED
from jaxtrain.errors import ConfigError, Words
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.feeds import rows_of

SHOWN = 8
"""Rows that a line names; the result has all."""

Skipped = dict[str, Any]
"""{"step", "rows"}, and "lane" where a run has several: "seed_3" or "fold_0"."""


def find_skipped(experiment: Experiment, begin: int, metrics: Mapping[str, Mean], steps: int) -> Iterator[Skipped]:
    """Yields the batches that a call from step `begin` skipped, given its metrics stacked over steps on the host.

    Raises ConfigError for a step of the user's own that skips none.
    """
    if experiment.config["train"]["on_spike"] is None:
        return
    if SKIPPED not in metrics:
        got = Words("'rewind' with a step of your own that returns no metric 'skipped'")
        raise ConfigError("train.on_spike", got, "a step that returns what train_step does", "Call train_step in it")
    by_lane = {name: metric for name, metric in metrics.items() if name.endswith(f"/{SKIPPED}")}
    for name, metric in (by_lane or {SKIPPED: metrics[SKIPPED]}).items():
        lane = name.rpartition("/")[0]
        for i in np.flatnonzero(np.asarray(metric.sum)[:steps]):
            step = begin + int(i)
            yield {"step": step, "rows": _rows(experiment, lane, step)} | ({"lane": lane} if lane else {})


def _rows(experiment: Experiment, lane: str, step: int) -> list[int]:
    """Returns the rows of the training split that make up the batch of a step, in a lane."""
    folds = experiment.dataset.folds
    dataset = folds[int(lane.removeprefix(FOLD))] if folds else experiment.dataset
    return rows_of(experiment.config["data"], dataset, step, 1)[0].tolist()


def line_of(skipped: Skipped) -> str:
    """Returns the line that names a skipped batch."""
    rows = skipped["rows"]
    named = ", ".join(map(str, rows[:SHOWN])) + (f" and {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else "")
    lane = f" of {skipped['lane']}" if "lane" in skipped else ""
    return f"step {skipped['step']:,}{lane}: a spike; the batch is skipped: rows {named} of the training split"
