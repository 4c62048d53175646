"""The dataset of a run: checks a source, cuts it into splits, and prepares rows of them for batches."""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtrain.data.bad_rows import BadRows, none_left, tolerate, used_up
from jaxtrain.data.cache import cached
from jaxtrain.data.checked import checked
from jaxtrain.data.checks import check_source, check_table, is_integer, is_labels
from jaxtrain.data.class_names import mark_labels, number_labels
from jaxtrain.data.cut import column, cut, make_rule
from jaxtrain.data.encoded import encode_tables
from jaxtrain.data.fields import Field, read_rows
from jaxtrain.data.held import hold, hold_labels
from jaxtrain.data.info import DataInfo, describe, statistics_rows
from jaxtrain.data.order import Weights
from jaxtrain.data.settings import Settings
from jaxtrain.data.source import SPLITS, Source, Split
from jaxtrain.data.tables import Table
from jaxtrain.errors import ConfigError, DataError, Words

Rows = dict[str, np.ndarray]
"""{"inputs": (n, ...), "targets": (n, ...)} as in a batch."""


class Part(NamedTuple):
    """A split of the dataset: the ascending row numbers that it takes from the split `source`; None: all rows."""

    split: Split
    rows: np.ndarray | None = None
    source: str = "train"

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.split.inputs if self.rows is None else self.rows)

    def source_rows(self, places: np.ndarray) -> np.ndarray:
        """Returns the rows, in the split of the source, of places in this one."""
        return places if self.rows is None else self.rows[places]

    @property
    def is_decoded(self) -> bool:
        """Tells whether its examples are decoded when they are read."""
        return isinstance(self.split.inputs, Field) or isinstance(self.split.targets, Field)


@dataclass(frozen=True, eq=False)
class Dataset:
    """The description of the data, and the splits, whose examples are prepared when they are read.

    `weights` are those by which training examples are drawn; None: each once an epoch. `bad` are the examples that
    could not be read: the next one of their split stands for each.
    """

    info: DataInfo
    parts: dict[str, Part] = field(repr=False)
    weights: Weights | None = field(default=None, repr=False)
    bad: BadRows | None = field(default=None, repr=False)

    @property
    def sizes(self) -> dict[str, int]:
        """Returns {split: number of examples}."""
        return {name: len(part) for name, part in self.parts.items()}

    @property
    def is_decoded(self) -> bool:
        """Tells whether any split is decoded when it is read."""
        return any(part.is_decoded for part in self.parts.values())

    def read(self, name: str, rows: np.ndarray, out: Rows | None = None) -> Rows:
        """Prepares the examples at these rows of a split, in their order; writes them to `out` if it is given.

        Inputs are raw integers of at most 16 bits, or normalised float32 (`info.input_dtype`). Targets are int32 or
        float32; standardised float32 for a task that takes them so (`info.standardised`). Raises DataError for values
        that are decoded only now and cannot be used.
        """
        return self._prepare(name, rows, out)

    def split(self, name: str) -> Rows:
        """Prepares all examples of a split, as `read` does."""
        return self._prepare(name, None)

    @property
    def has_pictures(self) -> bool:
        """Tells whether inputs can be drawn: (height, width, channels) with one, three or four channels."""
        shape = self.info.input_shape
        return len(shape) == 3 and shape[2] in (1, 3, 4)

    @cached_property
    def example(self) -> Rows:
        """The first training example as a batch of one."""
        return self.read("train", np.arange(1))

    @property
    def example_bytes(self) -> int:
        """The bytes of a prepared example."""
        return sum(leaf.nbytes for leaf in self.example.values())

    def nbytes(self, name: str) -> int:
        """Returns the bytes of a prepared split."""
        return self.sizes[name] * self.example_bytes

    def _prepare(self, name: str, places: np.ndarray | None, out: Rows | None = None) -> Rows:
        """Prepares the examples at these places of a split; None: all."""
        part = self.parts[name]
        inputs = part.split.inputs
        targets = part.split.targets
        if part.is_decoded or self.bad is not None:
            inputs, targets = self._read(part, np.arange(len(part)) if places is None else places)
            rows = None
        else:
            rows = part.rows if places is None else part.source_rows(places)
        outs = out or {"inputs": None, "targets": None}
        prepared = self.info.prepare(inputs, rows, outs["inputs"])
        return {"inputs": prepared, "targets": self._prepare_targets(targets, rows, outs["targets"])}

    def _read(self, part: Part, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads inputs and targets at these places; the next place stands for a bad one, around the end."""
        for _ in range(len(part)):
            rows = part.source_rows(places)
            bad = self._are_bad(part, rows)
            if not bad.any():
                values = read_rows(part.split.inputs, rows), read_rows(part.split.targets, rows)
                bad = self._are_bad(part, rows)  # those that the reading found
                if not bad.any():
                    return values
            places = np.where(bad, (places + 1) % len(part), places)
        raise none_left(part.split.where("inputs", part.source))

    def _are_bad(self, part: Part, rows: np.ndarray) -> np.ndarray:
        return np.zeros(len(rows), bool) if self.bad is None else self.bad.among(part.source, rows)

    def _prepare_targets(self, targets: np.ndarray, rows: np.ndarray | None, out: np.ndarray | None) -> np.ndarray:
        if self.info.standardised:
            return self.info.standardise_targets(targets, rows, out)
        targets = targets if rows is None else targets[rows]
        if out is not None:
            np.copyto(out, targets, casting="unsafe")
            return out
        return targets.astype(np.int32 if is_integer(targets) else np.float32, copy=False)

    @cached_property
    def fingerprint(self) -> str:
        """Returns the sha256, in hex, of the raw arrays, the rows of each split and the weights; computed on first use.

        Fields that are decoded enter by their own fingerprints.
        """
        digest = hashlib.sha256()
        seen = set()
        for name, part in self.parts.items():
            split = part.split
            # Several splits may be cut from the same arrays, which are hashed once.
            fields = [] if id(split) in seen else zip((split.inputs, split.targets), split.stamps, strict=True)
            seen.add(id(split))
            digest.update(f"{name}: ".encode())
            for array, stamp in fields:
                _add_to(digest, array, stamp)
            if part.rows is not None:
                _add_to(digest, part.rows)
        if self.weights is not None:
            _add_to(digest, self.weights.sums)
        return digest.hexdigest()


def _add_to(digest: Any, array: np.ndarray | Field, stamp: bytes = b"") -> None:
    """Adds the contents of an array to a digest, or the stamp of what it was decoded from."""
    digest.update(f"{array.dtype.str} {array.shape} ".encode())
    if isinstance(array, Field):
        digest.update(array.fingerprint())
    else:
        digest.update(stamp or np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def load_dataset(source: Source, settings: Settings, *, standardised: bool = False, coded: bool = False) -> Dataset:
    """Checks a source and returns its dataset; missing validation and test splits are cut from train.

    A fraction is relative to the source's train split, and applies only if the source has no such split.
    `standardised` says that targets, integers too, are numbers for a regression: they are standardised, and are never
    labels; `coded`, that the model takes codes of categories. Fields that are decoded are read into arrays once if
    memory holds them, unless they are to be streamed.
    Raises DataError for invalid data, ConfigError for settings that do not fit them.
    """
    if settings.seed < 0:
        raise ConfigError("data.seed", settings.seed, "an integer, at least 0")
    if len(source.damaged) > settings.skip_bad:
        raise used_up(source.damaged[settings.skip_bad], settings.skip_bad)
    bad = BadRows(settings.skip_bad) if settings.skip_bad else None
    splits = checked(source.splits, source.classes, labels=not standardised)
    source = replace(source, splits=hold_labels(tolerate(splits, bad) if bad else splits))
    source = source if standardised else mark_labels(number_labels(source))
    encoding = None
    if isinstance(source.splits["train"].inputs, Table):  # cut first: it is encoded by the rows for training
        source = check_table(source)
        rows = _cut(source, settings, standardised)
        encoding, source = encode_tables(source, rows.get("train"), coded=coded, quantiles=settings.quantiles)
        source = check_source(source, labels=not standardised)
    else:
        source = check_source(source, labels=not standardised)
        _check_rows(source.splits["train"], settings, coded)
        rows = _cut(source, settings, standardised)
    own = rows.get("train")
    inputs = source.splits["train"].inputs
    sample = statistics_rows(inputs, own)  # by what they are before they are stored
    splits = _stored(source.splits, settings)
    described = (splits["train"].inputs, splits["train"].targets, own, source.classes, source.class_names, encoding)
    form = {"standardised": standardised, "coded": coded}
    targets = {"target_names": source.target_names, "box_classes": source.box_classes}
    describe_by = functools.partial(describe, *described, **form, **targets)
    info = describe_by(sample=sample)
    if bad is not None and (passed := bad.among("train", sample)).any():  # others were read, maybe of another split
        info = describe_by(sample=sample[~passed])
    if any(split.inputs.dtype != inputs.dtype for split in source.splits.values()):
        info = replace(info, input_dtype="float32")  # batches of all splits have one dtype
    parts = {name: Part(splits["train"], rows) for name, rows in rows.items()}
    parts |= {name: Part(split, source=name) for name, split in splits.items() if name not in parts}
    weights = _weights(settings.sample, source, own, info)
    return Dataset(info, {name: parts[name] for name in SPLITS if name in parts}, weights, bad)


def _check_rows(train: Split, settings: Settings, coded: bool) -> None:
    """Rejects inputs that are no table where the settings or the model take one."""
    if settings.quantiles is not None:
        hint = "Give the inputs as columns by name"
        raise ConfigError("data.quantiles", settings.quantiles, "None for inputs that are no table", hint)
    if coded and len(train.inputs.shape) != 2:
        got = Words(f"inputs of shape {train.inputs.shape[1:]} an example")
        expected = "a table or rows of numbers, for a model that takes categories apart"
        raise DataError(train.where("inputs", "train"), got, expected, "Take another model, such as mlp")


def _cut(source: Source, settings: Settings, standardised: bool) -> dict[str, np.ndarray]:
    """Cuts the splits that the source lacks from its train split, by the rule of the settings."""
    # The test split is cut first, so that it does not depend on the validation fraction.
    fractions = {"test": settings.test_fraction, "validation": settings.validation_fraction}
    wanted = {name: fraction for name, fraction in fractions.items() if name not in source.splits}
    train = source.splits["train"]
    labels = train.targets if is_labels(train.targets) and not standardised else None
    by = (settings.stratify, settings.group_by, settings.order_by)
    rule = make_rule(*by, labels, source.columns, train.where("targets", "train"))
    return cut(len(train.inputs), wanted, settings.seed, rule)


def _stored(splits: Mapping[str, Split], settings: Settings) -> dict[str, Split]:
    """Returns the splits with decoded fields on disk or in memory, as the settings say."""
    if settings.cache is None:
        return hold(splits, 0 if settings.feed == "stream" else None)
    if settings.skip_bad:
        expected = "None with data.skip_bad, since the cache would hide which examples are bad"
        raise ConfigError("data.cache", settings.cache, expected, "Leave one of the two out")
    return cached(splits, Path(settings.cache))


def _weights(sample: str | None, source: Source, rows: np.ndarray | None, info: DataInfo) -> Weights | None:
    """Returns the weights of the training examples: None, those that draw all classes alike, or a column."""
    if sample is None:
        return None
    train = source.splits["train"]
    if sample == "balanced" and "balanced" not in source.columns:
        if not info.class_counts:
            got = Words("targets that are no labels")
            expected = "one label for each example, for data.sample=balanced"
            raise DataError(train.where("targets", "train"), got, expected, "Leave data.sample out")
        values = 1.0 / np.maximum(info.class_counts, 1)[train.targets]
    else:
        values = column(source.columns, sample, "data.sample")
    return Weights(values, train.where("inputs", "train"), rows)
