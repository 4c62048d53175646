"""Draws a table of counts, such as a confusion matrix, as coloured cells."""

import numpy as np
from PIL import Image

from jaxtrain.core.pictures import Matrix
from jaxtrain.trackers.drawing.canvas import (
    BLUE,
    GREY,
    INK,
    TEXT,
    TITLE,
    WHITE,
    fit_text,
    font,
    new_canvas,
    rotated_text,
    text_width,
)

MOST_NUMBERS = 25
"""Rows up to which the count of each cell is written, and all have names beside them."""

LONGEST_NAME = 130
GAP = 10


def draw_matrix(description: Matrix) -> Image.Image:
    """Draws the cells, darker for a larger share of the row; counts and names where they fit."""
    values = np.asarray(description.values)
    rows, columns = values.shape
    written = max(rows, columns) <= MOST_NUMBERS
    given = (*description.row_names, *description.column_names) if written else ()
    names = [fit_text(name, LONGEST_NAME) for name in given]
    longest = max(map(text_width, names), default=0.0)
    digits = text_width(f"{int(values.max(initial=0))}") + 10
    cell = round(max(30.0, digits)) if written else max(3, 640 // max(rows, columns))
    beside = longest if written else text_width(str(max(rows, columns))) + 4
    left = round(beside + TEXT + 3 * GAP)
    top = TITLE + 3 * GAP
    width = max(left + columns * cell + GAP, text_width(description.title, TITLE) + 2 * GAP)
    note = "colour: share of the row, from white (0) to dark blue (1)"
    canvas, pen = new_canvas(
        max(width, text_width(note) + 2 * GAP), top + rows * cell + beside + 2 * TEXT + 5 * GAP + 4
    )
    pen.text((GAP, GAP), description.title, font=font(TITLE), fill=INK)
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    shades = np.rint(np.array(WHITE) + shares[..., None] * (np.array(BLUE) - WHITE)).astype(np.uint8)
    size = columns * cell, rows * cell
    canvas.paste(Image.fromarray(shades).resize(size, Image.Resampling.NEAREST), (left, top))
    for row, column in np.argwhere(values > 0) if written else ():
        colour = WHITE if shares[row, column] > 0.5 else INK
        middle = (left + (column + 0.5) * cell, top + (row + 0.5) * cell)
        pen.text(middle, f"{int(values[row, column])}", font=font(TEXT), fill=colour, anchor="mm")
    bottom = top + rows * cell
    pen.rectangle(((left - 1, top - 1), (left + columns * cell, bottom)), outline=GREY)
    step = 1 if written else max(1, -(-max(rows, columns) // 20))
    for row in range(0, rows, step):
        name = names[row] if written else str(row)
        pen.text((left - 6, top + (row + 0.5) * cell), name, font=font(TEXT), fill=INK, anchor="rm")
    for column in range(0, columns, step):
        label = rotated_text(names[rows + column] if written else str(column))
        canvas.paste(label, (round(left + (column + 0.5) * cell - label.width / 2), bottom + 4))
    below = bottom + beside + GAP
    pen.text((left, below), description.column_label, font=font(TEXT), fill=INK)
    pen.text((GAP, below + TEXT + GAP), note, font=font(TEXT - 1), fill=GREY)
    label = rotated_text(description.row_label)
    canvas.paste(label, (GAP, round(top + max(0, rows * cell - label.height) / 2)))
    return canvas
