"""Names of classes and labels: targets that are strings, or lists of them, become numbers; the names are kept."""

import dataclasses

import numpy as np

from jaxtrain.data.source import Source, Split
from jaxtrain.data.tables import Table
from jaxtrain.errors import DataError, Words, nearest

MOST_NAMES = 10_000
"""Distinct strings beyond which targets are taken for text, not for names of classes."""


def number_labels(source: Source) -> Source:
    """Replaces targets (n,) of strings by their labels, int32, and sets the class names; else returns the source.

    The classes are those of the training split of the source, in the order of their names, unless it states them.
    Raises DataError for a name that occurs only in another split, naming the nearest, and for a missing name.
    """
    if not _are_names(source.splits["train"]):
        return source
    train = source.splits["train"]
    names = source.class_names or tuple(sorted({str(target) for target in train.targets}))
    _check_count(names, train)
    splits = {key: split._replace(targets=_labels(split, key, names)) for key, split in source.splits.items()}
    return dataclasses.replace(source, splits=splits, classes=len(names), class_names=names)


def mark_labels(source: Source) -> Source:
    """Replaces targets (n,) that are lists of strings by int32 (n, labels), 1 where a label is listed; names them.

    The labels are those of the training split of the source, in the order of their names, unless it states them as
    target or class names. Raises DataError for a label that occurs only in another split, and for what is no list.
    """
    train = source.splits["train"]
    if not _are_lists(train):
        return source
    names = (
        source.target_names
        or source.class_names
        or tuple(sorted({str(name) for row in train.targets for name in row or ()}))
    )
    if not names:
        got = Words("lists without any label")
        raise DataError(train.where("targets", "train"), got, "at least one label in the training split")
    _check_count(names, train)
    splits = {key: split._replace(targets=_marks(split, key, names)) for key, split in source.splits.items()}
    return dataclasses.replace(source, splits=splits, classes=None, class_names=(), target_names=names)


def _are_lists(split: Split) -> bool:
    targets = split.targets
    if not (isinstance(targets, list | tuple) or (isinstance(targets, np.ndarray) and targets.dtype.kind == "O")):
        return False
    lists = [row for row in targets if isinstance(row, list | tuple | set | frozenset)]
    return bool(lists) and all(isinstance(name, str) for row in lists for name in row)


def _marks(split: Split, key: str, names: tuple[str, ...]) -> np.ndarray:
    columns = {name: column for column, name in enumerate(names)}
    marks = np.zeros((len(split.targets), len(names)), np.int32)
    for row, labels in enumerate(split.targets):
        if not isinstance(labels, list | tuple | set | frozenset):
            got = Words(f"targets[{row}] = {labels!r}")
            raise DataError(_place(split, key, row), got, "a list of names, [] for none, as in training")
        for label in labels:
            if label not in columns:
                raise _unknown(split, key, row, str(label), names, "label")
            marks[row, columns[label]] = 1
    return marks


def _are_names(split: Split) -> bool:
    targets = split.targets
    if isinstance(targets, list | tuple):
        return bool(targets) and all(isinstance(target, str) for target in targets)
    if not isinstance(targets, np.ndarray) or targets.ndim != 1:
        return False
    return targets.dtype.kind in "UT" or (targets.dtype.kind == "O" and all(isinstance(t, str) for t in targets))


def _labels(split: Split, key: str, names: tuple[str, ...]) -> np.ndarray:
    where = split.where("targets", key)
    if not _are_names(split):
        raise DataError(where, Words(f"{key} targets that are no texts"), "names of classes, as in training")
    numbers = {name: label for label, name in enumerate(names)}
    texts = [str(target) for target in split.targets]
    for row, text in enumerate(texts):
        if not text or text not in numbers:
            raise _unknown(split, key, row, text, names, "class")
    return np.array([numbers[text] for text in texts], np.int32)


def _check_count(names: tuple[str, ...], train: Split) -> None:
    if len(names) > MOST_NAMES:
        got = Words(f"{len(names):,} distinct texts as targets")
        raise DataError(train.where("targets", "train"), got, f"at most {MOST_NAMES:,} names of classes")


def _unknown(split: Split, key: str, row: int, text: str, names: tuple[str, ...], what: str) -> DataError:
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    hint = nearest(text, names) or "Leave that example out, or add one of its class to the training split"
    got = Words(f"targets[{row}] = {text!r}")
    return DataError(_place(split, key, row), got, f"a {what} of the training split: {shown}", hint)


def _place(split: Split, key: str, row: int) -> str:
    return split.inputs.place(row) if isinstance(split.inputs, Table) else split.where("targets", key)
