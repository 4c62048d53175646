"""Checks that targets are of the kind that a task of the table learns: shapes and values that train, but to nothing."""

import numpy as np

from jaxtrain.config.defaults import Config
from jaxtrain.data.checks import is_integer, is_labels
from jaxtrain.data.dataset import Dataset
from jaxtrain.data.fields import read_rows
from jaxtrain.data.info import blocks
from jaxtrain.data.source import Split
from jaxtrain.errors import DataError, Words

ROUNDING = 0.01
"""Tolerance of the sum of a row of probabilities, which is 1: rows may come from float16."""


def check_targets(config: Config, dataset: Dataset) -> None:
    """Raises DataError, naming the file, for targets of a shape or with values that the config's task cannot learn.

    A task of the user's own takes any numbers.
    """
    task = config["task"]["name"]
    for name in dataset.parts:
        split = dataset.parts[name].split
        where = split.where("targets", name)
        if task in ("classification", "sequence_classification"):
            _demand_labels(split, where)
        elif task == "multi_label":
            _demand_marks(split, where)
        elif task == "binary_classification" or (task == "segmentation" and (dataset.info.classes or 2) == 2):
            _demand_range(split, where, task, dataset.info.void)
        elif task == "label_distribution":
            _demand_distributions(split, where)
        elif task == "regression" and len(split.targets.shape) > 2:
            hint = "Flatten them, as by targets.reshape(len(targets), -1)"
            raise DataError(where, _words(split), "a number or a row of numbers for each example in 'regression'", hint)
    if task in ("classification", "binary_classification", "segmentation", "sequence_classification"):
        _demand_several(dataset)


def _demand_labels(split: Split, where: str) -> None:
    if is_labels(split.targets):
        return
    shape = split.targets.shape
    if len(shape) == 2 and shape[1] > 1 and _are_one_hot(split.targets):
        hint = "Give their indices, as by targets.argmax(axis=1)"
    elif len(shape) == 2 and shape[1] == 1:
        hint = "Give them without the last axis, as by targets[:, 0].astype(int)"
    elif len(shape) == 1:
        hint = "Convert whole numbers by .astype(int), or take task.name=regression"
    else:
        hint = "Take a task that fits the targets"
    raise DataError(where, _words(split), "one integer label for each example in 'classification'", hint)


def _demand_range(split: Split, where: str, task: str, void: int | None) -> None:
    """Rejects values outside of 0 to 1 but `void`, which are no probability of the one class."""
    if not isinstance(split.targets, np.ndarray):  # decoded when they are read, and checked then
        return
    targets = split.targets if void is None else split.targets[split.targets != void]
    low = float(targets.min(initial=0))
    high = float(targets.max(initial=0))
    if low < 0 or high > 1:
        got = Words(f"{_words(split)} from {low:g} to {high:g}")
        more = "state the number of classes in the source" if task == "segmentation" else "take 'classification'"
        hint = f"Compare them with a threshold, as by (targets > 0).astype(int), or {more} where there are several"
        raise DataError(where, got, f"values from 0 to 1 in {task!r}", hint)


def _demand_marks(split: Split, where: str) -> None:
    """Rejects targets other than a row of 0 and 1 for each example."""
    if len(split.targets.shape) != 2 or not all(((rows == 0) | (rows == 1)).all() for _, rows in blocks(split.targets)):
        hint = "Take 'classification' where each example has one label"
        raise DataError(where, _words(split), "lists of labels, or rows of 0 and 1, in 'multi_label'", hint)


def _demand_distributions(split: Split, where: str) -> None:
    """Rejects rows that are no probabilities, and rows of one class, whose loss is 0 whatever the model says."""
    if len(split.targets.shape) != 2 or split.targets.shape[1] < 2:
        hint = "Take 'classification' where each example has one label"
        raise DataError(where, _words(split), "a row of probabilities of at least two classes in each example", hint)
    for block, rows in blocks(split.targets):
        wrong = (rows < 0).any(axis=1) | (np.abs(rows.sum(axis=1, dtype=np.float64) - 1) > ROUNDING)
        if wrong.any():
            row = int(np.argmax(wrong))
            values = ", ".join(f"{value:g}" for value in rows[row][:5])
            more = ", ..." if len(rows[row]) > 5 else ""
            got = Words(f"targets[{block.start + row}] = ({values}{more}) of {_words(split)}")
            raise DataError(where, got, "rows of probabilities, which add up to 1", "Divide each row by its sum")


def _demand_several(dataset: Dataset) -> None:
    """Rejects a training part whose targets are all one value: the loss falls to 0, and nothing is learned."""
    split = dataset.parts["train"].split
    rows = dataset.parts["train"].rows
    first = read_rows(split.targets, np.array([0] if rows is None else rows[:1])).flat[0]
    if all((values == first).all() for _, values in blocks(split.targets, rows)):
        got = Words(f"{_words(split)}, of which all {dataset.sizes['train']} in training are {first}")
        hint = "Add examples of another class, or take task.name=regression where they are numbers"
        raise DataError(split.where("targets", "train"), got, "at least two classes", hint)


def _are_one_hot(targets: np.ndarray) -> bool:
    """Returns whether every row has one 1 and otherwise 0."""
    return all(((rows == 0) | (rows == 1)).all() and (rows.sum(axis=1) == 1).all() for _, rows in blocks(targets))


def _words(split: Split) -> Words:
    kind = "integers" if is_integer(split.targets) else "floats"
    return Words(f"targets of shape {split.targets.shape}, {kind}")
