"""Drawing helpers that all pictures share: a style for each status, and marks that link to their trial."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from jaxtrain.reports.value_axis import ValueAxis
from jaxtrain.search.results import Findings
from jaxtrain.search.trials import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINK = "#trial-"
"""Prefix of a mark's link; the trial's number follows."""

MARKS: dict[str, dict[str, Any]] = {
    "done": {"marker": "o", "s": 22, "facecolor": "#2f7fc1", "edgecolor": "none", "alpha": 0.85, "zorder": 3},
    "stopped": {"marker": "o", "s": 14, "facecolor": "none", "edgecolor": "#8c93a1", "linewidth": 0.9, "zorder": 2},
    "undefined": {"marker": "+", "s": 26, "color": "#a06a00", "linewidth": 1.2, "zorder": 2.4},
    "diverged": {"marker": "x", "s": 22, "color": "#d64545", "linewidth": 1.2, "zorder": 2.5},
}
"""Status -> style of a trial's mark, in the order of the legend."""

BROKEN: tuple[float, tuple[float, float]] = (0.0, (3.0, 1.5))
"""Dashes of the line of a trial that was stopped at a rung."""

RAMP = ("#b3c6dd", "#8a6fd1", "#d6006e")
"""Colours from the worst value to the best, readable on white and on black."""


def ramp() -> Callable[[float], Any]:
    """Returns a colour map, from 0 for the worst to 1 for the best."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("worst to best", RAMP)


def scatter(axes: "Axes", outcomes: Sequence[Outcome], places: Sequence[tuple[float, float]], name: str) -> None:
    """Draws a mark for each trial at its (x, y), linked to the trial, in groups `<name>-<status>`."""
    for status, look in MARKS.items():
        chosen = [i for i, outcome in enumerate(outcomes) if outcome.status == status]
        if chosen:
            x, y = zip(*(places[i] for i in chosen), strict=True)
            marks = axes.scatter(x, y, clip_on=False, gid=f"{name}-{status}", label=status, **look)
            marks.set_urls([f"{LINK}{outcomes[i].trial}" for i in chosen])


def ring(axes: "Axes", place: tuple[float, float]) -> None:
    """Draws a ring around the best trial."""
    look = {"s": 110, "facecolor": "none", "edgecolor": RAMP[-1], "linewidth": 1.8}
    axes.scatter(*place, clip_on=False, zorder=4, label="best", **look)


def value_side(axes: "Axes", axis: ValueAxis, findings: Findings) -> None:
    """Sets up the vertical axis of a picture of values."""
    axes.set_ylim(*axis.limits)
    axes.set_ylabel(findings.metric)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def legend(figure: "Figure", *sources: "Axes", reverse: bool = False) -> None:
    """Draws one legend below all axes, with each label once and the statuses first."""
    pairs = [pair for axes in sources for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    named = {label: handle for handle, label in pairs}
    labels = sorted(named, key=[*MARKS, *(label for label in named if label not in MARKS)].index, reverse=reverse)
    if labels:
        handles = [named[label] for label in labels]
        look: dict[str, Any] = {"ncols": len(labels) if len(labels) <= 6 else 5, "frameon": False, "fontsize": "small"}
        figure.legend(handles, labels, loc="outside lower center", **look)
