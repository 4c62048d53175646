"""Pictures, drawn with matplotlib, which is imported when the first one is asked for."""

import io
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
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
