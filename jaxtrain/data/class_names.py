"""Names of classes: targets that are strings become labels, and the names are kept with the run."""

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
    if len(names) > MOST_NAMES:
        got = Words(f"{len(names):,} distinct texts as targets")
        raise DataError(train.where("targets", "train"), got, f"at most {MOST_NAMES:,} names of classes")
    splits = {key: split._replace(targets=_labels(split, key, names)) for key, split in source.splits.items()}
    return dataclasses.replace(source, splits=splits, classes=len(names), class_names=names)


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
            got = Words(f"targets[{row}] = {text!r}")
            shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            hint = nearest(text, names) or "Leave that example out, or add one of its class to the training split"
            place = split.inputs.place(row) if isinstance(split.inputs, Table) else where
            raise DataError(place, got, f"a class of the training split: {shown}", hint)
    return np.array([numbers[text] for text in texts], np.int32)
