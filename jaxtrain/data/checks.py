"""Checks every split before training; errors name the file and the index."""

import numpy as np

from jaxtrain.data.info import blocks
from jaxtrain.data.source import Source, Split
from jaxtrain.errors import DataError, Words


def check_source(source: Source) -> Source:
    """Returns the source with plain numeric arrays and its number of classes; raises DataError for invalid data.

    The number of classes is the one that the source states, else the largest training label + 1 where targets are
    one integer per example.
    """
    splits = {name: _check_split(name, split) for name, split in source.splits.items()}
    for name, split in splits.items():
        _check_matches_train(name, split, splits["train"])
    train = splits["train"]
    if source.classes is not None and not is_integer(train.targets):
        where = train.where("targets", "train")
        got = Words(f"targets of dtype {train.targets.dtype}")
        raise DataError(where, got, f"integers, for {source.classes} classes")
    for name, split in splits.items():
        _check_labels(name, split, source.classes)
    if source.classes is None and is_labels(train.targets):
        source = Source(splits, int(train.targets.max()) + 1)
        for name, split in splits.items():
            _check_labels(name, split, source.classes)
    return Source(splits, source.classes)


def is_integer(targets: np.ndarray) -> bool:
    """Returns whether targets are integers or booleans, hence classes, counts or masks."""
    return targets.dtype.kind in "biu"


def is_labels(targets: np.ndarray) -> bool:
    """Returns whether targets are one integer per example."""
    return is_integer(targets) and targets.ndim == 1


def _check_split(name: str, split: Split) -> Split:
    places = {field: split.where(field, name) for field in ("inputs", "targets")}
    inputs = _as_numeric(split.inputs, places["inputs"], "inputs")
    targets = _as_numeric(split.targets, places["targets"], "targets")
    if inputs.ndim < 2 or 0 in inputs.shape[1:]:
        got = Words(f"inputs of shape {inputs.shape}")
        raise DataError(places["inputs"], got, "the shape (n, features, ...) without an empty axis")
    if targets.ndim < 1 or 0 in targets.shape[1:]:
        got = Words(f"targets of shape {targets.shape}")
        raise DataError(places["targets"], got, "the shape (n, ...) without an empty axis")
    if len(inputs) != len(targets):
        got = Words(f"{len(targets)} targets for {len(inputs)} inputs")
        raise DataError(places["targets"], got, "one target for each example")
    if len(inputs) == 0:
        raise DataError(places["inputs"], Words("no examples"), "at least one")
    for field, array in (("inputs", inputs), ("targets", targets)):
        _check_finite(places[field], field, array)
    return split._replace(inputs=inputs, targets=targets)


def _as_numeric(array: np.ndarray, where: str, field: str) -> np.ndarray:
    if array.dtype.name == "bfloat16":  # not a NumPy dtype, so its kind is not "f"
        return array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise DataError(where, Words(f"{field} of dtype {array.dtype}"), "integers, floats or booleans")
    return array


def _check_finite(where: str, field: str, array: np.ndarray) -> None:
    """Rejects nan, infinities and numbers beyond the range of float32."""
    if array.dtype.kind != "f":
        return
    limit = np.finfo(np.float32).max
    for block, values in blocks(array):
        usable = np.isfinite(values) if array.dtype.itemsize <= 4 else np.abs(values) <= limit
        if not usable.all():
            row, feature = np.argwhere(~usable)[0]
            index = (block.start + row, *np.unravel_index(feature, array.shape[1:]))
            at = ", ".join(map(str, index))
            got = Words(f"{field}[{at}] = {array[index]}")
            raise DataError(where, got, "finite numbers in the range of float32")


def _check_matches_train(name: str, split: Split, train: Split) -> None:
    for field, ours, theirs in (("inputs", split.inputs, train.inputs), ("targets", split.targets, train.targets)):
        where = split.where(field, name)
        if ours.shape[1:] != theirs.shape[1:]:
            got = Words(f"{field} of shape {ours.shape[1:]} in a {name} example")
            raise DataError(where, got, f"{theirs.shape[1:]}, as in training")
    if is_integer(split.targets) != is_integer(train.targets):
        got = Words(f"{name} targets of dtype {split.targets.dtype}")
        raise DataError(split.where("targets", name), got, f"{train.targets.dtype}, as in training")


def _check_labels(name: str, split: Split, classes: int | None) -> None:
    """Rejects class labels outside 0..classes - 1, and integers beyond the range of int32."""
    targets = split.targets
    if not is_integer(targets):
        return
    labels = classes is not None or is_labels(targets)
    low = 0 if labels else -(2**31)
    high = 2**31 - 2 if classes is None else classes - 1
    if low <= int(targets.min()) and int(targets.max()) <= high:
        return
    index = tuple(np.argwhere((targets < low) | (targets > high))[0])
    at = ", ".join(map(str, index))
    hint = "Give floats for a regression: integer targets are classes" if labels else ""
    got = Words(f"targets[{at}] = {targets[index]}")
    raise DataError(split.where("targets", name), got, f"{low} to {high}", hint)
