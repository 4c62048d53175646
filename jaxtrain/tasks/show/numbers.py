"""Looks at regressions: predictions against targets, and what is left between them."""

import functools

import numpy as np

from jaxtrain.core.pictures import Chart, Charts, Curve, Description, Panel, Panels
from jaxtrain.data.info import DataInfo
from jaxtrain.tasks.show.views import Views, picture_of

MOST_OUTPUTS = 6
MOST_POINTS = 1_000


def views_of_numbers(info: DataInfo) -> Views:
    """Returns the views of numbers, in the targets' own units."""
    outputs = int(np.prod(info.target_shape, dtype=np.int64))
    names = info.target_names if len(info.target_names) == outputs else ()
    names = names or (("target",) if outputs == 1 else tuple(f"target {i}" for i in range(outputs)))
    return Views(functools.partial(_show, names=names), functools.partial(_summarise, names=names), _wrongness)


def _show(
    inputs: np.ndarray, targets: np.ndarray, predictions: np.ndarray, names: tuple[str, ...]
) -> Panels | dict[str, Description]:
    if len(inputs) and picture_of(inputs[0]) is None:
        return _summarise(targets, predictions, names)
    columns = _columns(targets), _columns(predictions)
    panels = [
        Panel(picture_of(example), (f"true: {_in_words(true)}", f"says: {_in_words(said)}"))
        for example, true, said in zip(inputs, *columns, strict=True)
    ]
    return Panels("Numbers", tuple(panels))


def _in_words(row: np.ndarray) -> str:
    return ", ".join(map(_readable, row))


def _readable(value: float) -> str:
    """Writes a number to four digits, a large one as a whole number."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def _columns(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float64).reshape(len(values), -1)


def _summarise(targets: np.ndarray, predictions: np.ndarray, names: tuple[str, ...]) -> dict[str, Description]:
    true = _columns(targets)
    said = _columns(predictions)
    several = len(names) > 1
    return {
        f"predictions of {name}" if several else "predictions": _charts(true[:, i], said[:, i], name)
        for i, name in enumerate(names[:MOST_OUTPUTS])
    }


def _charts(true: np.ndarray, said: np.ndarray, name: str) -> Charts:
    """Draws predictions, and residuals, of one output against its target, evenly spaced examples of many."""
    residuals = said - true
    deviation = float(np.sqrt(np.mean(np.square(residuals))))
    explained = 1 - np.square(residuals).sum() / max(float(np.square(true - true.mean()).sum()), 1e-300)
    places = np.unique(np.linspace(0, len(true) - 1, min(len(true), MOST_POINTS)).astype(int))
    x = true[places]
    scatter = Curve(f"{len(true):,} examples, R² {explained:.3f}", x, said[places], points=True)
    rest = Curve(f"root mean square {_readable(deviation)}", x, residuals[places], points=True)
    unit = f"true {name}, in its unit"
    return Charts(
        (
            Chart(f"Predictions of {name}", unit, f"predicted {name}, in its unit", (scatter,), "diagonal"),
            Chart("Residuals", unit, "predicted minus true", (rest,), "zero"),
        )
    )


def _wrongness(targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Returns the distance of a prediction, each output in standard deviations of its targets."""
    true = _columns(targets)
    spread = np.maximum(true.std(axis=0), 1e-300)
    return np.sqrt(np.square((_columns(predictions) - true) / spread).sum(axis=1))
