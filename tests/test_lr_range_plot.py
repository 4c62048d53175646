"""The plot of a range test shows all parts of the result at the right places."""

import struct

import numpy as np
import pytest
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from jaxtrain.commands.plan import plot_schedules
from jaxtrain.lr_range.curves import Curve
from jaxtrain.lr_range.result import LRRangeResult
from jaxtrain.lr_range.suggestion import read_lanes, read_ramp
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


def result(losses: np.ndarray, second: bool = False, method: str = "lanes") -> LRRangeResult:
    """A result of lanes of 60 and 240 steps with these losses, those of the shorter a fifth higher."""
    lengths = ((60, 1.2), (240, 1.0)) if method == "lanes" else ((36, 1.0),)
    values = np.geomspace(1e-4, 1.0, 5)
    factors = (1.4, 1.2, 1.0, 1.1, 1.5) if second else (1.0,)
    rows = tuple(tuple(Curve(steps, RATES, losses * (high * by)) for steps, high in lengths) for by in factors)
    untrained = np.full(3, 2.3)
    readings = tuple(read_lanes(row, untrained, 900) if method == "lanes" else read_ramp(row[0]) for row in rows)
    both = ("optimizer.weight_decay", values) if second else None
    about = "digits-1a2b3c4d, digits, classification: validation loss after 60, 240 steps, for a run of 900"
    return LRRangeResult(method, "optimizer.learning_rate", rows, readings, both, 900, about)


def xs(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata()).tolist()


def ys(line: Line2D) -> list[float]:
    return np.asarray(line.get_ydata()).tolist()


def labelled(figure: Figure) -> dict[str, object]:
    """Maps the labels of the legend to their artists."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    return dict(zip(labels, handles, strict=True))


def test_the_picture_has_each_length_each_seed_the_suggestion_its_interval_and_other_rules():
    found = result(curve())
    reading = found.reading
    assert reading is not None
    assert reading.suggestion is not None
    assert reading.interval is not None
    assert reading.unstable is not None
    figure = found.plot()
    axes, artists = figure.axes[0], labelled(figure)
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("optimizer.learning_rate", "loss")
    assert {"60 steps", "240 steps", "3 seeds"} <= artists.keys()
    interval = artists[f"90 %: {reading.interval[0]:.2g} to {reading.interval[1]:.2g}"]
    assert isinstance(interval, Rectangle)
    assert (interval.get_x(), interval.get_x() + interval.get_width()) == pytest.approx(reading.interval)
    edge = artists[f"unstable from {reading.unstable:.2g}"]
    assert isinstance(edge, Line2D)
    assert xs(edge) == [reading.unstable] * 2
    circle = artists[f"suggestion {reading.suggestion:.2g}"]
    assert isinstance(circle, Line2D)
    assert (circle.get_marker(), circle.get_color(), circle.get_markerfacecolor()) == ("o", "red", "none")
    assert xs(circle) == [reading.suggestion]
    height = np.interp(np.log(reading.suggestion), np.log(RATES), found.curves[-1].median)
    assert ys(circle) == pytest.approx([height])
    assert {text.get_text() for text in axes.texts} == set(reading.rules)
    marked = {xs(line)[0] for line in axes.lines if line.get_marker() == "^"}
    assert marked == set(reading.rules.values())
    assert len(figure.legends) == 1


def test_three_seeds_are_lines_and_ten_are_a_band_of_quantiles():
    three = [line for line in result(curve()).plot().axes[0].lines if line.get_linewidth() == 0.7]
    assert [ys(line)[0] for line in three] == pytest.approx(curve()[0].tolist())
    many = labelled(result(np.repeat(curve(), 4, axis=1)).plot())
    assert isinstance(many["10-90 % of 12 seeds"], PolyCollection)
    assert "3 seeds" not in many


def test_a_ramp_is_drawn_raw_and_smoothed():
    artists = labelled(result(curve(), method="ramp").plot())
    assert {"raw", "smoothed"} <= artists.keys()
    smoothed = artists["smoothed"]
    assert isinstance(smoothed, Line2D)
    assert not np.allclose(ys(smoothed), np.median(curve(), axis=1))


def test_a_blow_up_does_not_flatten_the_fall():
    """The drop takes more than half of the height, though the loss rises to 20 times its start."""
    figure = result(curve()).plot()
    low, high = figure.axes[0].get_ylim()
    assert 2.0 / (high - low) > 0.5
    assert low < 0.3
    assert high > 2.3


def test_rates_that_diverged_are_crosses():
    losses = curve()
    losses[-4:] = np.nan
    crosses = labelled(result(losses).plot())["diverged"]
    assert isinstance(crosses, Line2D)
    assert xs(crosses) == RATES[-4:].tolist()


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (curve(), "digits-1a2b3c4d, digits, classification: validation loss after 60, 240 steps"),
        (np.full((36, 3), np.nan), "every lane diverged"),
        (np.full((36, 1), 2.3), "1 seed: no rate lowers the loss"),
        (apart(), "not reliable"),
    ],
)
def test_the_title_says_how_it_went(losses, said):
    figure = result(losses).plot()
    assert said in figure.get_suptitle().replace("\n", " ")
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
    path, circle = axes.lines
    assert xs(path) == [reading.suggestion for reading in found.readings if reading]
    assert (xs(circle), ys(circle)) == ([found.suggestion], [found.second[1][2]])
    assert "optimizer.weight_decay 0.01" in figure.axes[0].get_ylabel()


def test_a_heat_map_with_lanes_that_diverged_is_drawn():
    losses = curve()
    losses[-3:] = np.nan
    figure = result(losses, second=True).plot()
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
