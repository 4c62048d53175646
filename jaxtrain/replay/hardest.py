"""The rows of a batch that were hardest in a step: their places in the data, their losses, and a picture of them."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtrain.core.pictures import Panels
from jaxtrain.core.state import TrainState
from jaxtrain.core.steps import predict_step
from jaxtrain.data.fields import read_rows
from jaxtrain.replay.look import Look
from jaxtrain.replay.origin import compiled
from jaxtrain.replay.recorded import Recorded
from jaxtrain.tasks import views_of
from jaxtrain.trackers.drawing import draw

MOST = 8
"""Rows that are shown."""


class HardRow(NamedTuple):
    """A row of a batch.

    place: its index in the batch; example: its index in the training split; row: that in the source of the data; loss:
    its own, None where it is not known; finite: whether the step makes its values finite.
    """

    place: int
    example: int
    row: int
    loss: float | None
    finite: bool


def hardest_rows(run: Recorded, look: Look, examples: np.ndarray) -> list[HardRow]:
    """Returns the rows that made values which are not finite, else those of the largest losses; at most MOST.

    Empty where neither is known. `examples` are the indices of the batch in the training split.
    """
    bad = list(look.origin.rows) if look.origin else []
    losses = look.row_losses
    if not bad and losses is None:
        return []
    places = bad or np.argsort(-np.asarray(losses), kind="stable").tolist()
    chosen = np.asarray(places[:MOST])
    rows = run.dataset.parts["train"].source_rows(examples[chosen])
    return [
        HardRow(int(p), int(e), int(r), None if losses is None else float(losses[p]), finite=not bad)
        for p, e, r in zip(chosen, examples[chosen], rows, strict=True)
    ]


def draw_rows(run: Recorded, state: TrainState, batch: Mapping[str, Any], rows: Sequence[HardRow]) -> bytes | None:
    """Draws rows as the task shows examples, with what the state before the step predicts; None if it shows none."""
    experiment = run.experiment
    info = run.dataset.info
    views = views_of(experiment.config, info, experiment.hparams)
    if views.show is None or not rows:
        return None
    part = run.dataset.parts["train"]
    inputs, targets = (read_rows(f, np.array([r.row for r in rows])) for f in (part.split.inputs, part.split.targets))
    seen = np.asarray(batch["inputs"])[[row.place for row in rows]]
    predict = compiled(functools.partial(predict_step, rules=experiment.rules))
    predictions = jax.device_get(predict(state, seen))
    predictions = info.restore_targets(predictions) if info.standardised else predictions
    with np.errstate(all="ignore"):  # a run that diverges predicts what is not finite
        shown = views.show(inputs, targets, predictions)
    if not isinstance(shown, Panels):
        return None
    panels = [panel._replace(lines=(_line(row), *panel.lines)) for panel, row in zip(shown.panels, rows, strict=True)]
    title = f"The hardest rows of step {int(state.step):,}, before augmentation"
    return draw(shown._replace(title=title, panels=tuple(panels))).png


def _line(row: HardRow) -> str:
    return f"row {row.row}" + (f": {row.loss:.4g}" if row.loss is not None else "")
