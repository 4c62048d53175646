"""The picture of a range test."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_lr_range(result: Any) -> "Figure":
    """Draws a range test: loss against rate, its band over seeds, the falling interval, the suggestion, the edge.

    With a second float, a heat map of the losses over both stands beside it. A point above the picture's upper edge,
    where blow-ups would flatten what is to be seen, is cut; a rate at which most seeds diverged is a cross on the edge.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13 if result.second else 8.5, 5.2), layout="constrained")
    axes = figure.subplots(1, 2 if result.second else 1, squeeze=False)[0]
    _curve(axes[0], result)
    if result.second:
        _heat_map(figure, axes[1], result)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize="small")
    return figure


def _curve(axes: "Axes", result: Any) -> None:
    low, middle, high = result.band
    floor, ceiling = _limits(middle, high)
    above = ceiling + (ceiling - floor)  # where a line leaves the picture on its way to infinity
    shown = np.minimum(middle, above)
    axes.grid(alpha=0.25, linewidth=0.6)
    _interval(axes, result, result.rates[-1])
    if result.losses.shape[1] > 1:
        band = np.minimum(low, above), np.minimum(high, above)
        axes.fill_between(result.rates, *band, color="tab:blue", alpha=0.2, linewidth=0, label="10-90 % of seeds")
    name = "median" if result.losses.shape[1] > 1 else "loss"
    axes.plot(result.rates, shown, color="tab:blue", marker="o", markersize=3.5, linewidth=1.8, label=name)
    lost = result.rates[~np.isfinite(middle)]
    if len(lost):
        at_edge = {"linestyle": "none", "marker": "x", "color": "tab:red", "clip_on": False, "zorder": 4}
        axes.plot(lost, np.full(len(lost), ceiling), label="diverged", **at_edge)
    if result.suggestion is not None:
        height = float(np.interp(np.log(result.suggestion), np.log(result.rates), shown))
        _circle(axes, result.suggestion, height, f"suggestion {result.suggestion:.2g}")
    axes.set_ylim(floor, ceiling)
    axes.set_xscale("log")
    axes.set_xlabel(result.target)
    axes.set_ylabel("loss" + _where(result))
    axes.set_title(_title(result), loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)


def _interval(axes: "Axes", result: Any, last: float) -> None:
    """Shades where the loss falls, and where training is unstable."""
    reading = result.reading
    if reading and reading.falling:
        axes.axvspan(*reading.falling, color="tab:green", alpha=0.12, linewidth=0, label="the loss falls")
    if reading and reading.unstable:
        axes.axvspan(reading.unstable, last, color="tab:gray", alpha=0.12, linewidth=0)
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


def _where(result: Any) -> str:
    """Says at which value of a second float the curve was taken: the best one."""
    if not result.second:
        return ""
    name, values = result.second
    return f" at {name} {values[_best_row(result.grid)]:.2g}"


def _limits(middle: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """Returns the losses at the edges of the picture: all there are, but little above where the fall begins."""
    finite = middle[np.isfinite(middle)]
    if not len(finite):
        return 0.0, 1.0
    start, least = float(np.median(finite[: max(1, len(finite) // 10)])), float(finite.min())
    fall, highest = max(start - least, 1e-3 * abs(start), 1e-9), float(high[np.isfinite(high)].max(initial=start))
    return least - 0.08 * fall, min(highest + 0.08 * fall, start + 0.6 * fall)


def _heat_map(figure: "Figure", axes: "Axes", result: Any) -> None:
    """Colours the median loss over both floats; grey where most seeds diverged, the suggestion on the best row."""
    from matplotlib import colormaps

    name, values = result.second
    best = _best_row(result.grid)
    _, ceiling = _limits(result.grid[best], result.grid[best])
    shown, colours = np.ma.masked_invalid(result.grid), colormaps["viridis_r"].with_extremes(bad="0.85")
    mesh = axes.pcolormesh(_edges(result.rates), _edges(values), shown, cmap=colours, vmax=ceiling, rasterized=True)
    figure.colorbar(mesh, ax=axes, label="median loss", extend="max", pad=0.02)
    if result.suggestion is not None:
        _circle(axes, result.suggestion, float(values[best]))
    axes.set_xscale("log")
    if values.min() > 0:
        axes.set_yscale("log")
    axes.set_xlabel(result.target)
    axes.set_ylabel(name)
    lost = " (grey: diverged)" if np.ma.is_masked(shown) else ""
    axes.set_title(f"Median loss over both{lost}", loc="left", fontsize="medium")


def _best_row(grid: np.ndarray) -> int:
    return int(np.argmin(np.where(np.isfinite(grid), grid, np.inf).min(axis=1)))


def _edges(values: np.ndarray) -> np.ndarray:
    """Returns the edges of cells around values, (n + 1,): half-way on a logarithmic axis, where all are positive."""
    if values.min() > 0:
        return np.exp(_halfway(np.log(values)))
    return _halfway(values)


def _halfway(values: np.ndarray) -> np.ndarray:
    inner = (values[1:] + values[:-1]) / 2
    return np.concatenate([[2 * values[0] - inner[0]], inner, [2 * values[-1] - inner[-1]]])
