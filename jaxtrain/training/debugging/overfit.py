"""Overfits a few fixed batches: a model that cannot learn them by heart will not learn the whole data either."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.config.debug_modes import without_debug_mode
from jaxtrain.config.defaults import Config, flatten
from jaxtrain.data import Source
from jaxtrain.data.dataset import Dataset
from jaxtrain.data.order import InOrder, batch_indices
from jaxtrain.errors import ConfigError
from jaxtrain.files import remove_tree
from jaxtrain.storage.result import Result
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.training.train import train_and_evaluate

STEPS = 1000
"""The least steps of a try."""

STEPS_OF_BATCH = 200
"""Steps for each batch, where these are more."""

NEAR = 0.05
"""Share of the loss at the start, or of what labels alone give, below which a loss is near its minimum of 0."""

HALF = 0.5
"""Share below which a loss has fallen at all: a part was learned."""

SHARES = {"learned": NEAR, "partly learned": HALF, "NOT learned": np.inf}
"""The verdicts, and up to which share of the yardstick a loss gets them."""

MEANING = {
    "learned": (
        "  Model, loss, gradients and optimizer work together. If training on all data fails, look at the data, the",
        "  length of the run and what keeps it from overfitting.",
    ),
    "partly learned": (
        "  Usual causes: too low a learning rate, or one that falls too early; too small a model; equal inputs with",
        "  unlike targets; a loss whose minimum is not 0.",
    ),
    "NOT learned": (
        "  Usual causes: a learning rate that is far too low or too high (the command lr_range finds one); a loss that",
        "  does not fit the outputs or has the wrong sign; a layer that stops the gradient; inputs that do not reach",
        "  the output or are not normalised.",
    ),
}
"""The usual meaning of each verdict."""

OFF = {"dropout": None, "weight_decay": 0.0, "label_smoothing": 0.0}
"""Knobs of any section that keep a model from learning by heart, and their values here."""


def overfit(config: Config, workdir: Path, *, data: Source | None, say: Callable[[str], None], quiet: bool) -> Result:
    """Trains on the first batches of the run alone, evaluates the same examples, and says whether it learned them.

    Augmentations, dropout, weight decay and label smoothing are off. Everything is written to `debug/overfit` of the
    run's directory, in the place of an earlier try. Raises ConfigError for more batches than the data have.
    """
    place = workdir / "debug" / "overfit"
    count = config["debug"]["overfit"]
    if config["checkpoint"]["continue_from"] is not None:
        expected = "None with debug.overfit, which starts anew"
        raise ConfigError("checkpoint.continue_from", config["checkpoint"]["continue_from"], expected, "Leave it out")
    labels: list[float] = []
    cut = functools.partial(cut_to_batches, section=config["data"], count=count, entropies=labels)
    remove_tree(place)
    result = train_and_evaluate(_config(config, count), place, data=data, quiet=quiet, cut=cut)
    if result.status == "done":
        for line in verdict(list(read_rows(place / "metrics.jsonl")), min(labels, default=np.inf), count):
            say(line)
    return result


def _config(config: Config, count: int) -> Config:
    """Returns the config of the try, in which nothing keeps the model from learning by heart."""
    off = {key: OFF[name] for key, _ in flatten(config).items() if (name := key.rpartition(".")[2]) in OFF}
    kept = {key: value for key, value in off.items() if flatten(config)[key] is not None}
    plain = {**config, "augment": {}}
    return without_debug_mode(
        plain,
        {
            **kept,
            "train.duration": f"{max(STEPS, STEPS_OF_BATCH * count)} steps",
            "train.early_stopping": None,
            "train.on_spike": None,
            "log.every": "1 %",
            "eval.every": "10 %",
            "checkpoint.every": "50 %",
            "eval.augment": (),
            "data.sample": None,
        },
    )


def cut_to_batches(dataset: Dataset, *, section: Config, count: int, entropies: list[float]) -> Dataset:
    """Returns the dataset whose training and validation examples are those of the run's first `count` batches.

    They come in the same batches in all epochs. The entropies of the labels of those examples, in nats, are appended to
    `entropies`, one for each fold, where each example has one label.
    """
    if dataset.folds:
        cut = functools.partial(cut_to_batches, section=section, count=count, entropies=entropies)
        folds = tuple(map(cut, dataset.folds))
        return replace(folds[0], folds=folds)
    size = section["batch_size"]
    examples = dataset.sizes["train"]
    if count * size > examples:
        expected = f"at most {examples // size}, the whole batches of {size} among {examples:,} training examples"
        raise ConfigError("debug.overfit", count, expected, "Lower it, or lower data.batch_size")
    places = batch_indices(0, count, examples=examples, batch_size=size, seed=section["seed"]).reshape(-1)
    part = dataset.parts["train"].pick(places)
    fixed = replace(
        dataset,
        parts={"train": part, "validation": part},
        weights=InOrder(len(places)),
        groups=None,
        fold_examples=None if dataset.fold_examples is None else float(len(places)),
    )
    if dataset.info.class_counts:
        entropies.append(_entropy(fixed.targets("train")))
    return fixed


def _entropy(labels: np.ndarray) -> float:
    """Returns the entropy of labels in nats: the cross-entropy of a model that only knows how frequent each is."""
    shares = np.unique(labels, return_counts=True)[1] / labels.size
    return float(-(shares * np.log(shares)).sum())


def verdict(rows: Sequence[Mapping[str, Any]], entropy: float, count: int) -> Iterator[str]:
    """Yields whether each loss of the rows, that of a run or of each lane, came near its minimum, and what that means.

    The yardstick is the loss of the first training row, or the entropy of the labels where that is lower.
    """
    first = next(row for row in rows if row["split"] == "train")
    evaluations = [row for row in rows if row["split"] == "validation"]
    if entropy == 0:
        yield "overfit: no verdict, since all examples have the same label; take more batches"
        return
    words = []
    for name in [name for name in first if name.endswith("/loss")] or ["loss"]:
        begin = np.inf if first[name] is None else first[name]
        end = min((row[name] for row in evaluations if row[name] is not None), default=np.inf)
        yardstick = min(begin, entropy)
        words.append(next(word for word, share in SHARES.items() if end <= share * yardstick))
        lane = f"{name.removesuffix('/loss')}: " if name != "loss" else ""
        shown = f"the loss went from {begin:.4g} to {end:.4g} on {count} fixed batch{'es' if count > 1 else ''}"
        yield f"overfit: {lane}{words[-1]}; {shown}, and counts as learned up to {NEAR * yardstick:.3g}"
    yield from MEANING[max(words, key=list(SHARES).index)]
