"""Sizes and texts that the figures of all reports share."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 8.5
"""Width of a figure in inches; one of many dimensions is wider."""


COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Colours of lines that most people with a colour deficiency tell apart (Okabe and Ito), without yellow."""

DASHES = ("solid", (0, (5, 1.6)), (0, (6, 1.6, 1.4, 1.6)), (0, (1.4, 1.2)))
"""Dashes of lines, so that they are told apart without colours, too."""


def new_figure(height: float, width: float = WIDTH) -> "Figure":
    """Returns an empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def format_value(value: Any) -> str:
    """Formats a value of a config or a result in few characters and one line."""
    if isinstance(value, float):
        if 1e4 <= abs(value) < 1e9:
            return f"{value:,.0f}"
        return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e+")
    return " ".join(str(value).split()) or "''"


def shorten(text: str, length: int = 22) -> str:
    """Shortens a text for a figure, and escapes dollar signs, which would start a formula."""
    cut = text if len(text) <= length else text[: length - 1] + "…"
    return cut.replace("$", r"\$")
