"""Targets beside new examples: class names and lists of labels become numbers, as in training."""

from collections.abc import Callable, Sequence

import numpy as np

from jaxtrain.data.info import DataInfo
from jaxtrain.errors import DataError, Words, nearest

Place = Callable[[int], str]
"""Returns "file, line 7" for a row."""


def as_targets(values: np.ndarray, info: DataInfo, place: Place) -> np.ndarray:
    """Returns targets (n, ...) in the form of training: numbers, labels for names, rows of 0 and 1 for lists of them.

    Raises DataError for a class or a label that no training row has, and for targets of another shape.
    """
    if values.dtype.kind in "OUT" and info.class_names:
        return _labels(values, info.class_names, place)
    if values.dtype.kind == "O" and info.target_names:
        return _marks(values, info.target_names, place)
    if values.dtype.kind not in "biuf" or values.shape[1:] != info.target_shape:
        got = Words(f"targets of dtype {values.dtype} and shape {values.shape}")
        expected = f"numbers of the shape (n, {', '.join(map(str, info.target_shape))})"
        raise DataError(place(0), got, expected, "Leave them out: predictions need none")
    if info.classes is not None and not info.target_shape:
        _check_labels(values, info.classes, place)
    return values


def _labels(names: np.ndarray, classes: Sequence[str], place: Place) -> np.ndarray:
    numbers = {name: label for label, name in enumerate(classes)}
    for row, name in enumerate(map(str, names)):
        if name not in numbers:
            raise _unknown(place(row), name, classes, "class")
    return np.array([numbers[str(name)] for name in names], np.int32)


def _marks(lists: np.ndarray, labels: Sequence[str], place: Place) -> np.ndarray:
    columns = {name: column for column, name in enumerate(labels)}
    marks = np.zeros((len(lists), len(labels)), np.int32)
    for row, listed in enumerate(lists):
        for label in listed:
            if label not in columns:
                raise _unknown(place(row), str(label), labels, "label")
            marks[row, columns[label]] = 1
    return marks


def _check_labels(values: np.ndarray, classes: int, place: Place) -> None:
    wrong = np.flatnonzero((values < 0) | (values >= classes) | (values != np.floor(values)))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(place(row), Words(f"the target {values[row]}"), f"a label from 0 to {classes - 1}")


def _unknown(where: str, name: str, names: Sequence[str], what: str) -> DataError:
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return DataError(where, Words(f"the target {name!r}"), f"a {what} of training: {shown}", nearest(name, names))
