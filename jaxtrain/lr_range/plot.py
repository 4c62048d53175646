"""Plot of a range test."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_lr_range(result: Any) -> "Figure":
    """Plots loss against rate: median and band over seeds, interval of falling loss, suggestion, unstable rates.

    With a second float, a heat map of the losses over both is added. The loss axis is cut above the start of the curve,
    so that diverging losses do not flatten it; a rate at which most seeds diverged is a cross on the upper edge.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13 if result.second else 8.5, 5.2), layout="constrained")
    axes = figure.subplots(1, 2 if result.second else 1, squeeze=False)[0]
    _draw_curve(axes[0], result)
    if result.second:
        _draw_heat_map(figure, axes[1], result)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize="small")
    return figure


def _draw_curve(axes: "Axes", result: Any) -> None:
    low, median, high = result.band
    floor, ceiling = _loss_limits(median, high)
    clip = ceiling + (ceiling - floor)  # stands in for infinity: lines to it leave the axes
    clipped = np.minimum(median, clip)
    axes.grid(alpha=0.25, linewidth=0.6)
    _draw_intervals(axes, result)
    if result.losses.shape[1] > 1:
        band = (np.minimum(low, clip), np.minimum(high, clip))
        axes.fill_between(result.rates, *band, color="tab:blue", alpha=0.2, linewidth=0, label="10-90 % of seeds")
    name = "median" if result.losses.shape[1] > 1 else "loss"
    axes.plot(result.rates, clipped, color="tab:blue", marker="o", markersize=3.5, linewidth=1.8, label=name)
    diverged = result.rates[~np.isfinite(median)]
    if len(diverged):
        style = {"linestyle": "none", "marker": "x", "color": "tab:red", "clip_on": False, "zorder": 4}
        axes.plot(diverged, np.full(len(diverged), ceiling), label="diverged", **style)
    if result.suggestion is not None:
        height = float(np.interp(np.log(result.suggestion), np.log(result.rates), clipped))
        _circle(axes, result.suggestion, height, f"suggestion {result.suggestion:.2g}")
    axes.set_ylim(floor, ceiling)
    axes.set_xscale("log")
    axes.set_xlabel(result.target)
    axes.set_ylabel("loss" + _second_value(result))
    axes.set_title(_title(result), loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_intervals(axes: "Axes", result: Any) -> None:
    """Shades the rates at which the loss falls and those at which training is unstable."""
    reading = result.reading
    if reading and reading.falling:
        axes.axvspan(*reading.falling, color="tab:green", alpha=0.12, linewidth=0, label="the loss falls")
    if reading and reading.unstable:
        axes.axvspan(reading.unstable, result.rates[-1], color="tab:gray", alpha=0.12, linewidth=0)
        label = f"unstable from {reading.unstable:.2g}"
        axes.axvline(reading.unstable, color="tab:gray", linestyle="--", linewidth=1.4, label=label)


def _circle(axes: "Axes", x: float, y: float, label: str | None = None) -> None:
    style = {"marker": "o", "markersize": 15, "markerfacecolor": "none", "markeredgewidth": 2.2, "linestyle": "none"}
    axes.plot([x], [y], color="red", label=label, zorder=5, clip_on=False, **style)


def _title(result: Any) -> str:
    if result.reading is None:
        return f"Range test by {result.method}: every lane diverged"
    seeds = result.losses.shape[1]
    title = f"Range test by {result.method}, {len(result.rates)} rates, {seeds} seed{'s' if seeds > 1 else ''}"
    if result.suggestion is None:
        return f"{title}: no rate lowers the loss"
    return title if result.agreed else f"{title}: the rules disagree"


def _second_value(result: Any) -> str:
    """Formats the value of the second float to which the curve belongs: the best one."""
    if not result.second:
        return ""
    name, values = result.second
    return f" at {name} {values[_best_row(result.grid)]:.2g}"


def _loss_limits(median: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """Returns the limits of the loss axis: all losses, but at most 60 % of the drop above its start."""
    finite = median[np.isfinite(median)]
    if not len(finite):
        return 0.0, 1.0
    start = float(np.median(finite[: max(1, len(finite) // 10)]))
    minimum = float(finite.min())
    drop = max(start - minimum, 1e-3 * abs(start), 1e-9)
    maximum = float(high[np.isfinite(high)].max(initial=start))
    return minimum - 0.08 * drop, min(maximum + 0.08 * drop, start + 0.6 * drop)


def _draw_heat_map(figure: "Figure", axes: "Axes", result: Any) -> None:
    """Draws the median loss over both floats, in grey where most seeds diverged, and the suggestion on the best row."""
    from matplotlib import colormaps

    name, values = result.second
    best = _best_row(result.grid)
    _, ceiling = _loss_limits(result.grid[best], result.grid[best])
    losses = np.ma.masked_invalid(result.grid)
    colours = colormaps["viridis_r"].with_extremes(bad="0.85")
    x = _cell_edges(result.rates)
    y = _cell_edges(values)
    mesh = axes.pcolormesh(x, y, losses, cmap=colours, vmax=ceiling, rasterized=True)
    figure.colorbar(mesh, ax=axes, label="median loss", extend="max", pad=0.02)
    if result.suggestion is not None:
        _circle(axes, result.suggestion, float(values[best]))
    axes.set_xscale("log")
    if values.min() > 0:
        axes.set_yscale("log")
    axes.set_xlabel(result.target)
    axes.set_ylabel(name)
    legend = " (grey: diverged)" if np.ma.is_masked(losses) else ""
    axes.set_title(f"Median loss over both{legend}", loc="left", fontsize="medium")


def _best_row(grid: np.ndarray) -> int:
    return int(np.argmin(np.where(np.isfinite(grid), grid, np.inf).min(axis=1)))


def _cell_edges(values: np.ndarray) -> np.ndarray:
    """Returns the edges of cells around n values, (n + 1,): midpoints, on a log axis if all are positive."""
    if values.min() > 0:
        return np.exp(_midpoint_edges(np.log(values)))
    return _midpoint_edges(values)


def _midpoint_edges(values: np.ndarray) -> np.ndarray:
    inner = (values[1:] + values[:-1]) / 2
    return np.concatenate([[2 * values[0] - inner[0]], inner, [2 * values[-1] - inner[-1]]])
