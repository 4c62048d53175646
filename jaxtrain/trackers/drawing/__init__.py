"""Draws descriptions of pictures (`core/pictures.py`) as PNG, with Pillow alone: it takes milliseconds a picture."""

import io

from jaxtrain.core.pictures import Chart, Charts, Matrix, Panels
from jaxtrain.errors import Words, message
from jaxtrain.trackers.figures import Picture


def draw(description: Panels | Chart | Charts | Matrix) -> Picture:
    """Draws a description; raises TypeError for something else."""
    from jaxtrain.trackers.drawing.charts import draw_charts
    from jaxtrain.trackers.drawing.matrix import draw_matrix
    from jaxtrain.trackers.drawing.panels import draw_panels

    if isinstance(description, Panels):
        image = draw_panels(description)
    elif isinstance(description, Chart):
        image = draw_charts((description,))
    elif isinstance(description, Charts):
        image = draw_charts(description.charts)
    elif isinstance(description, Matrix):
        image = draw_matrix(description)
    else:
        expected = "a description of jaxtrain.core.pictures, such as Panels"
        raise TypeError(message("picture", Words(f"a {type(description).__name__}"), expected))
    buffer = io.BytesIO()
    image.save(buffer, format="png", compress_level=1)  # 6 takes up to three times as long and saves an eighth at most
    return Picture(buffer.getvalue(), *image.size)
