"""Makes the dataset of a source: checks it, cuts its splits, takes its statistics."""

import functools
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.data.bad_rows import BadRows, tolerate, used_up
from jaxtrain.data.cache import cached
from jaxtrain.data.checked import checked
from jaxtrain.data.checks import check_source, check_table, is_labels
from jaxtrain.data.checksums import checksums_of
from jaxtrain.data.class_names import mark_labels, number_labels
from jaxtrain.data.cut import Rule, column, counts_of, cut, cut_folds, make_rule
from jaxtrain.data.dataset import Dataset, Part, batch_dtype
from jaxtrain.data.encoded import encode_tables, encode_texts
from jaxtrain.data.examples import ExampleField
from jaxtrain.data.held import hold, hold_labels
from jaxtrain.data.info import DataInfo, describe, describe_tokens, statistics_rows
from jaxtrain.data.order import Groups, Weights
from jaxtrain.data.settings import Settings
from jaxtrain.data.source import SPLITS, Source, Split
from jaxtrain.data.tables import Table, names_of
from jaxtrain.data.texts import Text, check_content
from jaxtrain.errors import ConfigError, DataError, JaxtrainWarning, Words


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
    if settings.fold is not None and settings.folds is None:
        raise ConfigError("data.fold", settings.fold, "None without data.folds", "Give data.folds, too")
    if isinstance(source.splits["train"].inputs, Text):
        return _load_text(source, settings)
    if len(source.damaged) > settings.skip_bad:
        raise used_up(source.damaged[settings.skip_bad], settings.skip_bad)
    if settings.processes:
        _start_processes(source.splits, settings)
    checksums = checksums_of(source.splits)
    bad = BadRows(settings.skip_bad) if settings.skip_bad else None
    splits = checked(source.splits, source.classes, source.void, labels=not standardised)
    source = replace(source, splits=hold_labels(tolerate(splits, bad) if bad else splits))
    source = source if standardised else mark_labels(number_labels(source))
    is_table = isinstance(source.splits["train"].inputs, Table)
    source = check_table(source) if is_table else check_source(source, labels=not standardised)
    if not is_table:
        _check_rows(source.splits["train"], settings, coded)
    stored = source.splits if is_table else _stored(source.splits, settings)
    rows = _cut(source, settings, standardised)
    part_of = functools.partial(_cut_dataset, source, stored, settings, bad, standardised=standardised, coded=coded)
    if settings.folds is None:
        dataset = part_of(rows)
        _warn_of_unlearned(dataset, source, rows, settings)
        return replace(dataset, checksums=checksums)
    parts = _cut_folds(source, rows, settings, standardised)
    chosen = range(settings.folds) if settings.fold is None else [settings.fold]
    whole = part_of(rows).info
    folds = [_as_fold(part_of(parts[fold]), whole, settings.folds) for fold in chosen]
    if settings.fold is not None:
        return replace(folds[0], checksums=checksums)
    _demand_one_program(folds)
    return replace(folds[0], folds=tuple(folds), checksums=checksums)


def _start_processes(splits: Mapping[str, Split], settings: Settings) -> None:
    """Starts processes that read the examples of Python objects; raises ConfigError where there are none."""
    held = [split.inputs for split in splits.values() if isinstance(split.inputs, ExampleField)]
    if not held:
        expected = "False for data that no Python object holds example by example"
        raise ConfigError("data.processes", True, expected, "Leave it out: threads decode files side by side")
    if settings.workers == 0:
        raise ConfigError("data.workers", 0, "at least 1 with data.processes")
    for field in held:
        field.start_processes(settings.workers or os.cpu_count() or 1)


def _cut_dataset(
    source: Source,
    stored: Mapping[str, Split],
    settings: Settings,
    bad: BadRows | None,
    rows: Mapping[str, np.ndarray],
    *,
    standardised: bool,
    coded: bool,
) -> Dataset:
    """Returns the dataset of splits cut at these rows of train, with the statistics of its training rows.

    `stored` are the splits of the source on disk or in memory.
    """
    own = rows.get("train")
    encoding = None
    if isinstance(source.splits["train"].inputs, Table):
        encoding, source = encode_tables(source, own, coded=coded, quantiles=settings.quantiles)
        source = check_source(source, labels=not standardised)
        stored = source.splits
    inputs = source.splits["train"].inputs
    sample = statistics_rows(inputs, own)  # by what they are before they are stored
    described = (stored["train"].inputs, stored["train"].targets, own, source.classes, source.class_names, encoding)
    _check_per_example(settings, 1 if encoding is not None else len(inputs.shape) - 1)
    named = {"target_names": source.target_names, "void": source.void, "box_classes": source.box_classes}
    options: dict[str, Any] = {"standardised": standardised, "coded": coded, "per_example": settings.per_example}
    describe_by = functools.partial(describe, *described, **named, **options)
    info = describe_by(sample=sample)
    if bad is not None and (passed := bad.among("train", sample)).any():  # others were read, maybe of another split
        info = describe_by(sample=sample[~passed])
    if info.tokens is None and any(split.inputs.dtype != inputs.dtype for split in source.splits.values()):
        info = replace(info, input_dtype="float32")  # batches of all splits have one dtype
    info = replace(info, extra=_extra(source.splits["train"]))
    parts = {name: Part(stored["train"], rows) for name, rows in rows.items()}
    parts |= {name: Part(split, source=name) for name, split in stored.items() if name not in parts}
    weights = _weights(settings.sample, source, own, info)
    groups = None
    if info.padding is not None:
        groups = Groups(info.padding.groups(parts["train"].split.inputs if own is None else inputs[own]))
    return Dataset(info, {name: parts[name] for name in SPLITS if name in parts}, weights, bad, groups=groups)


def _warn_of_unlearned(dataset: Dataset, source: Source, rows: Mapping[str, np.ndarray], settings: Settings) -> None:
    """Warns of classes all of whose examples lie in the splits that were cut from the training split."""
    counts = np.asarray(dataset.info.class_counts)
    if not rows or not len(counts):
        return
    train = source.splits["train"]
    unlearned = np.flatnonzero((counts == 0) & (np.bincount(train.targets, minlength=len(counts)) > 0))
    if len(unlearned) == 0:
        return
    names = [dataset.info.class_names[label] if dataset.info.class_names else str(label) for label in unlearned]
    got = Words(f"no training example left of {len(names)} of {len(counts)} classes: {names_of(names)}")
    hint = "Add examples of them, or leave them out"
    if settings.order_by is None and settings.group_by is None:  # one rule of the cut at a time
        hint += "; data.stratify=True cuts each class alike"
    warning = JaxtrainWarning(
        train.where("targets", "train"), got, "some of each, else none of them can be learned", hint
    )
    warnings.warn(warning, stacklevel=3)


def _extra(train: Split) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    """Returns (name, shape of an example, dtype in a batch) of further fields."""
    return tuple((name, values.shape[1:], batch_dtype(values.dtype).name) for name, values in train.extra.items())


def _check_per_example(settings: Settings, axes: int) -> None:
    """Raises ConfigError for examples of one axis that are to be normalised by themselves."""
    if settings.per_example and axes < 2:
        expected = "False for tables, texts, sequences of unlike length and examples of one axis"
        raise ConfigError("data.per_example", settings.per_example, expected, "Leave it out")


def _check_rows(train: Split, settings: Settings, coded: bool) -> None:
    """Rejects inputs that are no table where the settings or the model take one."""
    if settings.quantiles is not None:
        hint = "Give the inputs as columns by name"
        raise ConfigError("data.quantiles", settings.quantiles, "None for inputs that are no table", hint)
    if coded and len(train.inputs.shape) != 2:
        got = Words(f"inputs of shape {train.inputs.shape[1:]} an example")
        expected = "a table or rows of numbers, for a model that takes categories apart"
        raise DataError(train.where("inputs", "train"), got, expected, "Take another model, such as mlp")


def _load_text(source: Source, settings: Settings) -> Dataset:
    """Returns the dataset of a text: windows of tokens, whose splits are parts of the text in its order."""
    train = source.splits["train"]
    check_content(train.inputs, train.where("inputs", "train"))
    if settings.folds is not None:
        expected = "None for a text, whose parts follow each other"
        raise ConfigError("data.folds", settings.folds, expected)
    by = (settings.stratify, settings.group_by, settings.order_by)
    make_rule(*by, None, {}, train.where("targets", "train"))  # there is nothing to cut by, but the order of the text
    _check_per_example(settings, 1)
    vocabulary, splits = encode_texts(source, counts_of(len(train.inputs.content), _fractions(source, settings)))
    _check_rows(splits["train"], settings, coded=False)
    info = describe_tokens(splits["train"].inputs, vocabulary)
    weights = _weights(settings.sample, Source(splits), None, info)
    return Dataset(info, {name: Part(split, source=name) for name, split in splits.items()}, weights)


def _cut_folds(
    source: Source, rows: Mapping[str, np.ndarray], settings: Settings, standardised: bool
) -> list[dict[str, np.ndarray]]:
    """Returns the rows of the splits of each fold, which has the k-th part of the rows of train for validation."""
    assert settings.folds is not None
    if "validation" in source.splits:
        where = source.splits["validation"].where("inputs", "validation")
        hint = "Leave data.folds out, or leave the split out of the source"
        raise ConfigError("data.folds", settings.folds, f"None for data with a validation split ({where})", hint)
    if settings.fold is not None and settings.fold >= settings.folds:
        raise ConfigError("data.fold", settings.fold, f"0 to {settings.folds - 1}, for data.folds={settings.folds}")
    train = rows.get("train", np.arange(len(source.splits["train"].inputs)))
    parts = cut_folds(train, settings.folds, settings.seed, _rule(source, settings, standardised))
    test = {name: own for name, own in rows.items() if name == "test"}
    return [{"train": np.setdiff1d(train, part), "validation": part, **test} for part in parts]


def _as_fold(fold: Dataset, whole: DataInfo, folds: int) -> Dataset:
    """Returns the dataset of a fold in the form in which one program trains all folds.

    Its inputs are normalised on the host, by the statistics of its own training rows. What enters the program is alike
    in all folds: the units of the targets, in which their losses are compared, and the number of examples of each class
    come from the `whole` of the rows that the folds share.
    """
    counts = tuple(round(count * (folds - 1) / folds) for count in whole.class_counts)
    units = {"target_mean": whole.target_mean, "target_std": whole.target_std, "class_counts": counts}
    examples = (fold.sizes["train"] + fold.sizes["validation"]) * (folds - 1) / folds
    dtype = "float32" if fold.info.tokens is None else fold.info.input_dtype
    return replace(fold, info=replace(fold.info, input_dtype=dtype, **units), fold_examples=examples)


def _demand_one_program(folds: list[Dataset]) -> None:
    """Raises ConfigError where the training rows of the folds make programs that differ, as those of a table may.

    They make inputs of unlike shapes, or codes and tokens of unlike numbers, which one model would take for others.
    """
    first = folds[0].info
    unlike = next((i for i, fold in enumerate(folds) if fold.info != first), None)
    if unlike is None:
        return
    own = folds[unlike].info.input_shape
    got = Words(f"fold {unlike}, whose examples are encoded as {own}, where those of fold 0 are {first.input_shape}")
    if own == first.input_shape:
        got = Words(f"fold {unlike}, which has another number of categories or tokens than fold 0")
    expected = "one form of inputs in all folds, which one program trains"
    hint = "A rare category, a rare missing value or a long text differs: train one fold at a time by data.fold"
    raise ConfigError("data.folds", got, expected, hint)


def _cut(source: Source, settings: Settings, standardised: bool) -> dict[str, np.ndarray]:
    """Cuts the splits that the source lacks from its train split, by the rule of the settings."""
    examples = len(source.splits["train"].inputs)
    return cut(examples, _fractions(source, settings), settings.seed, _rule(source, settings, standardised))


def _fractions(source: Source, settings: Settings) -> dict[str, float]:
    """Returns the fractions of the splits that the source lacks; folds give the validation splits."""
    # The test split is cut first, so that it does not depend on the validation fraction.
    fractions = {"test": settings.test_fraction}
    if settings.folds is None:
        fractions["validation"] = settings.validation_fraction
    return {name: fraction for name, fraction in fractions.items() if name not in source.splits}


def _rule(source: Source, settings: Settings, standardised: bool) -> Rule:
    train = source.splits["train"]
    labels = train.targets if is_labels(train.targets) and not standardised else None
    by = (settings.stratify, settings.group_by, settings.order_by)
    return make_rule(*by, labels, source.columns, train.where("targets", "train"))


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
