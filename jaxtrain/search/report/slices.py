"""Slice plots: the value of each trial against one hyperparameter at a time."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtrain.reports.figures import new_figure, shorten
from jaxtrain.reports.value_axis import ValueAxis, value_axis
from jaxtrain.search.report.marks import legend, ring, scatter, value_side
from jaxtrain.search.report.scales import Scale, scale_of
from jaxtrain.search.results import Findings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWEST = 8
"""The fewest trials for which quartiles are drawn over a range."""

FEWEST_ALIKE = 3
"""The fewest trials with the same value for which quartiles are drawn at it."""

QUARTILES = (0.25, 0.5, 0.75)
COLOUR = "#e08a1e"
CENTRES = 60


def slices(findings: Findings) -> "Figure":
    """Draws the value of each trial against each hyperparameter, with median and quartiles of nearby trials."""
    scales = [scale_of(dimension, findings.outcomes) for dimension in findings.space.dimensions]
    axis = value_axis((outcome.value for outcome in findings.outcomes), findings.higher_is_better)
    columns = min(2, len(scales))
    rows = math.ceil(len(scales) / columns)
    figure = new_figure(3.0 * rows + 0.8)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, scale in zip(panels, scales, strict=False):
        _slice(panel, scale, findings, axis)
    for panel in panels[len(scales) :]:
        panel.set_visible(False)
    note = axis.note(outcome.value for outcome in findings.outcomes)
    figure.suptitle(f"Slices{note}", x=0.01, ha="left", fontsize="medium")
    legend(figure, *panels[: len(scales)])
    return figure


def _slice(axes: "Axes", scale: Scale, findings: Findings, axis: ValueAxis) -> None:
    outcomes = [outcome for outcome in findings.outcomes if scale.key in outcome.point]
    x = np.array([scale.place(outcome.point[scale.key]) for outcome in outcomes])
    y = np.array([axis.height(outcome.value) for outcome in outcomes])
    if scale.few:
        _boxes(axes, x, y, 0.64 * scale.room)
    if scale.names:
        # Jitter, so that trials with the same name do not hide each other; deterministic, so that pictures repeat. A
        # number stands where it is on its axis.
        x = x + scale.room * (np.arange(len(x)) * 0.618 % 1.0 - 0.5)
    if not scale.few:
        _band(axes, x, y)
    places = list(zip(x.tolist(), y.tolist(), strict=True))
    scatter(axes, outcomes, places, f"slice-{scale.key}")
    for outcome, place in zip(outcomes, places, strict=True):
        if outcome is findings.best:
            ring(axes, place)
    _ticks(axes, scale)
    value_side(axes, axis, findings)


def _ticks(axes: "Axes", scale: Scale) -> None:
    places, texts = zip(*((place, shorten(text, 16)) for place, text in scale.ticks()), strict=True)
    crowded = sum(map(len, texts)) > 36
    turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(places, texts, fontsize="small", **turned)
    axes.set_xlim(*scale.limits)
    axes.set_xlabel(shorten(scale.key, 48))


def _band(axes: "Axes", x: np.ndarray, y: np.ndarray) -> None:
    """Draws median and quartiles of a moving window over the trials sorted by x."""
    if len(x) < FEWEST or np.ptp(x) == 0:
        return
    order = np.argsort(x, kind="stable")
    half = max(4, len(x) // 12)
    centres = np.unique(np.linspace(0, len(x) - 1, CENTRES).round().astype(int))
    windows = [order[max(0, centre - half) : centre + half + 1] for centre in centres]
    low, middle, high = np.array([np.quantile(y[window], QUARTILES) for window in windows]).T
    at = [float(np.median(x[window])) for window in windows]
    axes.fill_between(at, low, high, color=COLOUR, alpha=0.2, linewidth=0, zorder=1, label="25-75 % of nearby trials")
    axes.plot(at, middle, color=COLOUR, linewidth=1.6, zorder=1.5, label="median")


def _boxes(axes: "Axes", x: np.ndarray, y: np.ndarray, half: float) -> None:
    """Draws median and quartiles at each value that trials share; `half` is half the width of a box."""
    for place in np.unique(x):
        chosen = y[x == place]
        if len(chosen) >= FEWEST_ALIKE:
            low, middle, high = np.quantile(chosen, QUARTILES)
            ends = [place - half, place + half]
            axes.fill_between(ends, low, high, color=COLOUR, alpha=0.2, linewidth=0, zorder=1)
            axes.plot(ends, [middle, middle], color=COLOUR, linewidth=1.6, zorder=1.5)
