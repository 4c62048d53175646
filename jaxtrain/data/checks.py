"""Checks every split before training; errors name the file and the index."""

from dataclasses import replace
from typing import Any

import numpy as np

from jaxtrain.data.fields import Field
from jaxtrain.data.info import blocks
from jaxtrain.data.plain_arrays import plain_array
from jaxtrain.data.source import Source, Split
from jaxtrain.data.tables import Table
from jaxtrain.errors import DataError, NotFiniteError, Words

ALWAYS_ALLOWED = 10_000
"""The number of classes that labels may show, however few of them occur."""

CLASSES_PER_LABEL = 100
"""The number of classes that labels may show for each distinct label that occurs."""


def check_source(source: Source, *, labels: bool = True) -> Source:
    """Returns the source with plain numeric arrays and its number of classes; raises DataError for invalid data.

    Of fields that are read by rows only the shapes are checked here, and the values when they are read.
    The number of classes is the one that the source states, else the largest training label + 1 where targets are
    one integer per example. Without `labels`, targets are numbers of any dtype and range, and there are no classes.
    """
    splits = {name: _check_split(name, split) for name, split in source.splits.items()}
    for name, split in splits.items():
        _check_shapes(name, split, splits["train"])
    train = splits["train"]
    _check_columns(source, train)
    _check_target_names(source, train)
    _check_boxes(source)
    source = replace(source, splits=splits)
    if not labels:
        return replace(source, classes=None)
    for name, split in splits.items():
        _check_kind(name, split, train)
    if source.classes is not None and not is_integer(train.targets):
        where = train.where("targets", "train")
        got = Words(f"targets of dtype {train.targets.dtype}")
        raise DataError(where, got, f"integers, for {source.classes} classes")
    for name, split in splits.items():
        _check_labels(split.where("targets", name), split.targets, source.classes, source.void)
    if source.classes is None and is_labels(train.targets):
        source = replace(source, classes=_count_classes(train))
        for name, split in splits.items():
            _check_labels(split.where("targets", name), split.targets, source.classes)
    return source


def check_table(source: Source) -> Source:
    """Returns a source of tables with plain targets, whose columns are those of the training table, too.

    Raises DataError where targets or columns are of another length than the inputs.
    """
    splits = {name: _with_plain_targets(name, split) for name, split in source.splits.items()}
    train: Table = splits["train"].inputs
    source = replace(source, splits=splits, columns={**train.columns, **source.columns})
    _check_columns(source, splits["train"])
    return source


def _check_columns(source: Source, train: Split) -> None:
    for name, column in source.columns.items():
        if column.shape != (len(train.inputs),):
            got = Words(f"the column {name!r} of shape {column.shape}")
            expected = f"the shape ({len(train.inputs)},), a value for each training example"
            raise DataError(train.where("inputs", "train"), got, expected)


def _check_target_names(source: Source, train: Split) -> None:
    named = len(source.target_names)
    if named and train.targets.shape[1:] != (named,):
        got = Words(f"{named} target names for targets of shape {train.targets.shape}")
        raise DataError(train.where("targets", "train"), got, "a name for each column of targets (n, columns)")


def _check_boxes(source: Source) -> None:
    """Rejects targets that are no boxes where the source says that they are."""
    if source.box_classes is None:
        return
    most = source.box_classes - 1
    for name, split in source.splits.items():
        where = split.where("targets", name)
        if len(split.targets.shape) != 3 or split.targets.shape[2] != 5:
            got = Words(f"targets of shape {split.targets.shape} as boxes")
            expected = "the shape (n, most, 5): class, y, x, height and width of each box"
            raise DataError(where, got, expected, "Fill the rows of absent boxes with -1")
        if not isinstance(split.targets, np.ndarray):
            continue
        labels = split.targets[..., 0]
        sides = split.targets[..., 3:]
        wrong = ~np.isin(labels, np.arange(-1, most + 1)) | ((labels >= 0) & (sides <= 0).any(axis=-1))
        if wrong.any():
            row, place = np.argwhere(wrong)[0]
            values = ", ".join(f"{value:g}" for value in split.targets[row, place])
            expected = f"(class, y, x, height, width) with a class from 0 to {most}, or -1 for none, and sides above 0"
            raise DataError(where, Words(f"the box ({values}) at targets[{row}, {place}]"), expected)


def check_inputs(where: str, inputs: np.ndarray, rows: np.ndarray, field: str = "inputs") -> None:
    """Raises DataError for `rows` of a field just read that hold nan, infinities or numbers beyond float32."""
    _check_finite(where, field, inputs, rows)


def check_targets(
    where: str, targets: np.ndarray, rows: np.ndarray, classes: int | None, void: int | None, *, labels: bool
) -> None:
    """Raises DataError for `rows` of targets just read: as `check_inputs`, and for `labels` outside 0..classes - 1."""
    _check_finite(where, "targets", targets, rows)
    if labels:
        _check_labels(where, targets, classes, void, rows)


def is_integer(targets: np.ndarray | Field) -> bool:
    """Returns whether targets are integers or booleans, hence classes, counts or masks."""
    return targets.dtype.kind in "biu"


def is_labels(targets: np.ndarray | Field) -> bool:
    """Returns whether targets are one integer per example."""
    return is_integer(targets) and len(targets.shape) == 1


def _check_split(name: str, split: Split) -> Split:
    places = {field: split.where(field, name) for field in ("inputs", "targets")}
    inputs = _plain(split.inputs, places["inputs"], "inputs")
    if len(inputs.shape) < 2 or 0 in inputs.shape[1:]:
        got = Words(f"inputs of shape {inputs.shape}")
        hint = "Give one feature as inputs[:, None]" if len(inputs.shape) == 1 else ""
        raise DataError(places["inputs"], got, "the shape (n, features, ...) without an empty axis", hint)
    split = _with_plain_targets(name, split._replace(inputs=inputs))
    for field, values in split.extra.items():
        if len(values) != len(inputs):
            got = Words(f"{len(values)} of {field!r} for {len(inputs)} inputs")
            raise DataError(places["inputs"], got, "one for each example")
    if len(inputs) == 0:
        raise DataError(places["inputs"], Words("no examples"), "at least one")
    for field, array in (("inputs", inputs), ("targets", split.targets)):
        _check_finite(places[field], field, array)
    return split


def _with_plain_targets(name: str, split: Split) -> Split:
    where = split.where("targets", name)
    targets = _plain(split.targets, where, "targets")
    if len(targets.shape) < 1 or 0 in targets.shape[1:]:
        got = Words(f"targets of shape {targets.shape}")
        raise DataError(where, got, "the shape (n, ...) without an empty axis")
    if len(split.inputs) != len(targets):
        got = Words(f"{len(targets)} targets for {len(split.inputs)} inputs")
        raise DataError(where, got, "one target for each example")
    return split._replace(targets=targets)


def _plain(values: Any, where: str, field: str) -> np.ndarray | Field:
    return values if isinstance(values, Field) else plain_array(values, where, field)


def _check_finite(where: str, field: str, array: np.ndarray | Field, rows: np.ndarray | None = None) -> None:
    """Rejects nan, infinities and numbers beyond the range of float32; `rows` are those of the array in its split."""
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        return
    limit = np.finfo(np.float32).max
    for block, values in blocks(array):
        usable = np.isfinite(values) if array.dtype.itemsize <= 4 else np.abs(values) <= limit
        if not usable.all():
            row, feature = np.argwhere(~usable)[0]
            index = (block.start + row, *np.unravel_index(feature, array.shape[1:]))
            got = Words(f"{field}[{_at(index, rows)}] = {array[index]}")
            hint = "Fill or scale the values, or leave those examples out"
            raise NotFiniteError(where, got, "finite numbers in the range of float32", hint)


def _check_shapes(name: str, split: Split, train: Split) -> None:
    for field, ours, theirs in (("inputs", split.inputs, train.inputs), ("targets", split.targets, train.targets)):
        where = split.where(field, name)
        if ours.shape[1:] != theirs.shape[1:]:
            got = Words(f"{field} of shape {ours.shape[1:]} in a {name} example")
            raise DataError(where, got, f"{theirs.shape[1:]}, as in training")


def _check_kind(name: str, split: Split, train: Split) -> None:
    if is_integer(split.targets) != is_integer(train.targets):
        got = Words(f"{name} targets of dtype {split.targets.dtype}")
        raise DataError(split.where("targets", name), got, f"{train.targets.dtype}, as in training")


def _count_classes(train: Split) -> int:
    """Returns the largest label + 1; raises DataError where that is far beyond the number of distinct labels.

    A model has an output for each class, so labels such as 0 and 1,000,000 would build a million.
    """
    distinct = np.unique(train.targets)
    classes = int(distinct[-1]) + 1
    most = max(ALWAYS_ALLOWED, CLASSES_PER_LABEL * len(distinct))
    if classes > most:
        got = Words(f"the label {classes - 1} among {len(distinct)} distinct ones")
        rule = f"the larger of {ALWAYS_ALLOWED} and {CLASSES_PER_LABEL} for each distinct label"
        raise DataError(train.where("targets", "train"), got, f"labels below {most}, {rule}", FAR_LABELS)
    return classes


INTEGERS = (
    "Take task.name=regression, or give floats (data.numbers of a table), where they are numbers: integer targets are"
    " classes from 0 on. Name other classes by texts (data.categories of a table)"
)

FAR_LABELS = (
    "Number the labels without gaps (numpy.unique with return_inverse), take task.name=regression or give floats where"
    " they are numbers, or state the number of classes in a source of your own (jaxtrain.data.Source)"
)


def _check_labels(
    where: str,
    targets: np.ndarray | Field,
    classes: int | None,
    void: int | None = None,
    rows: np.ndarray | None = None,
) -> None:
    """Rejects labels outside 0..classes - 1 but `void`, and integers beyond the range of int32; `rows` as above."""
    if not is_integer(targets) or not isinstance(targets, np.ndarray):
        return
    labels = classes is not None or is_labels(targets)
    low = 0 if labels else -(2**31)
    high = classes - 1 if classes is not None else 2**63 - 2 if labels else 2**31 - 1
    if not targets.size or (low <= int(targets.min()) and int(targets.max()) <= high):
        return
    wrong = (targets < low) | (targets > high)
    if void is not None:
        wrong &= targets != void
        if not wrong.any():
            return
    index = tuple(np.argwhere(wrong)[0])
    hint = INTEGERS if labels and len(targets.shape) == 1 else ""
    got = Words(f"targets[{_at(index, rows)}] = {targets[index]}")
    expected = "labels from 0 on" if labels and classes is None else f"{low} to {high}"
    raise DataError(where, got, expected if void is None else f"{expected}, or {void}", hint)


def _at(index: tuple[Any, ...], rows: np.ndarray | None) -> str:
    """Returns the index of a value for an error, with the row that it has in its split."""
    return ", ".join(map(str, index if rows is None else (rows[index[0]], *index[1:])))
