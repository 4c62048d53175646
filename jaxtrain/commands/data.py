"""The command `data`: reports what was understood of the data of a config, and draws examples, without training."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.commands.data_pictures import draw_augmented, draw_examples
from jaxtrain.commands.options import Options, command, join
from jaxtrain.config.hparams import hyperparameters
from jaxtrain.data import load
from jaxtrain.data.dataset import Dataset
from jaxtrain.data.encoded import Padding
from jaxtrain.data.info import DataInfo
from jaxtrain.data.order import steps_per_epoch
from jaxtrain.data.table_encoding import TableEncoding
from jaxtrain.data.text_columns import TextEncoding
from jaxtrain.errors import printable
from jaxtrain.files import demand_writable, make_directory, write_bytes
from jaxtrain.tasks import needs_of
from jaxtrain.tasks.augment import augmentation_of
from jaxtrain.trackers.figures import render

MOST_CLASSES = 20
"""Classes that are listed one by one."""

MOST_BAD = 20
"""Examples that cannot be read which are listed one by one."""

MOST_FEATURES = 20
"""Features of a table that are listed one by one."""

SHOWN_TOKENS = 60
"""Tokens of a text that are shown."""


def run(options: Options) -> int:
    """Reads the data of a config, reports them, and writes a picture of examples; returns 0."""
    config, workdir = options.resolve()
    picture = workdir / "data.png" if options.workdir else workdir.with_name(f"{workdir.name}-data.png")
    demand_writable(picture)
    dataset = load(config["data"], **needs_of(config))
    make_directory(picture.parent)
    write_bytes(picture, render(draw_examples(dataset)).png)
    pictures = [picture]
    lines = [*data_report(dataset, config), f"wrote {picture}: examples"]
    augmentation = augmentation_of(config)
    if augmentation.members and dataset.has_pictures:
        augmented = picture.with_name(f"{picture.stem.removesuffix('data')}augmented.png")
        demand_writable(augmented)
        write_bytes(augmented, render(draw_augmented(dataset, augmentation, hyperparameters(config))).png)
        pictures.append(augmented)
        lines.append(f"wrote {augmented}: examples before and after {', '.join(augmentation.names)}")
    arguments = options.again()
    next_lines = [f"  {command()} {verb}{join(arguments)}" for verb in ("lr_range ", "")]
    options.show([*lines, "next:", *next_lines])
    options.document.show(data_document(dataset, config, pictures))
    return 0


def data_document(dataset: Dataset, config: Mapping[str, Any], pictures: Sequence[Path]) -> dict[str, Any]:
    """Returns what `data` tells programs."""
    section = config["data"]
    return {
        "name": section["name"],
        "examples": dataset.sizes,
        "steps_per_epoch": steps_per_epoch(dataset.epoch_examples, section["batch_size"]),
        "info": dataset.info.to_json(),
        "passed_over": dataset.bad.messages if dataset.bad else [],
        "pictures": list(map(str, pictures)),
    }


def data_report(dataset: Dataset, config: Mapping[str, Any]) -> list[str]:
    """Formats the output of `data`."""
    section = config["data"]
    info = dataset.info
    kind = _kind(info)
    classes = f", {info.classes} classes" if info.classes and info.vocabulary is None else ""
    lines = [f"{section['name']}: {sum(dataset.sizes.values()):,} examples of {kind}{classes}"]
    lines += [f"  {name:<12} {size:>10,}   {_origin(dataset, name, section)}" for name, size in dataset.sizes.items()]
    lines += [*_input_lines(dataset), *_target_lines(dataset)]
    epoch = steps_per_epoch(dataset.epoch_examples, section["batch_size"])
    lines.append(f"  an epoch     {epoch:,.4g} steps of {section['batch_size']:,} examples")
    lines.append(f"  fed from     {_feed(dataset, section)}")
    return [*lines, *_passed_over(dataset)]


def _passed_over(dataset: Dataset) -> Iterator[str]:
    """Lists the examples that data.skip_bad passed over so far; of a stream, those that were read for this report."""
    messages = dataset.bad.messages if dataset.bad else []
    if messages:
        yield f"  passed over  {len(messages):,} examples that cannot be read:"
    for message in messages[:MOST_BAD]:
        yield f"    {message}"
    if len(messages) > MOST_BAD:
        yield f"    and {len(messages) - MOST_BAD:,} more"


def _kind(info: DataInfo) -> str:
    shape = info.input_shape
    if info.texts is not None:
        return f"texts of up to {shape[0]} {info.texts.vocabulary.kind}"
    if info.sequences is not None:
        return f"sequences of up to {shape[0]} steps of {info.sequences.features} features"
    if info.vocabulary is not None:
        return f"{shape[0]} {info.vocabulary.kind}"
    if len(shape) == 1:
        return f"{shape[0]} features"
    if len(shape) == 3:
        return f"pictures of {shape[0]} × {shape[1]} with {shape[2]} channel{'s' if shape[2] > 1 else ''}"
    return f"shape {shape}"


def _origin(dataset: Dataset, name: str, section: Mapping[str, Any]) -> str:
    part = dataset.parts[name]
    if part.rows is None:
        return part.split.file
    return f"cut {_rule(section)} from {part.split.file}" if name != "train" else f"the rest of {part.split.file}"


def _rule(section: Mapping[str, Any]) -> str:
    by = {"stratify": "by class", "group_by": "by group", "order_by": "in order"}
    return next((text for knob, text in by.items() if section[knob]), "at random")


def _input_lines(dataset: Dataset) -> Iterator[str]:
    info = dataset.info
    place = "in the step" if info.is_raw else "on the host"
    dtype = dataset.parts["train"].split.inputs.dtype
    if info.vocabulary is not None:
        yield f"  tokens       {dtype} {info.input_shape}, {info.vocabulary.size:,} different {info.vocabulary.kind}"
        first = dataset.parts["train"].split.inputs[0]
        yield f"  it begins    {info.vocabulary.decode(first[:SHOWN_TOKENS])!r}"
        return
    if info.texts is not None:
        yield from _text_lines(dataset, info.texts)
        return
    if info.table is not None:
        count = info.input_shape[0]
        yield f"  inputs       {len(info.table.columns)} columns, as {count} numbers by the training part:"
        yield from _column_lines(dataset, info.table)
        return
    statistics = list(zip(info.input_mean, info.input_std, strict=True))
    mask = ""
    if info.sequences is not None:
        yield _padded_line(dataset, info.sequences, "sequences")
        mask = ", the last a mask"
        statistics.pop()
    yield f"  inputs       {dtype} {info.input_shape}{mask}, normalised {place} by the training part:"
    for i, (mean, std) in enumerate(statistics):
        if i == MOST_FEATURES:
            yield f"    and {len(statistics) - i:,} more"
            return
        of = "feature" if len(info.input_shape) == 1 else "channel"
        yield f"    {of} {i:<5} mean {mean:>10.4g}   deviation {std:>10.4g}"


def _text_lines(dataset: Dataset, texts: TextEncoding) -> Iterator[str]:
    """Describes texts each of which is an example, and the lengths to which they are padded."""
    rows = _training_rows(dataset)
    yield f"  tokens       {rows.dtype} {rows.shape[1:]}, {texts.vocabulary.size:,} different {texts.vocabulary.kind}"
    yield _padded_line(dataset, texts, "texts")
    yield f"  it begins    {texts.decode(rows[0])[:SHOWN_TOKENS]!r}"


def _padded_line(dataset: Dataset, padding: Padding, what: str) -> str:
    """Tells how many training examples are padded to each length."""
    counts = np.bincount(padding.groups(_training_rows(dataset)), minlength=len(padding.lengths))
    lengths = zip(padding.lengths, counts, strict=True)
    return f"  padded to    {', '.join(f'{length:,} ({count:,} {what})' for length, count in lengths)}"


def _training_rows(dataset: Dataset) -> np.ndarray:
    part = dataset.parts["train"]
    return part.split.inputs if part.rows is None else part.split.inputs[part.rows]


def _column_lines(dataset: Dataset, encoding: TableEncoding) -> Iterator[str]:
    """Describes each column of a table: its numbers or categories, and how many values are missing."""
    part = dataset.parts["train"]
    rows = np.arange(len(part)) if part.rows is None else part.rows
    encoded = part.split.inputs[rows]
    begin = 0
    for column in encoding.columns:
        own = encoded[:, begin : begin + len(column.names)]
        begin += len(column.names)
        absent = column.absent(own)
        if column.kind == "number":
            told = f"number     mean {own[:, 0].mean():.4g}, deviation {own[:, 0].std():.4g}"
        else:
            shown = ", ".join(column.categories[:5]) + (", ..." if len(column.categories) > 5 else "")
            told = f"category   {len(column.categories)}: {shown}"
        yield f"    {column.name:<24} {told}{f', {absent:,} missing' if absent else ''}"


def _target_lines(dataset: Dataset) -> Iterator[str]:
    info = dataset.info
    dtype = dataset.parts["train"].split.targets.dtype
    if info.box_classes is not None:
        classes = "1 class" if info.box_classes == 1 else f"{info.box_classes} classes"
        yield f"  targets      boxes of {classes}, up to {info.target_shape[0]} in a picture"
        yield from _box_lines(dataset)
        return
    if info.vocabulary is not None:
        yield "  targets      the tokens one place later"
        return
    if not info.class_counts:
        yield f"  targets      {dtype} {info.target_shape}{_spread(info.target_mean, info.target_std)}"
        return
    yield "  classes      examples of each in the training part:"
    for label, count in enumerate(info.class_counts[:MOST_CLASSES]):
        name = info.class_names[label] if info.class_names else ""
        yield f"    {label:>5} {name:<20} {count:>10,}"
    if len(info.class_counts) > MOST_CLASSES:
        rest = info.class_counts[MOST_CLASSES:]
        yield f"    and {len(rest):,} more, of {min(rest):,} to {max(rest):,} examples"


def _box_lines(dataset: Dataset) -> Iterator[str]:
    """Names the classes of boxes, with the boxes of each where they lie in memory."""
    names = dataset.info.class_names
    part = dataset.parts["train"]
    counts = [""] * len(names)
    if isinstance(part.split.targets, np.ndarray):
        boxes = part.split.targets if part.rows is None else part.split.targets[part.rows]
        labels = boxes[..., 0].astype(np.int64) + 1  # absent boxes are of class -1
        counts = [f"{count:>10,}" for count in np.bincount(labels.ravel(), minlength=len(names) + 1)[1:]]
    for label, (name, count) in enumerate(zip(names, counts, strict=True)):
        if label == MOST_CLASSES:
            yield f"    and {len(names) - label:,} more"
            return
        yield f"    {label:>5} {printable(name):<20} {count}".rstrip()


def _spread(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    if len(mean) != 1:
        return ""
    return f", mean {mean[0]:.4g}, deviation {std[0]:.4g} in the training part"


def _feed(dataset: Dataset, section: Mapping[str, Any]) -> str:
    """Says where batches will be gathered, and why."""
    from jaxtrain.parallel.mesh import device_mesh
    from jaxtrain.training.feed_choice import is_on_devices

    size = sum(fold.nbytes(name) for fold in dataset.folds or (dataset,) for name in fold.parts)
    on_devices = is_on_devices(dict(section), dataset, device_mesh(None))
    where = "the devices" if on_devices else "a stream" if dataset.is_decoded else "the host"
    chosen = "as data.feed says" if section["feed"] else "chosen by the size; data.feed sets it"
    return f"{where}: {np.round(size / 2**20, 1):,} MiB in all ({chosen})"
