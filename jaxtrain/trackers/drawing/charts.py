"""Draws curves and points in axes, beside each other."""

import math

import numpy as np
from PIL import Image, ImageDraw

from jaxtrain.core.pictures import Chart, Curve
from jaxtrain.trackers.drawing.canvas import (
    COLOURS,
    GREY,
    INK,
    PALE,
    TEXT,
    TITLE,
    WHITE,
    fit_text,
    font,
    new_canvas,
    rotated_text,
    text_width,
)

SIDE = 340
LEFT = 102
RIGHT = 18
TOP = TITLE + 20
BOTTOM = 54
TICK = 5
LABEL_GAP = 8
SMOOTH = 3
"""Lines and points are drawn larger by this factor and shrunk, which smooths their edges."""

LEGEND_LINE = TEXT + 5


def draw_charts(charts: tuple[Chart, ...]) -> Image.Image:
    """Draws charts of one size beside each other; names of curves stand below."""
    names = max(sum(bool(curve.name) for curve in chart.curves) for chart in charts)
    height = TOP + SIDE + BOTTOM + (names * LEGEND_LINE + 6 if names else 0)
    width = LEFT + SIDE + RIGHT
    canvas, _ = new_canvas(width * len(charts), height)
    for i, chart in enumerate(charts):
        canvas.paste(_draw_chart(chart, width, height), (i * width, 0))
    return canvas


def _draw_chart(chart: Chart, width: int, height: int) -> Image.Image:
    canvas, pen = new_canvas(width, height)
    pen.text((LEFT, 8), fit_text(chart.title, SIDE, TITLE), font=font(TITLE), fill=INK)
    x_limits = chart.x_limits or _limits(chart, 0)
    y_limits = chart.y_limits or _limits(chart, 1)
    if chart.reference == "diagonal" and not (chart.x_limits or chart.y_limits):
        x_limits = y_limits = min(x_limits[0], y_limits[0]), max(x_limits[1], y_limits[1])
    canvas.paste(_plot(chart, x_limits, y_limits), (LEFT, TOP))
    _draw_axes(canvas, pen, chart, x_limits, y_limits)
    _draw_names(pen, chart)
    return canvas


def _limits(chart: Chart, axis: int) -> tuple[float, float]:
    """Returns the range of the finite values of all curves, with a margin of 5 %."""
    values = np.concatenate([np.asarray(curve.y if axis else curve.x, np.float64).ravel() for curve in chart.curves])
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.5 * max(abs(high), 1e-12)
    return low - margin, high + margin


def _plot(chart: Chart, x_limits: tuple[float, float], y_limits: tuple[float, float]) -> Image.Image:
    """Draws what lies inside the axes."""
    side = SIDE * SMOOTH
    image = Image.new("RGB", (side, side), WHITE)
    pen = ImageDraw.Draw(image)

    def place(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
        share = (np.asarray(values, np.float64) - limits[0]) / max(limits[1] - limits[0], 1e-300)
        return np.clip(share, -1, 2) * side

    for value in ticks(*x_limits):
        at = float(place(np.array(value), x_limits))
        pen.line(((at, 0), (at, side)), fill=PALE, width=SMOOTH)
    for value in ticks(*y_limits):
        at = side - float(place(np.array(value), y_limits))
        pen.line(((0, at), (side, at)), fill=PALE, width=SMOOTH)
    if chart.reference is not None:
        ends = np.array(x_limits)
        heights = ends if chart.reference == "diagonal" else np.zeros(2)
        _draw_line(pen, place(ends, x_limits), side - place(heights, y_limits), GREY, SMOOTH)
    for curve, colour in zip(chart.curves, _colours(chart), strict=True):
        finite = np.isfinite(np.asarray(curve.x, np.float64)) & np.isfinite(np.asarray(curve.y, np.float64))
        xs = place(np.asarray(curve.x)[finite], x_limits)
        ys = side - place(np.asarray(curve.y)[finite], y_limits)
        if curve.points:
            _draw_points(pen, xs, ys, colour)
        else:
            _draw_line(pen, xs, ys, colour, 2 * SMOOTH)
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def _colours(chart: Chart) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    named = 0
    for curve in chart.curves:
        if curve.name or not found:
            found.append(COLOURS[named % len(COLOURS)])
            named += 1
        else:
            found.append(found[-1])
    return found


def _draw_line(
    pen: ImageDraw.ImageDraw, xs: np.ndarray, ys: np.ndarray, colour: tuple[int, int, int], width: int
) -> None:
    if len(xs) > 1:
        pen.line([(float(x), float(y)) for x, y in zip(xs, ys, strict=True)], fill=colour, width=width, joint="curve")
    elif len(xs):
        _draw_points(pen, xs, ys, colour)


def _draw_points(pen: ImageDraw.ImageDraw, xs: np.ndarray, ys: np.ndarray, colour: tuple[int, int, int]) -> None:
    radius = SMOOTH * (3.5 if len(xs) <= 50 else 2.2 if len(xs) <= 500 else 1.4)
    for x, y in zip(xs, ys, strict=True):
        pen.ellipse(((float(x) - radius, float(y) - radius), (float(x) + radius, float(y) + radius)), fill=colour)


def ticks(low: float, high: float) -> list[float]:
    """Returns three to seven round numbers within a range."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    raw = span / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def tick_labels(values: list[float]) -> list[str]:
    """Returns short texts for the values of ticks, with as many digits as tell them apart."""
    largest = max(map(abs, values), default=0.0)
    if 1 <= largest < 1e7 and all(abs(value - round(value)) < 1e-6 for value in values):
        return [f"{round(value):,}" for value in values]
    for digits in range(1, 8):
        labels = [f"{0.0 if abs(value) < 1e-9 * largest else value:.{digits}g}" for value in values]
        pairs = zip(labels, values, strict=True)
        if all(abs(float(label) - value) <= 1e-6 * largest for label, value in pairs):
            return labels
    return [f"{value:.8g}" for value in values]


def _draw_axes(
    canvas: Image.Image,
    pen: ImageDraw.ImageDraw,
    chart: Chart,
    x_limits: tuple[float, float],
    y_limits: tuple[float, float],
) -> None:
    bottom = TOP + SIDE
    pen.rectangle(((LEFT - 1, TOP - 1), (LEFT + SIDE, bottom)), outline=GREY)
    values = ticks(*x_limits)
    for value, label in zip(values, tick_labels(values), strict=True):
        x = LEFT + (value - x_limits[0]) / (x_limits[1] - x_limits[0]) * SIDE
        pen.line(((x, bottom), (x, bottom + TICK)), fill=GREY)
        pen.text((x, bottom + TICK + 2), label, font=font(TEXT - 1), fill=INK, anchor="ma")
    values = ticks(*y_limits)
    labels = tick_labels(values)
    for value, label in zip(values, labels, strict=True):
        y = bottom - (value - y_limits[0]) / (y_limits[1] - y_limits[0]) * SIDE
        pen.line(((LEFT - TICK - 1, y), (LEFT - 1, y)), fill=GREY)
        pen.text((LEFT - TICK - 4, y), label, font=font(TEXT - 1), fill=INK, anchor="rm")
    x_label = fit_text(chart.x_label, SIDE)
    pen.text((LEFT + (SIDE - text_width(x_label)) / 2, bottom + 28), x_label, font=font(TEXT), fill=INK)
    label = rotated_text(fit_text(chart.y_label, SIDE))
    beside_ticks = LEFT - TICK - 4 - max(text_width(tick, TEXT - 1) for tick in labels) - LABEL_GAP - label.width
    canvas.paste(label, (max(0, round(beside_ticks)), round(TOP + (SIDE - label.height) / 2)))


def _draw_names(pen: ImageDraw.ImageDraw, chart: Chart) -> None:
    y = TOP + SIDE + BOTTOM
    named: list[tuple[Curve, tuple[int, int, int]]] = list(zip(chart.curves, _colours(chart), strict=True))
    for curve, colour in named:
        if not curve.name:
            continue
        middle = y + TEXT / 2 + 2
        if curve.points:
            pen.ellipse(((LEFT + 8, middle - 4), (LEFT + 16, middle + 4)), fill=colour)
        else:
            pen.line(((LEFT, middle), (LEFT + 24, middle)), fill=colour, width=3)
        pen.text((LEFT + 32, y), fit_text(curve.name, SIDE - 32), font=font(TEXT), fill=INK)
        y += LEGEND_LINE
