"""Plot of a range test."""

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtrain.lr_range.curves import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 5
"""Seeds that are drawn as lines of their own; more are drawn as a band of their quantiles."""

COLOUR = "tab:blue"


def plot_lr_range(result: Any) -> "Figure":
    """Plots an `LRRangeResult`: the loss against the rate for each length of lanes, the suggestion and its interval.

    Seeds of the longest lanes are thin lines, other rules faint marks. With a second float, a heat map of the losses
    over both is added. The loss axis is cut above the start of the curve, so that diverging losses do not flatten it. A
    rate at which most seeds diverged is a cross on the upper edge.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13 if result.second else 8.5, 5.6), layout="constrained")
    axes = figure.subplots(1, 2 if result.second else 1, squeeze=False)[0]
    _draw_curves(axes[0], result)
    if result.second:
        _draw_heat_map(figure, axes[1], result)
    handles, labels = axes[0].get_legend_handles_labels()
    columns = 7 if result.second else 4
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
    figure.suptitle(textwrap.fill(_title(result), 150 if result.second else 95), x=0.02, ha="left", fontsize="medium")
    return figure


def _draw_curves(axes: "Axes", result: Any) -> None:
    longest = result.curves[-1]
    floor, ceiling = _loss_limits(result)
    clip = ceiling + (ceiling - floor)  # stands in for infinity: lines to it leave the axes
    axes.grid(alpha=0.25, linewidth=0.6)
    _draw_intervals(axes, result)
    _draw_seeds(axes, longest, clip)
    for i, curve in enumerate(result.curves[:-1]):
        fading = 0.35 + 0.3 * i / max(1, len(result.curves) - 2)
        median = np.minimum(curve.median, clip)
        axes.plot(curve.rates, median, color="tab:orange", alpha=fading, linewidth=1.2, label=f"{curve.steps:,} steps")
    line = np.minimum(longest.median, clip)
    if result.method == "ramp":
        axes.plot(longest.rates, line, color=COLOUR, alpha=0.3, linewidth=1.0, label="raw")
        line = np.minimum(longest.smoothed, clip)
        axes.plot(longest.rates, line, color=COLOUR, linewidth=1.8, label="smoothed")
    else:
        name = f"{longest.steps:,} steps"
        axes.plot(longest.rates, line, color=COLOUR, marker="o", markersize=3.5, linewidth=1.8, label=name)
    diverged = longest.rates[~np.isfinite(longest.median)]
    if len(diverged):
        style = {"linestyle": "none", "marker": "x", "color": "tab:red", "clip_on": False, "zorder": 4}
        axes.plot(diverged, np.full(len(diverged), ceiling), label="diverged", **style)
    _draw_rules(axes, result, floor)
    if result.suggestion is not None:
        height = float(np.interp(np.log(result.suggestion), np.log(longest.rates), line))
        _circle(axes, result.suggestion, height, f"suggestion {result.suggestion:.2g}")
    axes.set_ylim(floor, ceiling)
    axes.set_xscale("log")
    axes.set_xlabel(result.target)
    axes.set_ylabel("loss" + _second_value(result))
    axes.spines[["top", "right"]].set_visible(False)


def _draw_seeds(axes: "Axes", curve: Curve, clip: float) -> None:
    """Draws each seed as a thin line, or where there are many the band of their lowest to highest loss."""
    seeds = curve.losses.shape[1]
    losses = np.minimum(np.where(np.isfinite(curve.losses), curve.losses, np.inf), clip)
    if 1 < seeds <= MOST_LINES:
        for i, line in enumerate(losses.T):
            label = f"{seeds} seeds" if i == 0 else None
            axes.plot(curve.rates, line, color=COLOUR, alpha=0.4, linewidth=0.7, label=label)
    elif seeds > 1:
        band = np.quantile(losses, (0.1, 0.9), axis=1)
        axes.fill_between(curve.rates, *band, color=COLOUR, alpha=0.2, linewidth=0, label=f"10-90 % of {seeds} seeds")


def _draw_intervals(axes: "Axes", result: Any) -> None:
    """Shades the interval of the suggestion, and the rates at which training is unstable."""
    reading = result.reading
    if reading and reading.interval:
        low, high = reading.interval
        axes.axvspan(low, high, color="tab:green", alpha=0.14, linewidth=0, label=f"90 %: {low:.2g} to {high:.2g}")
    if reading and reading.unstable:
        axes.axvspan(reading.unstable, result.curves[0].rates[-1], color="tab:gray", alpha=0.12, linewidth=0)
        label = f"unstable from {reading.unstable:.2g}"
        axes.axvline(reading.unstable, color="tab:gray", linestyle="--", linewidth=1.4, label=label)


def _draw_rules(axes: "Axes", result: Any, floor: float) -> None:
    """Marks what other rules suggest, faintly, on the lower edge."""
    rules = result.reading.rules if result.reading else {}
    for name, rate in rules.items():
        style = {"marker": "^", "color": "0.55", "markersize": 5, "clip_on": False, "linestyle": "none"}
        axes.plot([rate], [floor], zorder=4, **style)
        axes.annotate(name, (rate, floor), (0, 6), textcoords="offset points", rotation=90, fontsize=6, color="0.5")


def _circle(axes: "Axes", x: float, y: float, label: str | None = None) -> None:
    style = {"marker": "o", "markersize": 15, "markerfacecolor": "none", "markeredgewidth": 2.2, "linestyle": "none"}
    axes.plot([x], [y], color="red", label=label, zorder=5, clip_on=False, **style)


def _title(result: Any) -> str:
    seeds = result.losses.shape[1]
    tested = f"{len(result.curves[0].rates)} rates, {seeds} seed{'s' if seeds > 1 else ''}"
    title = f"{result.description}, {tested}" if result.description else f"Range test by {result.method}, {tested}"
    if result.reading is None:
        return f"{title}: every lane diverged"
    if result.suggestion is None:
        return f"{title}: {result.reading.doubt}"
    return title if result.reliable else f"{title}: not reliable"


def _second_value(result: Any) -> str:
    """Formats the value of the second float to which the curve belongs: the best one."""
    if not result.second:
        return ""
    name, values = result.second
    return f" at {name} {values[result.row]:.2g}"


def _loss_limits(result: Any) -> tuple[float, float]:
    """Returns the limits of the loss axis: all losses, but at most 40 % of the fall above its start."""
    medians = np.concatenate([curve.median for curve in result.curves])
    finite = medians[np.isfinite(medians)]
    if not len(finite):
        return 0.0, 1.0
    start = float(np.median(finite[: max(1, len(result.curves[0].rates) // 10)]))
    minimum = float(finite.min())
    drop = max(start - minimum, 1e-3 * abs(start), 1e-9)
    return minimum - 0.08 * drop, min(float(finite.max()) + 0.08 * drop, start + 0.4 * drop)


def _draw_heat_map(figure: "Figure", axes: "Axes", result: Any) -> None:
    """Draws the median loss over both floats, the best rate of each row as a path, and the suggestion.

    Cells are grey where most seeds diverged.
    """
    from matplotlib import colormaps

    assert result.second is not None
    name, values = result.second
    _, ceiling = _loss_limits(result)
    losses = np.ma.masked_invalid(result.grid)
    colours = colormaps["viridis_r"].with_extremes(bad="0.85")
    x = _cell_edges(result.rates)
    y = _cell_edges(values)
    mesh = axes.pcolormesh(x, y, losses, cmap=colours, vmax=ceiling, rasterized=True)
    figure.colorbar(mesh, ax=axes, label=f"median loss after {result.curves[-1].steps:,} steps", extend="max", pad=0.02)
    path = [(r.suggestion, value) for r, value in zip(result.readings, values, strict=True) if r and r.suggestion]
    if path:
        axes.plot(*zip(*path, strict=True), color="white", marker=".", linewidth=1.2, label="best rates")
        axes.legend(loc="lower left", fontsize="small", labelcolor="white", facecolor="0.3", edgecolor="none")
    if result.suggestion is not None:
        _circle(axes, result.suggestion, float(values[result.row]))
    axes.set_xscale("log")
    if values.min() > 0:
        axes.set_yscale("log")
    axes.set_xlabel(result.target)
    axes.set_ylabel(name)
    legend = " (grey: diverged)" if np.ma.is_masked(losses) else ""
    axes.set_title(f"Median loss over both{legend}", loc="left", fontsize="medium")


def _cell_edges(values: np.ndarray) -> np.ndarray:
    """Returns the edges of cells around n values, (n + 1,): midpoints, on a log axis if all are positive."""
    if values.min() > 0:
        return np.exp(_midpoint_edges(np.log(values)))
    return _midpoint_edges(values)


def _midpoint_edges(values: np.ndarray) -> np.ndarray:
    inner = (values[1:] + values[:-1]) / 2
    return np.concatenate([[2 * values[0] - inner[0]], inner, [2 * values[-1] - inner[-1]]])
