"""Pictures of training examples: a grid of images, with masks beside them, histograms of features, frequent tokens."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.data.dataset import Dataset, Part
from jaxtrain.data.fields import read_rows
from jaxtrain.data.table_encoding import ColumnEncoding
from jaxtrain.data.vocabulary import Vocabulary
from jaxtrain.errors import printable
from jaxtrain.tasks.augment import Augmentation
from jaxtrain.tasks.inputs import normalise_batch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 6
IMAGES = 24
"""Examples that are drawn, evenly spaced over the training part."""

MOST_HISTOGRAMS = 24
HISTOGRAM_ROWS = 10_000
MOST_BARS = 8
LONGEST_LABEL = 20
MOST_TOKENS = 40

BOX_COLOURS = ("tab:red", "tab:blue", "tab:green", "tab:orange", "tab:purple", "tab:cyan", "tab:pink", "tab:olive")
MOST_NAMED_BOXES = 12

Outline = Callable[[Any, np.ndarray], None]
"""(axes, target of one picture): draws around what the target holds."""

TIMES = 3
"""Augmented drawings of each example."""


def draw_examples(dataset: Dataset) -> "Figure":
    """Draws images for inputs (height, width, channels), the most frequent tokens of a text, else histograms."""
    vocabulary = dataset.info.texts.vocabulary if dataset.info.texts else dataset.info.vocabulary
    if vocabulary is not None:
        return _draw_tokens(dataset, vocabulary)
    return _draw_images(dataset) if dataset.has_pictures else _draw_histograms(dataset)


def draw_augmented(dataset: Dataset, augmentation: Augmentation, floats: Mapping[str, float]) -> "Figure":
    """Draws images as they are and below each, as often as TIMES, augmented with the config's own strengths.

    Masks and boxes are outlined. Colours are those of the data: what lies outside of a picture has the mean of the
    training part.
    """
    part = dataset.parts["train"]
    places = np.linspace(0, len(part) - 1, min(COLUMNS, len(part))).astype(np.int64)
    batch = normalise_batch(dataset.read("train", places), dataset.info)
    values = {name: jnp.float32(value) for name, value in floats.items()}
    keys = [jax.random.fold_in(jax.random.key(0), i) for i in range(TIMES)]
    augment = jax.jit(augmentation)  # one compilation, in place of one for each operation
    rows = [batch, *(augment(key, batch, values) for key in keys)]
    drawn = [(_in_colours(dataset, row["inputs"]), jax.tree.leaves(row["targets"])[0]) for row in rows]
    return _draw_rows([(pictures, np.asarray(targets)) for pictures, targets in drawn], _outline_of(dataset))


def _in_colours(dataset: Dataset, inputs: Any) -> np.ndarray:
    """Returns normalised inputs in the range of the data: bytes as bytes."""
    mean, std = (np.asarray(values, np.float32) for values in (dataset.info.input_mean, dataset.info.input_std))
    raw = np.asarray(inputs) * std + mean
    is_bytes = dataset.info.input_dtype == "uint8"
    return np.clip(np.round(raw), 0, 255).astype(np.uint8) if is_bytes else raw


def _draw_rows(rows: list[tuple[np.ndarray, np.ndarray]], outline: Outline) -> "Figure":
    """Draws each (pictures, targets) as a row of panels; all grey ones share one scale."""
    from matplotlib.figure import Figure

    columns = len(rows[0][0])
    figure = Figure(figsize=(1.6 * columns, 1.6 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), columns, squeeze=False)
    limits = {"vmin": min(p.min() for p, _ in rows), "vmax": max(p.max() for p, _ in rows)}
    for line, (pictures, targets), title in zip(panels, rows, ["before", *["after"] * TIMES], strict=True):
        for axes, picture, target in zip(line, pictures, targets, strict=True):
            grey = picture.shape[-1] == 1
            options: dict[str, Any] = {"cmap": "gray", **limits} if grey else {}
            axes.imshow(np.squeeze(picture, -1) if grey else _in_range(picture), **options)
            outline(axes, target)
            axes.axis("off")
        line[0].set_title(title, fontsize="small", loc="left")
    return figure


def _draw_images(dataset: Dataset) -> "Figure":
    part = dataset.parts["train"]
    return draw_pictures(dataset, *_raw(part, min(IMAGES, len(part))))


def draw_pictures(dataset: Dataset, inputs: np.ndarray, targets: np.ndarray) -> "Figure":
    """Draws pictures (n, height, width, channels) with their targets: titles, masks beside them, or boxes."""
    from matplotlib.figure import Figure

    masks = dataset.info.target_shape == dataset.info.input_shape[:2]
    pictures = [picture for pair in zip(inputs, targets, strict=True) for picture in (pair if masks else pair[:1])]
    titles = [name for target in targets for name in ([""] * 2 if masks else [_title(dataset, target)])]
    outline = _outline_of(dataset) if dataset.info.box_classes is not None else _outline_nothing
    outlined = np.repeat(targets, len(pictures) // len(inputs), axis=0)
    rows = -(-len(pictures) // COLUMNS)
    figure = Figure(figsize=(1.6 * COLUMNS, 1.8 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, picture, title, target in zip(panels, pictures, titles, outlined, strict=False):
        grey = picture.ndim == 2 or picture.shape[-1] == 1
        axes.imshow(np.squeeze(picture) if grey else _in_range(picture), cmap="gray" if grey else None)
        axes.set_title(title, fontsize="small")
        outline(axes, target)
    return figure


def _outline_of(dataset: Dataset) -> Outline:
    """Returns what outlines the targets of a picture, if they have a place in it."""
    if dataset.info.box_classes is not None:
        return functools.partial(_outline_boxes, names=dataset.info.class_names)
    return _outline_mask if dataset.info.has_maps else _outline_nothing


def _outline_mask(axes: Any, mask: np.ndarray) -> None:
    if mask.ndim == 2 and np.ptp(mask):
        axes.contour(mask, colors="tab:red", linewidths=0.8)


def _outline_boxes(axes: Any, boxes: np.ndarray, names: tuple[str, ...]) -> None:
    """Draws boxes, each class in a colour, with the names of classes above them where few boxes leave room."""
    from matplotlib.patches import Rectangle

    found = boxes[boxes[:, 0] >= 0]
    for label, y, x, height, width in found:
        colour = BOX_COLOURS[int(label) % len(BOX_COLOURS)]
        place = (x - 0.5, y - 0.5)  # pixels are drawn around whole numbers
        axes.add_patch(Rectangle(place, width, height, fill=False, edgecolor=colour, linewidth=0.8))
        if names and len(found) <= MOST_NAMED_BOXES:
            text = printable(names[int(label)])[:LONGEST_LABEL].replace("$", r"\$")
            white = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.3}
            axes.text(*place, text, fontsize=5, color=colour, va="bottom", bbox=white)


def _outline_nothing(axes: Any, target: np.ndarray) -> None:
    pass


def _draw_tokens(dataset: Dataset, vocabulary: Vocabulary) -> "Figure":
    """Draws how often the most frequent tokens occur."""
    from matplotlib.figure import Figure

    part = dataset.parts["train"]
    inputs, _ = _raw(part, min(HISTOGRAM_ROWS, len(part)))
    tokens = inputs[inputs < vocabulary.size]  # without padding
    shares = np.bincount(tokens, minlength=vocabulary.size) / tokens.size
    common = np.argsort(-shares, kind="stable")[:MOST_TOKENS][::-1]
    figure = Figure(figsize=(5, 7), layout="constrained")
    axes = figure.subplots()
    # Numbered places: a category axis would merge tokens whose labels are equal.
    axes.barh(range(len(common)), shares[common], color="tab:blue")
    axes.set_yticks(range(len(common)), [_label(vocabulary, token) for token in common], fontsize="small")
    axes.set_xlabel("share of the tokens in the training part")
    return figure


def _label(vocabulary: Vocabulary, token: int) -> str:
    return printable(repr(vocabulary.decode(np.array([token])))).replace("$", r"\$")


def _draw_histograms(dataset: Dataset) -> "Figure":
    """Draws the distribution of each feature, or of each column of a table, and of a target that is a number."""
    from matplotlib.figure import Figure

    part = dataset.parts["train"]
    inputs, targets = _raw(part, min(HISTOGRAM_ROWS, len(part)))
    features = inputs.reshape(len(inputs), -1).astype(np.float64)
    drawn = _columns(dataset, features)[:MOST_HISTOGRAMS]
    if dataset.info.classes is None and targets.ndim == 1:
        drawn.append(("the target", (), targets.astype(np.float64)))
    columns = min(COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(2.2 * columns, 1.9 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(drawn) :]:
        axes.remove()
    for axes, (name, categories, values) in zip(panels, drawn, strict=False):
        if categories:
            common = np.argsort(-values)[:MOST_BARS][::-1]
            labels = [printable(categories[i])[:LONGEST_LABEL] for i in common]
            axes.barh(labels, values[common], color="tab:blue")
        else:
            axes.hist(values, bins=30, color="tab:blue")
            axes.set_yticks([])
        axes.set_title(printable(name)[:LONGEST_LABEL], fontsize="small")
        axes.tick_params(labelsize="x-small")
    return figure


def _columns(dataset: Dataset, features: np.ndarray) -> list[tuple[str, tuple[str, ...], np.ndarray]]:
    """Returns (name, categories, their shares) of columns of categories, and (name, (), values) of those of numbers."""
    encoding = dataset.info.table
    if encoding is None:
        return [(f"feature {i}", (), features[:, i]) for i in range(features.shape[1])]
    found = []
    begin = 0
    for column in encoding.columns:
        own = features[:, begin : begin + len(column.names)]
        found.append(
            (column.name, column.categories, column.shares(own) if column.categories else _present(column, own))
        )
        begin += len(column.names)
    return found


def _present(column: ColumnEncoding, encoded: np.ndarray) -> np.ndarray:
    """Returns the numbers of a column (n, len(names)) without those that stand for missing ones."""
    return encoded[encoded[:, -1] == 0, 0] if column.missing else encoded[:, 0]


def _raw(part: Part, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs and targets of evenly spaced examples, as they were read."""
    places = np.linspace(0, len(part) - 1, count).astype(np.int64)
    rows = places if part.rows is None else part.rows[places]
    return read_rows(part.split.inputs, rows), read_rows(part.split.targets, rows)


def _title(dataset: Dataset, target: Any) -> str:
    if np.ndim(target):
        return ""
    names = dataset.info.class_names
    return names[int(target)] if names else f"{target:.4g}"


def _in_range(picture: np.ndarray) -> np.ndarray:
    """Returns colours that matplotlib can show: bytes as they are, others scaled to 0..1."""
    if picture.dtype == np.uint8:
        return picture
    low = picture.min()
    return (picture - low) / max(picture.max() - low, 1e-9)
