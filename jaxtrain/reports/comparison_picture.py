"""The curves of all groups of a comparison in one picture: the best in colours, further ones in grey."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxtrain.reports.comparison import Comparison
from jaxtrain.reports.figures import COLOURS, DASHES, new_figure, shorten
from jaxtrain.reports.seed_groups import SeedGroup
from jaxtrain.reports.value_axis import value_axis
from jaxtrain.training.intervals import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_NAME = 70


class Curve(NamedTuple):
    """The mean over seeds at each step, and the bounds of its 95 % interval, nan for one seed; each (steps,)."""

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


UNLIKE_LENGTHS = 10
"""The longest run as a multiple of the shortest beyond which steps are scaled by their logarithm."""


def draw_comparison(comparison: Comparison) -> "Figure":
    """Draws the metric on validation and the loss on training against the step, a line for each group.

    More groups than COLOURS are drawn in grey, behind the best ones.
    """
    ranked = sorted(comparison.groups, key=lambda group: comparison.rank(group, comparison.state))
    chosen = ranked[: len(COLOURS)]
    figure = new_figure(4.4 + 0.19 * len(chosen), 11.0)
    left, right = figure.subplots(1, 2)
    _draw_panel(left, "validation", comparison.metric, ranked, comparison.higher_is_better)
    _draw_panel(right, "train", "loss", ranked, higher_is_better=False)
    handles = left.get_lines()[: len(chosen)] or right.get_lines()[: len(chosen)]
    names = [_legend(comparison, group) for group in chosen]
    rest = len(ranked) - len(chosen)
    title = f"The {len(chosen)} best of {len(ranked)} configs; grey: the others" if rest else ""
    figure.legend(
        handles[: len(names)],
        names,
        loc="outside lower left",
        title=title or None,
        alignment="left",
        frameon=False,
        fontsize="small",
        title_fontsize="small",
    )
    return figure


def curve_of(group: SeedGroup, split: str, metric: str) -> Curve:
    """Returns the curve of a group, over the steps at which all of its seeds that have rows have a value."""
    points: dict[int, dict[int, float]] = {}
    for run in group.runs:
        lanes = {number: f"{run.lanes}{number}/{metric}" if run.lanes else metric for number in run.lane_numbers}
        for row in run.rows:
            if row["split"] == split:
                known = {number: row[key] for number, key in lanes.items() if row.get(key) is not None}
                points.setdefault(row["step"], {}).update(known)
    most = max((len(known) for known in points.values()), default=0)
    steps = sorted(step for step, known in points.items() if known and len(known) == most)
    spreads = [interval(np.array(list(points[step].values()))) for step in steps]
    columns = np.array([(spread.mean, spread.low, spread.high) for spread in spreads]).reshape(-1, 3).T
    return Curve(np.array(steps), *columns)


def _draw_panel(axes: "Axes", split: str, metric: str, ranked: Sequence[SeedGroup], higher_is_better: bool) -> None:
    from matplotlib.collections import LineCollection

    curves = [curve_of(group, split, metric) for group in ranked]
    axis = value_axis(np.concatenate([curve.mean for curve in curves]).tolist(), higher_is_better)
    for place, curve in enumerate(curves[: len(COLOURS)]):
        look: dict[str, Any] = {"color": COLOURS[place], "linestyle": DASHES[place % len(DASHES)]}
        on_top = len(COLOURS) - place
        if len(curve.steps) and not np.isnan(curve.low).all():
            axes.fill_between(
                curve.steps, curve.low, curve.high, color=look["color"], alpha=0.14, linewidth=0, zorder=1
            )
        marker = "o" if len(curve.steps) < 2 else None
        width = 2.2 if place == 0 else 1.5
        axes.plot(curve.steps, curve.mean, linewidth=width, marker=marker, zorder=2 + on_top, **look)
    others = [np.stack([own.steps, own.mean], axis=1) for own in curves[len(COLOURS) :]]
    axes.add_collection(LineCollection(others, colors="#b4b9c2", linewidths=0.7, zorder=1.5))
    axes.autoscale_view()
    axes.set_ylim(*axis.limits)
    _scale_steps(axes, [curve.steps for curve in curves if len(curve.steps)])
    axes.set_xlabel("step")
    better = "higher" if higher_is_better else "lower"
    axes.set_ylabel(f"{shorten(metric, 40)} ({better} is better)")
    axes.set_title(f"{shorten(metric, 30)} on {split}", loc="left", fontsize="medium")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _scale_steps(axes: "Axes", steps: Sequence[np.ndarray]) -> None:
    """Scales the steps by their logarithm where the longest run would leave the shortest no room."""
    ends = [own[-1] for own in steps]
    if len(ends) > 1 and max(ends) > UNLIKE_LENGTHS * min(ends):
        axes.set_xscale("log")
        axes.set_xlim(max(1, min(own[0] for own in steps)) / 1.2, max(ends) * 1.2)
    else:
        axes.set_xlim(left=0)
        axes.locator_params("x", integer=True)


def _legend(comparison: Comparison, group: SeedGroup) -> str:
    """Returns the label of a group with its value, its interval over seeds, and what diverged."""
    text = shorten(comparison.label_of(group), LONGEST_NAME)
    spread = group.spread(comparison.state, comparison.metric)
    if spread is not None:
        half = f" ± {spread.high - spread.mean:.2g} (95 %)" if spread.high == spread.high else ""
        seeds = f", {len(group.numbers)} {group.unit}s" if len(group.numbers) > 1 else ""
        text += f": {comparison.metric} {spread.mean:.4g}{half}{seeds}"
    return text + (f", {len(group.diverged)} diverged" if group.diverged else "")
