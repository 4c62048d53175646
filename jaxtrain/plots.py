"""Pictures, drawn with matplotlib, which is imported when the first one is asked for."""

import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Picture(NamedTuple):
    """A figure as PNG, and its size in pixels."""

    png: bytes
    width: int
    height: int


def drawn(figure: "Figure", dpi: int = 120) -> Picture:
    """Renders a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return Picture(buffer.getvalue(), *(round(inches * dpi) for inches in figure.get_size_inches()))


def plot_lr_range(result: Any) -> "Figure":
    """Draws a range test: loss against rate, its band over seeds, the falling interval, the suggestion, the edge.

    With a second float, a heat map of the losses over both stands beside it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12 if result.second else 8, 5), layout="constrained")
    axes = figure.subplots(1, 2 if result.second else 1, squeeze=False)[0]
    _curve(axes[0], result)
    if result.second:
        _heat_map(figure, axes[1], result)
    return figure


def _curve(axes: "Axes", result: Any) -> None:
    low, middle, high = result.band
    ceiling = _ceiling(middle)
    axes.fill_between(
        result.rates, np.minimum(low, ceiling), np.minimum(high, ceiling), alpha=0.25, label="10-90 % of seeds"
    )
    axes.plot(result.rates, np.where(middle <= ceiling, middle, np.nan), marker=".", label="median")
    reading = result.reading
    if reading and reading.falling:
        axes.axvspan(*reading.falling, color="tab:green", alpha=0.12, label="the loss falls")
    if reading and reading.unstable:
        axes.axvline(reading.unstable, color="tab:gray", linestyle="--", label=f"unstable from {reading.unstable:.2g}")
    if reading and reading.suggestion:
        height = np.interp(np.log(reading.suggestion), np.log(result.rates), np.minimum(middle, ceiling))
        circle = {"marker": "o", "markersize": 14, "markerfacecolor": "none", "markeredgewidth": 2, "linestyle": "none"}
        axes.plot([reading.suggestion], [height], color="red", label=f"suggestion {reading.suggestion:.2g}", **circle)
    axes.set_xscale("log")
    axes.set_xlabel(result.target)
    axes.set_ylabel("loss")
    axes.set_title(_title(result))
    axes.legend(loc="best", fontsize="small")


def _title(result: Any) -> str:
    if result.reading is None:
        return f"Range test by {result.method}: every lane diverged"
    doubt = "" if result.agreed else " (the rules disagree)"
    return f"Range test by {result.method}{doubt}"


def _ceiling(middle: np.ndarray) -> float:
    """The loss above which the picture is cut: blow-ups would flatten what is to be seen."""
    finite = middle[np.isfinite(middle)]
    if not len(finite):
        return 1.0
    start = float(np.median(finite[: max(1, len(finite) // 10)]))
    return start + 0.5 * max(start - float(finite.min()), 1e-12)


def _heat_map(figure: "Figure", axes: "Axes", result: Any) -> None:
    name, values = result.second
    shown = np.minimum(result.grid, _ceiling(result.grid[np.argmin(result.grid.min(axis=1))]))
    mesh = axes.pcolormesh(result.rates, values, shown, shading="nearest", cmap="viridis_r")
    figure.colorbar(mesh, ax=axes, label="median loss")
    axes.set_xscale("log")
    if values.min() > 0:
        axes.set_yscale("log")
    axes.set_xlabel(result.target)
    axes.set_ylabel(name)
