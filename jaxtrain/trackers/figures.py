"""Renders matplotlib figures as PNG pictures."""

import io
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Picture(NamedTuple):
    """A PNG image and its size in pixels."""

    png: bytes
    width: int
    height: int


def render(figure: "Figure", dpi: int = 120) -> Picture:
    """Renders a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return Picture(buffer.getvalue(), *(round(inches * dpi) for inches in figure.get_size_inches()))
