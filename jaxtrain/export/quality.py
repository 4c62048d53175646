"""Metrics of an export beside those of its run: what rounding the weights costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxtrain.data.dataset import Dataset
from jaxtrain.errors import UsageError, Words
from jaxtrain.export.check import joined_outputs
from jaxtrain.export.loading import load_export
from jaxtrain.export.padded import Outputs
from jaxtrain.export.rows import raw_inputs
from jaxtrain.training.bookkeeping import Names, Numbers, to_numbers
from jaxtrain.training.measuring import Measure, is_measured
from jaxtrain.training.trained_run import Run

PIECE = 512
"""Examples that are predicted at a time."""

WINDOWS = 8
"""Windows of a text that are predicted at a time: each has logits at every position."""

MOST_LOST = 0.01
"""The most that a metric whose best value is 1 may fall, such as one point of accuracy."""

MOST_LOSS = 0.02
"""The most that the loss may rise, relative to that of the run, where there is no such metric."""


class Quality(NamedTuple):
    """Loss and metrics of the run and of the export on one split, and the number of its examples."""

    split: str
    examples: int
    run: Numbers
    export: Numbers
    falling: tuple[str, ...]
    """The metrics that are better the higher they are, each one number."""


def measure_quality(folder: Path, runs: Sequence[Run], dataset: Dataset) -> Quality | None:
    """Measures the exported program and the run on the test split, else on validation or training.

    Returns None for a task whose metrics need more than predictions, or are a user's own.
    """
    run = runs[0]
    if not is_measured(run.config):
        return None
    split = next(name for name in ("test", "validation", "train") if name in dataset.parts)
    exported = load_export(folder)
    targets = dataset.targets(split)
    piece = PIECE if run.info.vocabulary is None else WINDOWS
    measures = [Measure(run.config, run.info, piece) for _ in range(2)]
    for begin in range(0, len(targets), piece):
        places = np.arange(begin, min(begin + piece, len(targets)))
        inputs = raw_inputs(dataset, split, places)
        of_runs = np.stack([member.predict(inputs, allow_nan=True) for member in runs])
        for measure, outputs in zip(
            measures, (joined_outputs(runs, of_runs), exported.predict(inputs, allow_nan=True)), strict=True
        ):
            measure.add(predictions_of(outputs), targets[places])
    names = Names(run.info.class_names, run.info.target_names)
    ours, theirs = (to_numbers(measure.metrics, names) for measure in measures)
    falling = tuple(n for n, metric in measures[0].metrics.items() if metric.higher_is_better and n in ours)
    return Quality(split, len(targets), ours, theirs, falling)


def predictions_of(outputs: Outputs) -> np.ndarray:
    """Returns the predictions among outputs, as `Run.predict` returns them."""
    return next(outputs[name] for name in ("logits", "numbers", "outputs") if name in outputs)


def demand_quality(quality: Quality, option: str) -> None:
    """Raises UsageError, on an option of the command, for an export that is worse than its run by too much."""
    for name in quality.falling:
        before = quality.run[name]
        if not (np.isnan(before) or quality.export[name] >= before - MOST_LOST):
            raise _worse(quality, option, name, f"at most {MOST_LOST:g} less")
    if quality.falling or "loss" not in quality.run:
        return
    before = quality.run["loss"]
    if not quality.export["loss"] <= before + MOST_LOSS * abs(before):
        raise _worse(quality, option, "loss", f"at most {MOST_LOSS:.0%} more")


def _worse(quality: Quality, option: str, name: str, expected: str) -> UsageError:
    numbers = f"{quality.export[name]:.4g}, where the run has {quality.run[name]:.4g}"
    got = Words(f"{name} {numbers}, on {quality.examples:,} examples of the {quality.split} split")
    hint = "Take --precision=bfloat16" if option == "--quantize" else "Export it in float32"
    return UsageError(option, got, expected, hint)
