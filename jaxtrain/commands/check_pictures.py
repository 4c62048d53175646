"""Pictures of a check: inputs as the model sees them, distributions by split, signals and gradients by layer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxtrain.check.answers import Answer
from jaxtrain.check.context import Context
from jaxtrain.check.signals import layers_of, norms_by_array
from jaxtrain.commands.data_pictures import IMAGES, draw_pictures
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import printable
from jaxtrain.trackers.figures import render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 12
"""Features or channels whose distribution is drawn."""

MOST_LAYERS = 60
"""Layers and arrays that are drawn; more are taken at even distances."""

SHOWN_ROWS = 24
"""Rows of a table, or texts, that are drawn."""

SHOWN_TOKENS = 80

MOST_NAMED = 60
"""Columns of a table whose names have room below their colours."""

LONGEST_LABEL = 24


def draw(context: Context, answers: Mapping[str, Answer]) -> Iterator[tuple[str, bytes]]:
    """Yields (file name, PNG) of the pictures that the questions asked have made possible."""
    asked = {name for name, answer in answers.items() if answer.status != "not asked"}
    if "inputs" in asked and not _is_broken(answers["inputs"]):
        yield "inputs.png", render(draw_inputs(context)).png
        yield "distributions.png", render(draw_distributions(context)).png
    if asked & {"activations", "dead_units"} and "gradients" in asked:
        yield "layers.png", render(_draw_layers(context)).png


def _is_broken(answer: Answer) -> bool:
    return answer.status == "fault"


def draw_inputs(context: Context) -> "Figure":
    """Draws training examples as the model sees them, with their targets."""
    info = context.info
    seen = context.seen("train")
    places = np.unique(np.linspace(0, len(seen) - 1, min(IMAGES, len(seen))).astype(np.int64))
    targets = np.asarray(context.rows("train")["targets"])[places]
    if context.dataset.has_pictures:
        return draw_pictures(context.dataset, np.asarray(seen[places], np.float64), targets)
    if info.tokens is not None:
        return _draw_texts(context, places)
    values = np.asarray(seen[places], np.float64).reshape(len(places), -1)
    return _draw_table(values, _shown_targets(info, targets), info.table.names if info.table else ())


def _draw_texts(context: Context, places: np.ndarray) -> "Figure":
    """Writes the inputs of texts above their targets; of texts that are each an example, before its class."""
    from matplotlib.figure import Figure

    rows = context.rows("train")
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    lines = []
    for place in places[: SHOWN_ROWS // 2]:
        for mark, text in _texts_of(context.info, np.asarray(rows["inputs"][place]), rows["targets"][place]):
            shown = printable(text.replace("\n", "⏎"))[:SHOWN_TOKENS]
            lines.append(f"{mark:<5}{shown}".replace("$", r"\$"))
    axes.text(0, 1, "\n".join(lines), va="top", family="monospace", fontsize="small")
    return figure


def _texts_of(info: DataInfo, tokens: np.ndarray, target: np.ndarray) -> list[tuple[str, str]]:
    """Returns (mark, text) of the inputs and the target of an example."""
    if info.texts is not None:
        shown = info.class_names[int(target)] if info.class_names else str(target)
        return [("in", info.texts.decode(tokens)), ("out", shown)]
    assert info.vocabulary is not None
    return [
        ("in", info.vocabulary.decode(tokens[:SHOWN_TOKENS])),
        ("out", info.vocabulary.decode(target[:SHOWN_TOKENS])),
    ]


def _shown_targets(info: DataInfo, targets: np.ndarray) -> list[str]:
    """Returns the class, or up to three numbers, of each example."""
    if info.class_names and targets.ndim == 1:
        return [_label(info.class_names[int(target)]) for target in targets]
    return [" ".join(f"{value:.3g}" for value in row[:3]) for row in targets.reshape(len(targets), -1)]


def _draw_table(values: np.ndarray, targets: Sequence[str], columns: Sequence[str]) -> "Figure":
    """Draws rows of numbers as colours, their targets beside them and the names of few columns below them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, aspect="auto", cmap="RdBu_r", vmin=-3, vmax=3, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="value, in deviations")
    if 0 < len(columns) <= MOST_NAMED:
        names = [_label(name) for name in columns]
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize="x-small")
    else:
        axes.set_xlabel("feature")
    axes.set_yticks(range(len(values)), targets, fontsize="x-small")
    axes.set_ylabel("target of the example")
    return figure


def draw_distributions(context: Context) -> "Figure":
    """Draws the distribution of each feature or channel, and of the targets, one line for each split."""
    from matplotlib.figure import Figure

    splits = list(context.dataset.sizes)
    inputs = {name: np.asarray(context.seen(name), np.float64) for name in splits}
    features = {name: values.reshape(-1, values.shape[-1]) for name, values in inputs.items()}
    if context.info.tokens is not None:
        features = {name: values.reshape(-1, 1) for name, values in inputs.items()}
    shown = min(MOST_PANELS - 1, features["train"].shape[1])
    columns = min(4, shown + 1)
    figure = Figure(figsize=(3.2 * columns, 2.4 * -(-(shown + 1) // columns)), layout="constrained")
    panels = figure.subplots(-(-(shown + 1) // columns), columns, squeeze=False).ravel()
    for axes in panels[shown + 1 :]:
        axes.remove()
    for place in range(shown):
        title = _title(context.info, inputs["train"].ndim, place)
        _draw_lines(panels[place], {name: values[:, place] for name, values in features.items()}, title)
    targets = {name: np.asarray(context.rows(name)["targets"], np.float64).ravel() for name in splits}
    _draw_lines(panels[shown], targets, "targets")
    panels[0].legend(fontsize="x-small")
    return figure


def _title(info: DataInfo, rank: int, place: int) -> str:
    """Names a feature of a table, a channel, or tokens."""
    if info.tokens is not None:
        return "tokens"
    if info.table is not None:
        return _label(info.table.names[place])
    return f"{'feature' if rank == 2 else 'channel'} {place}"


def _label(name: str) -> str:
    return printable(name)[:LONGEST_LABEL].replace("$", r"\$")


def _draw_lines(axes: "Axes", values: Mapping[str, np.ndarray], title: str) -> None:
    """Draws the histogram of each split as a line, over the same bins."""
    whole = np.concatenate(list(values.values()))
    distinct = np.unique(whole)
    edges = np.linspace(whole.min(), whole.max() + 1e-9, 31)
    if len(distinct) <= 30:
        edges = np.concatenate([distinct - 1e-6, [distinct[-1] + 1]])
    for name, own in values.items():
        counts, _ = np.histogram(own, edges)
        axes.step(edges[:-1], counts / max(1, counts.sum()), where="mid", label=name, linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.set_title(f"{title}: share of values", fontsize="small", loc="left")
    axes.tick_params(labelsize="x-small")


def _draw_layers(context: Context) -> "Figure":
    """Draws the deviation and the dead share of each layer, and the size of parameters and gradients of each array."""
    from matplotlib.figure import Figure

    layers = layers_of(context)
    layers = [layers[i] for i in _even(len(layers))]
    sizes = list(norms_by_array(context).items())
    sizes = [sizes[i] for i in _even(len(sizes))]
    height = 1.5 + 0.22 * max(len(layers), len(sizes), 8)
    figure = Figure(figsize=(13, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [layer.name for layer in layers]
    left.plot([max(layer.deviation, 1e-8) for layer in layers], range(len(layers)), "o-", label="deviation of outputs")
    dead = [(layer.dead, i) for i, layer in enumerate(layers) if layer.kind == "rectifier"]
    if dead:
        left.plot([max(share, 1e-3) for share, _ in dead], [i for _, i in dead], "x", label="share of dead units")
    _name_rows(left, names)
    for place, name in enumerate(("parameters", "gradients")):  # a logarithmic axis leaves zeros out
        right.plot([size[place] or np.nan for _, size in sizes], range(len(sizes)), "o", label=name)
    _name_rows(right, [path for path, _ in sizes])
    left.set_xlabel("of a batch at initial weights")
    right.set_xlabel("root mean square; zeros are left out")
    return figure


def _name_rows(axes: "Axes", names: list[str]) -> None:
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), [printable(name)[-50:] for name in names], fontsize="x-small")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(alpha=0.25)
    axes.legend(fontsize="x-small")


def _even(count: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(count, MOST_LAYERS)).astype(int)).tolist() if count else []
