"""Small charts of one run, of a size that a phone shows whole: lines against the step, with what happened when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtrain.reports.figures import COLOURS, DASHES, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (4.8, 3.3)
"""Width and height in inches: the width of a phone at the size at which letters are read."""

SPAN = 30.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""


@dataclass(frozen=True)
class Line:
    """Values against the step; thin ones stay behind the others, and share the look of the line before them."""

    name: str
    steps: Sequence[int]
    values: Sequence[float]
    colour: str = ""
    dashes: Any = "solid"
    marker: str | None = None
    thin: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart of lines: `name` is that of its file, `unit` is written beside the values.

    marks: label -> step of a vertical line; spans: whether the axis is logarithmic where values span much; from_zero:
    whether it begins at 0, so that small changes look small.
    """

    name: str
    title: str
    unit: str
    lines: tuple[Line, ...]
    marks: Mapping[str, int] = field(default_factory=dict)
    spans: bool = False
    from_zero: bool = False
    x_label: str = "step"


def lines_of(named: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> tuple[Line, ...]:
    """Returns lines that differ in colour and dashes, for name -> (steps, values)."""
    return tuple(
        Line(name, *points, COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)])
        for place, (name, points) in enumerate(named.items())
    )


def draw_chart(chart: Chart) -> "Figure":
    """Draws a chart."""
    figure = new_figure(SIZE[1] + 0.17 * max(0, len(chart.lines) - 6), SIZE[0])
    axes = figure.subplots()
    for line in chart.lines:
        _draw_line(axes, line)
    for label, step in chart.marks.items():
        colour = "#c23030" if "diverged" in label else "#667085"
        axes.axvline(step, color=colour, linestyle=(0, (2, 2)), linewidth=1.2, label=f"{label} (step {step:,})")
    if chart.spans and _spans_much(chart.lines):
        axes.set_yscale("log")
    if chart.from_zero:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.unit)
    axes.set_title(shorten(chart.title, 52), loc="left", fontsize=10)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.locator_params("x", nbins=6, integer=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _draw_legend(figure, axes)
    return figure


def _draw_line(axes: "Axes", line: Line) -> None:
    look: dict[str, Any] = {"color": line.colour, "linestyle": line.dashes}
    if line.thin:
        axes.plot(line.steps, line.values, linewidth=0.8, alpha=0.45, zorder=1.5, **look)
        return
    if len(line.steps) < 2:
        look |= {"linestyle": "none", "marker": line.marker or "s", "markersize": 8, "zorder": 3}
    else:
        look |= {"linewidth": 1.8, "marker": line.marker, "markersize": 4}
    axes.plot(line.steps, line.values, label=shorten(line.name, 44), **look)


def _draw_legend(figure: "Figure", axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        columns = 2 if max(map(len, labels)) < 24 else 1
        look: dict[str, Any] = {"ncols": columns, "frameon": False, "fontsize": 9}
        figure.legend(handles, labels, loc="outside lower left", **look)


def _spans_much(lines: Sequence[Line]) -> bool:
    values = np.concatenate([[], *(np.asarray(line.values, float) for line in lines)])
    finite = values[np.isfinite(values)]
    return bool(len(finite)) and finite.min() > 0 and finite.max() > SPAN * finite.min()
