"""The plot of a range test shows all parts of the result at the right places."""

import dataclasses
import struct

import numpy as np
import pytest
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from jaxtrain.commands.plan import plot_schedules
from jaxtrain.lr_range.rules import read_curve
from jaxtrain.lr_range.sweep import LRRangeResult
from jaxtrain.trackers.figures import render

RATES = np.geomspace(1e-6, 10.0, 36)


def curve() -> np.ndarray:
    """Losses (rates, seeds) of three seeds that fall from 2.3 and then diverge."""
    decades = np.log10(RATES / 0.1)
    fallen = 1.0 / (1.0 + np.exp(-4.0 * (decades + 1.0)))
    losses = 2.3 - 2.0 * fallen + np.where(decades > 0, np.minimum(10 ** (1.5 * decades) - 1.0, 50.0), 0.0)
    return losses[:, None] * np.asarray([0.9, 1.0, 1.2])


def apart() -> np.ndarray:
    """Three seeds whose curves are three decades apart."""
    low = np.interp(np.log(1e3 * RATES), np.log(RATES), curve()[:, 1])
    return np.stack([low, low, curve()[:, 1]], axis=1)


def result(losses: np.ndarray, second: bool = False) -> LRRangeResult:
    values = np.geomspace(1e-4, 1.0, 5)
    grid = np.stack([np.median(losses, axis=1) * factor for factor in (1.4, 1.2, 1.0, 1.1, 1.5)])
    both = ("optimizer.weight_decay", values) if second else None
    return LRRangeResult(
        "lanes", "optimizer.learning_rate", RATES, losses, read_curve(RATES, losses), both, grid if second else None
    )


def xs(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata()).tolist()


def ys(line: Line2D) -> list[float]:
    return np.asarray(line.get_ydata()).tolist()


def labelled(figure: Figure) -> dict[str, object]:
    """Maps the labels of the legend to their artists."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    return dict(zip(labels, handles, strict=True))


def test_the_curve_has_its_band_interval_suggestion_and_edge():
    found = result(curve())
    reading = found.reading
    assert reading is not None
    assert reading.suggestion is not None
    assert reading.falling is not None
    assert reading.unstable is not None
    figure = found.plot()
    axes, artists = figure.axes[0], labelled(figure)
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("optimizer.learning_rate", "loss")
    assert isinstance(artists["10-90 % of seeds"], PolyCollection)
    interval = artists["the loss falls"]
    assert isinstance(interval, Rectangle)
    assert (interval.get_x(), interval.get_x() + interval.get_width()) == pytest.approx(reading.falling)
    edge = artists[f"unstable from {reading.unstable:.2g}"]
    assert isinstance(edge, Line2D)
    assert xs(edge) == [reading.unstable] * 2
    circle = artists[f"suggestion {reading.suggestion:.2g}"]
    assert isinstance(circle, Line2D)
    assert (circle.get_marker(), circle.get_color(), circle.get_markerfacecolor()) == ("o", "red", "none")
    assert xs(circle) == [reading.suggestion]
    median = artists["median"]
    assert isinstance(median, Line2D)
    height = np.interp(np.log(reading.suggestion), np.log(RATES), found.band[1])
    assert ys(circle) == pytest.approx([height])
    assert len(figure.legends) == 1


def test_a_blow_up_does_not_flatten_the_fall():
    """The drop takes more than half of the height, though the loss rises to 20 times its start."""
    figure = result(curve()).plot()
    low, high = figure.axes[0].get_ylim()
    assert 2.0 / (high - low) > 0.5
    assert low < 0.3
    assert high > 2.3


def test_one_seed_has_no_band():
    assert labelled(result(curve()[:, :1]).plot()).keys() >= {"loss", "the loss falls"}
    assert not {"10-90 % of seeds", "median"} & labelled(result(curve()[:, :1]).plot()).keys()


def test_rates_that_diverged_are_crosses():
    losses = curve()
    losses[-4:] = np.nan
    crosses = labelled(result(losses).plot())["diverged"]
    assert isinstance(crosses, Line2D)
    assert xs(crosses) == RATES[-4:].tolist()


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (curve(), "Range test by lanes, 36 rates, 3 seeds"),
        (np.full((36, 3), np.nan), "every lane diverged"),
        (np.full((36, 1), 2.3), "1 seed: no rate lowers the loss"),
        (apart(), "the rules disagree"),
    ],
)
def test_the_title_says_how_it_went(losses, said):
    figure = result(losses).plot()
    assert said in figure.axes[0].get_title(loc="left")
    render(figure)


def test_a_second_float_gives_a_heat_map_with_the_suggestion_on_its_best_row():
    """Cells surround their values on logarithmic axes, including the first and last."""
    found = result(curve(), second=True)
    assert found.second is not None
    figure = found.plot()
    axes = figure.axes[1]
    (mesh,) = [artist for artist in axes.collections if isinstance(artist, QuadMesh)]
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).reshape(5, 36), found.grid)
    corners = np.asarray(mesh.get_coordinates())
    for edges, values in ((corners[0, :, 0], RATES), (corners[:, 0, 1], found.second[1])):
        np.testing.assert_allclose(np.sqrt(edges[1:] * edges[:-1]), values)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_ylabel() == "optimizer.weight_decay"
    (circle,) = axes.lines
    assert (xs(circle), ys(circle)) == ([found.suggestion], [found.second[1][2]])
    assert "optimizer.weight_decay 0.01" in figure.axes[0].get_ylabel()


def test_a_heat_map_with_lanes_that_diverged_is_drawn():
    found = result(curve(), second=True)
    assert found.grid is not None
    grid = found.grid.copy()
    grid[:, -3:] = np.inf
    figure = dataclasses.replace(found, grid=grid).plot()
    assert "grey: diverged" in figure.axes[1].get_title(loc="left")
    render(figure)


def test_a_picture_says_its_own_size():
    picture = render(result(curve()).plot(), dpi=50)
    assert struct.unpack(">II", picture.png[16:24]) == (picture.width, picture.height)


# Schedules


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_schedule_has_a_panel_with_its_own_numbers_over_steps_and_epochs(count: int):
    steps = np.arange(100)
    values = {f"optimizer.float_{place}": np.sin(steps / (place + 1)) for place in range(count)}
    figure = plot_schedules(steps, values, steps_per_epoch=25.0)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(values)
    for axes, curve in zip(figure.axes, values.values(), strict=True):
        (line,) = axes.lines
        assert (xs(line), ys(line)) == (steps.tolist(), curve.tolist())
    render(figure)
    lowest = {axes.get_position().x0: axes for axes in figure.axes}  # the last of each column
    assert all(axes.get_xlabel() == "step" for axes in lowest.values())
    (upper,) = figure.axes[0].child_axes
    assert upper.get_xlabel() == "epoch"
    assert np.allclose(upper.get_xlim(), np.asarray(figure.axes[0].get_xlim()) / 25.0)


def test_a_run_of_one_step_is_a_point():
    figure = plot_schedules(np.array([0]), {"optimizer.learning_rate": np.array([0.1])}, 1.0)
    assert figure.axes[0].lines[0].get_marker() == "o"
