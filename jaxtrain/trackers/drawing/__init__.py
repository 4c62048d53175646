"""Draws descriptions of pictures (`core/pictures.py`) as PNG, with Pillow alone: it takes milliseconds a picture."""

from jaxtrain.core.pictures import Chart, Charts, Matrix, Panels
from jaxtrain.errors import Words, message
from jaxtrain.trackers.figures import Picture


def draw(description: Panels | Chart | Charts | Matrix) -> Picture:
    """Draws a description; raises TypeError for something else."""
    from jaxtrain.trackers.drawing.charts import draw_charts
    from jaxtrain.trackers.drawing.matrix import draw_matrix
    from jaxtrain.trackers.drawing.panels import draw_panels
    from jaxtrain.trackers.drawing.png import encode_png

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
    return Picture(encode_png(image), *image.size)
