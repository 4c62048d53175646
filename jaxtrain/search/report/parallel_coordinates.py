"""Parallel coordinates: a vertical axis for each hyperparameter, a line across them for each trial."""

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtrain.reports.figures import WIDTH, new_figure, shorten
from jaxtrain.reports.value_axis import ValueAxis, value_axis
from jaxtrain.search.report.marks import BROKEN, LINK, MARKS, ramp
from jaxtrain.search.report.scales import BELOW, Scale, scale_of
from jaxtrain.search.results import Findings
from jaxtrain.search.trials import NO_VALUE, Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

FEW = 40
"""Up to this many lines do not hide each other; more lines are drawn fainter."""

STRONG = 10
"""Number of best trials whose lines are never faint."""


def parallel_coordinates(findings: Findings) -> "Figure":
    """Draws a line for each trial through its values, the best on top; a line breaks at inactive dimensions."""
    scales = [scale_of(dimension, findings.outcomes) for dimension in findings.space.dimensions]
    axis = value_axis((outcome.value for outcome in findings.outcomes), findings.higher_is_better)
    figure = new_figure(5.2, max(WIDTH, 1.5 * (len(scales) + 1)))
    axes = figure.subplots()
    axes.add_collection(_lines(findings.order[::-1], scales, axis))
    for position, scale in enumerate(scales):
        ends = BELOW if scale.misfits else 0.0, 1.0
        _draw_axis(axes, position, ends, [(place, shorten(text, 14)) for place, text in scale.ticks()])
    low, high = sorted((axis.worst, axis.best))
    _draw_axis(axes, len(scales), (0.0, 1.0), Scale("", low, high).ticks())
    names = [*(_wrap_key(scale.key) for scale in scales), shorten(findings.metric)]
    axes.set_xticks(range(len(names)), names, fontsize="small")
    axes.set_yticks([])
    axes.set(xlim=(-0.4, len(names) - 0.85), ylim=(-0.04 + BELOW * any(scale.misfits for scale in scales), 1.05))
    axes.tick_params(length=0, pad=6)
    axes.spines[:].set_visible(False)
    names = {"undefined": "brown", "diverged": "red"}
    told = "; dashed: stopped" if findings.counts.get("stopped") else ""
    told += "".join(f"; {names[status]}: {status}" for status in NO_VALUE if findings.counts.get(status))
    axes.set_title(f"Parallel coordinates (strongest colour: best{told})", loc="left", fontsize="medium")
    return figure


def _lines(outcomes: Sequence[Outcome], scales: Sequence[Scale], axis: ValueAxis) -> "LineCollection":
    from matplotlib.collections import LineCollection

    colours = ramp()
    strong = {outcome.trial for outcome in outcomes[-STRONG:]}
    faint = min(1.0, 0.12 + FEW / max(1, len(outcomes)))
    lines = LineCollection(
        [_path(outcome, scales, axis) for outcome in outcomes],
        colors=[_colour(outcome, axis, colours, 0.95 if outcome.trial in strong else faint) for outcome in outcomes],
        linewidths=[1.6 if outcome.trial in strong else 0.9 for outcome in outcomes],
        linestyles=[BROKEN if outcome.status == "stopped" else "solid" for outcome in outcomes],
        capstyle="butt",
        clip_on=False,
        gid="parallel",
    )
    lines.set_urls([f"{LINK}{outcome.trial}" for outcome in outcomes])
    return lines


def _path(outcome: Outcome, scales: Sequence[Scale], axis: ValueAxis) -> np.ndarray:
    """Returns the line of a trial, (points, 2), with nan at gaps.

    It has a short flat piece at each axis, so that a value between two gaps is visible.
    """
    heights = [scale.place(outcome.point[scale.key]) if scale.key in outcome.point else math.nan for scale in scales]
    low, high = sorted((axis.worst, axis.best))
    heights.append((axis.height(outcome.value) - low) / (high - low))
    positions = np.arange(len(heights))[:, None] + np.array([-0.02, 0.02])
    return np.stack([positions.ravel(), np.repeat(heights, 2)], axis=1)


def _colour(outcome: Outcome, axis: ValueAxis, colours: Callable[[float], Any], opacity: float) -> tuple[float, ...]:
    from matplotlib.colors import to_rgba

    lost = outcome.status in NO_VALUE
    return to_rgba(MARKS[outcome.status]["color"] if lost else colours(axis.goodness(outcome.value) ** 2), opacity)


def _draw_axis(axes: "Axes", x: float, ends: tuple[float, float], ticks: Sequence[tuple[float, str]]) -> None:
    """Draws a vertical axis at x, with a background behind its labels that keeps them readable among lines."""
    axes.plot([x, x], ends, color="black", linewidth=0.8, zorder=3)
    background = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
    for place, text in ticks:
        axes.plot([x - 0.02, x], [place, place], color="black", linewidth=0.8, zorder=3)
        axes.text(x - 0.04, place, text, ha="right", va="center", fontsize="x-small", zorder=4, bbox=background)


def _wrap_key(key: str) -> str:
    """Wraps a key, after dots and underscores, into lines that fit below an axis."""
    spaced = shorten(key, 60).replace(".", ". ").replace("_", "_ ")
    return "\n".join(line.replace(". ", ".").replace("_ ", "_") for line in textwrap.wrap(spaced, 18))
