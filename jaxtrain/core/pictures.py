"""Descriptions of pictures: data that say what a picture shows, and nothing of how it is drawn.

A task's function `show` returns one, or several by name; `trackers/drawing` draws them, on a thread of its own. All
arrays lie on the host.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

Side = Literal["truth", "prediction"]
"""Whether something is what the data say or what the model says: each has a colour and a line of its own."""


class Outline(NamedTuple):
    """The border of what a mask, bools or labels (height, width), marks in a picture."""

    mask: np.ndarray
    side: Side


class Box(NamedTuple):
    """A box in pixels, from its top left corner, with a short text above it."""

    y: float
    x: float
    height: float
    width: float
    side: Side
    text: str = ""


class Panel(NamedTuple):
    """One example: its picture (height, width) or (height, width, channels), and lines of text below it.

    Bytes of colours are drawn as they are; other numbers from black, the least of all examples, to white. `right` says
    whether the prediction is: it colours the frame and the text; None: neither.
    """

    image: np.ndarray | None
    lines: tuple[str, ...] = ()
    right: bool | None = None
    outlines: tuple[Outline, ...] = ()
    boxes: tuple[Box, ...] = ()


class Panels(NamedTuple):
    """Examples side by side, in rows of `columns`."""

    title: str
    panels: tuple[Panel, ...]
    columns: int = 4


class Curve(NamedTuple):
    """A line through points, or the points alone; one without a name has the colour of the one before it."""

    name: str
    x: np.ndarray
    y: np.ndarray
    points: bool = False


class Chart(NamedTuple):
    """Curves in one pair of axes, whose labels say the unit.

    `reference` adds a thin line: "diagonal" through equal values, "zero" at y = 0. Limits of None follow the data.
    """

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    reference: Literal["diagonal", "zero"] | None = None
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float] | None = None


class Charts(NamedTuple):
    """Charts beside each other."""

    charts: tuple[Chart, ...]


class Matrix(NamedTuple):
    """Counts (rows, columns), whose colours are shares of their row."""

    title: str
    values: np.ndarray
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    row_label: str
    column_label: str


Description = Panels | Chart | Charts | Matrix | str
"""A picture, or a text in Markdown."""

Shown = Description | Mapping[str, Description]
"""The value of a function `show`: one description, or several by name."""
