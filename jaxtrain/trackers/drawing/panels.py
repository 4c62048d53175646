"""Draws examples side by side, with frames, outlines and boxes."""

import numpy as np
from PIL import Image, ImageDraw

from jaxtrain.core.pictures import Box, Outline, Panel, Panels, Side
from jaxtrain.trackers.drawing.canvas import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SKY,
    TEXT,
    TITLE,
    WHITE,
    fit_text,
    font,
    new_canvas,
    text_width,
)

SMALLEST = 128
LARGEST = 256
"""Pixels of the longer side of an example: smaller ones are magnified by a whole number, larger ones are shrunk."""

LEAST_WIDTH = 176
GAP = 8
FRAME = 3
LINE = TEXT + 5

COLOUR_OF: dict[Side, tuple[int, int, int]] = {"truth": SKY, "prediction": ORANGE}


def draw_panels(description: Panels) -> Image.Image:
    """Draws the title, the examples and a line that says what colours mean."""
    panels = description.panels
    limits = _limits(panels)
    images = [None if panel.image is None else _scaled(panel, limits) for panel in panels]
    size = [image.size for image in images if image is not None]
    width = max([LEAST_WIDTH, *(own for own, _ in size)]) + 2 * FRAME
    height = max([0, *(own for _, own in size)]) + 2 * FRAME + LINE * max([0, *(len(p.lines) for p in panels)]) + 2
    columns = max(1, min(description.columns, len(panels)))
    rows = -(-len(panels) // columns)
    legend = _legend(panels)
    top = TITLE + 2 * GAP
    title_width = text_width(description.title, TITLE) + 2 * GAP
    legend_width = sum(text_width(text) + 44 for _, text in legend) + GAP
    whole = max(columns * (width + GAP) + GAP, title_width, legend_width)
    bottom = LINE + GAP if legend else 0
    canvas, pen = new_canvas(whole, top + rows * (height + GAP) + bottom)
    pen.text((GAP, GAP), description.title, font=font(TITLE), fill=INK)
    for i, (panel, image) in enumerate(zip(panels, images, strict=True)):
        place = GAP + i % columns * (width + GAP), top + i // columns * (height + GAP)
        _draw_panel(canvas, pen, place, width, panel, image)
    _draw_legend(pen, top + rows * (height + GAP), legend)
    return canvas


def _draw_panel(
    canvas: Image.Image,
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    width: int,
    panel: Panel,
    image: Image.Image | None,
) -> None:
    x, y = place
    colour = INK if panel.right is None else BLUE if panel.right else ORANGE
    if image is not None:
        if panel.right is not None:
            thick = 1 if panel.right else FRAME
            edge = FRAME - thick
            corner = (x + image.width + 2 * FRAME - 1 - edge, y + image.height + 2 * FRAME - 1 - edge)
            pen.rectangle(((x + edge, y + edge), corner), outline=colour, width=thick)
        canvas.paste(image, (x + FRAME, y + FRAME))
        y += image.height + 2 * FRAME + 1
    for line in panel.lines:
        pen.text((x + 1, y), fit_text(line, width - 2), font=font(TEXT), fill=colour)
        y += LINE


def _scaled(panel: Panel, limits: tuple[float, float]) -> Image.Image:
    """Returns the picture of an example at the size at which it is drawn, with its outlines and boxes."""
    assert panel.image is not None
    pixels = _in_bytes(np.asarray(panel.image), limits)
    height, width = pixels.shape[:2]
    longer = max(height, width)
    factor = float(-(-SMALLEST // longer)) if longer < SMALLEST else min(1.0, LARGEST / longer)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    how = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
    image = Image.fromarray(pixels).convert("RGB").resize(size, how)
    for outline in panel.outlines:
        image = _outlined(image, outline)
    pen = ImageDraw.Draw(image)
    for box in panel.boxes:
        _draw_box(pen, box, factor)
    return image


def _limits(panels: tuple[Panel, ...]) -> tuple[float, float]:
    """Returns the numbers that are drawn black and white, the same for all examples: those of a byte for colours."""
    images = [np.asarray(panel.image) for panel in panels if panel.image is not None]
    if not images or (images[0].dtype == np.uint8 and images[0].ndim == 3 and images[0].shape[2] in COLOURED):
        return 0.0, 255.0
    finite = [image[np.isfinite(image)] for image in images]
    low = min((float(values.min()) for values in finite if values.size), default=0.0)
    high = max((float(values.max()) for values in finite if values.size), default=1.0)
    return low, high


COLOURED = (3, 4)
"""Numbers of channels of a picture in colours, without and with opacity."""


def _in_bytes(image: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Returns a picture as bytes (height, width) or (height, width, 3 or 4)."""
    if image.ndim == 3 and image.shape[2] not in COLOURED:
        image = image[..., 0]
    if image.dtype == np.uint8 and limits == (0.0, 255.0):
        return image
    low, high = limits
    values = np.nan_to_num(image.astype(np.float64), nan=low, posinf=high, neginf=low)
    return np.clip((values - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)


def _outlined(image: Image.Image, outline: Outline) -> Image.Image:
    """Draws the borders between the labels of a mask; those of a prediction are dashed."""
    labels = Image.fromarray(np.asarray(outline.mask).astype(np.int32)).resize(image.size, Image.Resampling.NEAREST)
    mask = np.asarray(labels)
    border = np.zeros(mask.shape, bool)
    border[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    border[1:] |= mask[1:] != mask[:-1]
    thick = border.copy()
    thick[:, :-1] |= border[:, 1:]
    thick[:-1] |= border[1:]
    if outline.side == "prediction":
        rows, columns = np.indices(mask.shape)
        thick &= (rows + columns) // 5 % 3 != 2
    pixels = np.array(image)
    pixels[thick] = COLOUR_OF[outline.side]
    return Image.fromarray(pixels)


def _draw_box(pen: ImageDraw.ImageDraw, box: Box, factor: float) -> None:
    corners = ((box.x * factor, box.y * factor), ((box.x + box.width) * factor - 1, (box.y + box.height) * factor - 1))
    (left, top), (right, bottom) = corners
    colour = COLOUR_OF[box.side]
    pen.rectangle(((left, top), (max(left, right), max(top, bottom))), outline=colour, width=2)
    if box.text:
        small = TEXT - 3
        above = max(0.0, top - small - 3)
        pen.rectangle(((left, above), (left + text_width(box.text, small) + 3, above + small + 2)), fill=colour)
        pen.text((left + 2, above), box.text, font=font(small), fill=WHITE if box.side == "prediction" else INK)


def _legend(panels: tuple[Panel, ...]) -> list[tuple[str, str]]:
    """Returns (kind, text) of what frames and lines mean, for those that there are."""
    found: list[tuple[str, str]] = []
    if any(panel.right is not None and panel.image is not None for panel in panels):
        found += [("right", "right"), ("wrong", "wrong")]
    sides = {mark.side for panel in panels for mark in (*panel.outlines, *panel.boxes)}
    return found + [(side, side) for side in ("truth", "prediction") if side in sides]


def _draw_legend(pen: ImageDraw.ImageDraw, y: float, legend: list[tuple[str, str]]) -> None:
    x = float(GAP)
    middle = y + LINE / 2 - 1
    for kind, text in legend:
        if kind in ("right", "wrong"):
            colour, thick = (BLUE, 1) if kind == "right" else (ORANGE, FRAME)
            pen.rectangle(((x, middle - 7), (x + 20, middle + 7)), outline=colour, width=thick)
        elif kind == "truth":
            pen.line(((x, middle), (x + 22, middle)), fill=SKY, width=3)
        else:
            for dash in range(3):
                pen.line(((x + 9 * dash, middle), (x + 9 * dash + 5, middle)), fill=ORANGE, width=3)
        pen.text((x + 28, y), text, font=font(TEXT), fill=GREY)
        x += text_width(text) + 44
