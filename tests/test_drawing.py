"""Descriptions of pictures become PNG: what the pixels show."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxtrain.core.pictures import Box, Chart, Charts, Curve, Matrix, Outline, Panel, Panels
from jaxtrain.trackers.drawing import draw
from jaxtrain.trackers.drawing.canvas import BLUE, COLOURS, ORANGE, SKY, text_width
from jaxtrain.trackers.drawing.charts import LEFT, SIDE, TOP, tick_labels, ticks

RNG = np.random.default_rng(0)


def pixels(description) -> np.ndarray:
    picture = draw(description)
    image = Image.open(io.BytesIO(picture.png))
    assert image.size == (picture.width, picture.height)
    return np.asarray(image.convert("RGB"))


def count(image: np.ndarray, colour: tuple[int, ...]) -> int:
    return int((image == colour).all(axis=-1).sum())


def test_a_wrong_prediction_has_a_frame_of_another_colour_and_width():
    image = np.zeros((28, 28, 1), np.uint8)
    right, wrong = (pixels(Panels("", (Panel(image, (), own),))) for own in (True, False))
    frames = count(right, BLUE), count(wrong, ORANGE)
    assert frames[1] > 2 * frames[0] > 0
    assert count(pixels(Panels("", (Panel(image, (), None),))), BLUE) == 0


def test_small_pictures_are_magnified_by_whole_numbers_and_grey_ones_share_their_range():
    dim, bright = np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8, 1), np.uint8)
    dim[2, 3], bright[5, 6] = 8, 16
    image = pixels(Panels("", (Panel(dim), Panel(bright))))
    assert count(image, (127, 127, 127)) == count(image, (0, 0, 0)) // 126 == 16 * 16


def test_bytes_of_colours_are_drawn_as_they_are():
    image = np.zeros((16, 16, 3), np.uint8)
    image[...] = (10, 20, 30)
    assert count(pixels(Panels("", (Panel(image),))), (10, 20, 30)) == 128 * 128


@pytest.mark.parametrize("size", [(1, 1), (300, 20), (2, 900), (513, 257)])
def test_pictures_of_any_size_fit_into_their_places(size):
    image = RNG.integers(0, 255, (*size, 3)).astype(np.uint8)
    drawn = draw(Panels("title", (Panel(image, ("line",)),) * 5))
    assert drawn.width < 1_200
    assert drawn.height < 800


def test_outlines_and_boxes_have_the_colour_of_their_side():
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    grey = np.full((64, 64, 3), 90, np.uint8)
    image = pixels(Panels("", (Panel(grey, outlines=(Outline(mask, "truth"),)),)))
    assert count(image, SKY) > 4 * 40
    both = Panel(grey, outlines=(Outline(mask, "truth"), Outline(mask, "prediction")))
    image = pixels(Panels("", (both,)))
    assert count(image, ORANGE) > 0
    assert count(image, SKY) > 0, "dashes let the other line be seen"
    image = pixels(Panels("", (Panel(grey, boxes=(Box(10, 10, 20, 20, "prediction", "cell 0.9"),)),)))
    assert count(image, ORANGE) > 4 * 40


def test_a_curve_goes_through_its_points_and_a_diagonal_through_equal_values():
    chart = Chart("title", "x", "y", (Curve("line", np.array([0.0, 1.0]), np.array([0.25, 0.25])),), "diagonal")
    image = pixels(chart._replace(x_limits=(0.0, 1.0), y_limits=(0.0, 1.0)))
    inside = image[TOP : TOP + SIDE, LEFT : LEFT + SIDE]
    rows = np.flatnonzero((inside == COLOURS[0]).all(axis=-1).sum(axis=1) > SIDE / 2)
    assert rows == pytest.approx(0.75 * SIDE, abs=2)
    middle = inside[SIDE // 2 - 3 : SIDE // 2 + 3, SIDE // 2 - 3 : SIDE // 2 + 3]
    assert (middle < 200).any(), "the diagonal crosses the middle"


@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_the_label_of_an_axis_stands_beside_the_numbers_of_its_ticks(scale):
    values = np.linspace(-scale, scale, 9)
    picture = pixels(Chart("", "x", "share of right predictions", (Curve("", values, values),)))
    inked = np.flatnonzero((picture[TOP : TOP + SIDE, : LEFT - 10] < 200).any(axis=(0, 2)))
    gaps = np.diff(inked)
    assert 5 < gaps.max() < 14
    assert (gaps > 5).sum() == 1, "one between label and numbers"


def test_values_that_are_not_finite_and_empty_curves_are_left_out():
    bad = np.array([np.nan, np.inf, 1.0, -np.inf])
    curves = (Curve("a", bad, bad), Curve("b", np.array([]), np.array([])), Curve("c", bad, bad, points=True))
    assert draw(Chart("t", "x", "y", curves)).png
    assert draw(Charts((Chart("t", "x", "y", (Curve("a", np.array([]), np.array([])),)),))).png


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3e-9, 4e-9), (1e5, 1.3e5), (0.97, 1.0), (-1e300, 1e300), (5, 5), (1999.5, 2010)]
)
def test_ticks_are_few_round_numbers_with_labels_of_their_own(low, high):
    values = ticks(low, high)
    labels = tick_labels(values)
    assert 1 <= len(values) <= 7
    assert all(low - 1e-9 * abs(low) <= value <= high + 1e-9 * abs(high) for value in values)
    assert len(set(labels)) == len(labels)
    for value, label in zip(values, labels, strict=True):
        assert float(label.replace(",", "")) == pytest.approx(value, rel=1e-3, abs=(high - low) / 100)


def test_a_matrix_is_darker_where_more_of_a_row_lies():
    image = pixels(Matrix("t", np.array([[10, 0], [5, 5]]), ("a", "b"), ("a", "b"), "true", "said"))
    assert count(image, BLUE) > 300
    half = tuple(round(255 + (dark - 255) / 2) for dark in BLUE)
    assert 2 * 500 < count(image, half) <= 2 * 900


@pytest.mark.parametrize("classes", [1, 2, 10, 25, 26, 200, 1_000])
def test_a_matrix_of_any_number_of_classes_is_of_bounded_size(classes):
    names = tuple(f"the class with the number {i} and a long name" for i in range(classes))
    drawn = draw(Matrix("t", RNG.integers(0, 9, (classes, classes)), names, names, "true", "said"))
    limit = 1_100 if classes <= 200 else 3_200
    assert max(drawn.width, drawn.height) < limit
    assert len(drawn.png) < 1_000_000


def test_long_and_strange_texts_are_cut_and_made_printable():
    image = np.zeros((8, 8, 1), np.uint8)
    drawn = draw(Panels("a", (Panel(image, ("x" * 5_000, "line\nbreak\x1b[31m", "漢字 ≤ é")),)))
    assert drawn.width < 400
    assert text_width("é") > 0


def test_something_else_is_refused_by_name():
    with pytest.raises(TypeError, match="got a dict; expected a description"):
        draw({})  # pyright: ignore[reportArgumentType]


def test_drawing_imports_no_matplotlib():
    script = """
import sys
import numpy as np
from jaxtrain.core.pictures import Chart, Curve
from jaxtrain.trackers.drawing import draw
draw(Chart("t", "x", "y", (Curve("a", np.arange(3), np.arange(3)),)))
print("matplotlib" in sys.modules, "jax" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "False False\n", done.stderr
