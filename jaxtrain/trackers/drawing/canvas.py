"""Colours, fonts and texts of drawn pictures."""

import functools
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from jaxtrain.errors import printable

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

WHITE = (255, 255, 255)
INK = (30, 30, 30)
GREY = (130, 130, 130)
PALE = (225, 225, 225)
BLUE = (0, 114, 178)
ORANGE = (213, 94, 0)
SKY = (86, 180, 233)
COLOURS = (BLUE, (230, 159, 0), (0, 158, 115), (204, 121, 167), SKY, ORANGE, (140, 140, 0), INK)
"""Colours of Okabe and Ito, which colour-blind people tell apart; yellow is darkened for a white ground."""

TEXT = 13
TITLE = 15


@functools.cache
def font(size: int) -> "FreeTypeFont":
    """Returns matplotlib's DejaVu Sans, which has most alphabets, found without importing matplotlib."""
    places = getattr(find_spec("matplotlib"), "submodule_search_locations", None) or []
    for place in places:
        path = Path(place) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        try:
            return ImageFont.truetype(str(path), size)
        except OSError:
            continue
    default: Any = ImageFont.load_default(size)
    return default


def new_canvas(width: float, height: float) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Returns a white picture and what draws on it."""
    image = Image.new("RGB", (round(width), round(height)), WHITE)
    return image, ImageDraw.Draw(image)


@functools.lru_cache(2048)
def text_width(text: str, size: int = TEXT) -> float:
    """Returns the width of a text in pixels."""
    return font(size).getlength(text)


def fit_text(text: str, width: float, size: int = TEXT) -> str:
    """Returns a text of one line without control characters, cut to a width in pixels."""
    text = printable(text[: int(width)])  # more characters than pixels never fit
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def rotated_text(text: str, size: int = TEXT, colour: tuple[int, int, int] = INK) -> Image.Image:
    """Returns a text that reads from bottom to top, as a picture."""
    image, pen = new_canvas(text_width(text, size) + 2, 1.4 * size)
    pen.text((1, 0), text, font=font(size), fill=colour)
    return image.rotate(90, expand=True)
