"""Host-side bookkeeping (metric sums, best evaluation, elapsed time), saved as JSON with each checkpoint."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from jaxtrain.core.measures import NORMS_OF_UPDATES
from jaxtrain.core.metric import Mean, as_loss
from jaxtrain.core.metric_names import BY_LAYER, NORMS
from jaxtrain.tasks.metrics import OVER_CLASSES, OVER_TARGETS

Numbers = dict[str, float]


class Names(NamedTuple):
    """The names of classes, of the columns of targets, and of arrays of parameters; empty where there are none."""

    classes: Sequence[str] = ()
    targets: Sequence[str] = ()
    layers: Sequence[str] = ()


UNNAMED = Names()


@dataclass
class Bookkeeping:
    """Bookkeeping of a run; the fields are the keys of the JSON file.

    Attributes:
        info: description of the data, as `DataInfo.to_json` returns it.
        fingerprint: fingerprint of the data that the state was trained on.
        sums: name -> [sum, count] of each training metric since the last written row.
        best: step, metric and value of the best evaluation so far.
        last: split -> the numbers of its newest row.
        seconds: duration of the run over all sessions, in seconds.
        began: the step at which the run began: 0, or that of the run which it continues.
        total: the number of steps of the whole run; None in checkpoints of earlier versions.
        result: whether the state of the "best" evaluation or the "last" state counts as the result of the run.
        rows: the mark of the rows in metrics.jsonl at the time; None in checkpoints of earlier versions.
        edited: the files that were changed by others and accepted as they stood.
        skipped: the step, the rows of the training split and, of several runs, the lane of each skipped batch.
        folds: description of the data of each fold, where all are trained together.
        layers: the paths of the trained parameters, where norms are measured by layer; not saved.
    """

    info: dict[str, Any]
    fingerprint: str = ""
    sums: dict[str, list[Any]] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    last: dict[str, Numbers] = field(default_factory=dict)
    seconds: float = 0.0
    began: int = 0
    total: int | None = None
    result: str = "best"
    rows: dict[str, Any] | None = None
    edited: list[str] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    folds: list[dict[str, Any]] = field(default_factory=list)
    layers: Sequence[str] = ()

    @property
    def best_step(self) -> int | None:
        """The step whose state counts as the result of the run; None for the newest, also if it was never evaluated."""
        return self.best["step"] if self.best and self.result == "best" else None

    @property
    def names(self) -> Names:
        """The names of classes and of targets."""
        return Names(self.info.get("class_names", ()), self.info.get("target_names", ()), self.layers)

    def add(self, metrics: dict[str, Mean], steps: int) -> None:
        """Adds the metrics of a call, stacked over steps, in float64; norms are replaced by those of the last step.

        Steps are added one at a time, so that the sums do not depend on how a run is divided into calls.
        """
        for name, stacked in metrics.items():
            before = [0.0, 0.0] if name.startswith(NORMS) else self.sums.get(name, [0.0, 0.0])
            self.sums[name] = [
                _add_rows(total, np.asarray(rows)[:steps])
                for total, rows in zip(before, (stacked.sum, stacked.count), strict=True)
            ]

    def numbers(self, metrics: dict[str, Mean]) -> Numbers:
        """Computes the metrics from the sums; `metrics` provides the formula of each."""
        summed = {name: metrics[name].replace(sum=np.array(s), count=c) for name, (s, c) in self.sums.items()}
        return with_ratios(to_numbers(summed, self.names))

    def drain(self, metrics: dict[str, Mean]) -> Numbers:
        """Computes the metrics of a row and resets the sums."""
        numbers = self.numbers(metrics)
        self.sums = {}
        return numbers

    def update_best(self, step: int, metric: str, evaluated: Mean) -> bool:
        """Updates the best evaluation and returns whether this one is better; NaN never is."""
        value = evaluated.result()
        best = math.inf if self.best is None else as_loss(self.best["value"], evaluated.higher_is_better)
        improved = not math.isnan(value) and (self.best is None or evaluated.loss() < best)
        if improved:
            self.best = {"step": step, "metric": metric, "value": value}
        return improved

    def to_json(self) -> dict[str, Any]:
        """Returns a dict that JSON can represent exactly."""
        return {name: value for name, value in asdict(self).items() if name != "layers"}


def to_numbers(metrics: dict[str, Mean], names: Names = UNNAMED) -> Numbers:
    """Computes name -> number of each metric; a metric with several numbers gives "name/0", "name/1", ...

    The numbers of classes and targets are named by these, as in "f1_per_class/cat", if there are any.
    """
    return {
        _with_names(key, name, names): number
        for name, metric in metrics.items()
        for key, number in metric.numbers(name).items()
    }


def with_ratios(numbers: Numbers) -> Numbers:
    """Adds the norm of each layer's update over that of its parameters, as "norm_update_to_parameter/<layer>"."""
    update, parameter = (f"{name}/" for name in NORMS_OF_UPDATES)
    pairs = {name.removeprefix(update): value for name, value in numbers.items() if name.startswith(update)}
    ratios = {
        f"norm_update_to_parameter/{layer}": value / norm if (norm := numbers[parameter + layer]) else math.nan
        for layer, value in pairs.items()
    }
    return numbers | ratios


def _with_names(key: str, name: str, names: Names) -> str:
    """Replaces the places in the key of a metric over classes or targets by their names."""
    if name.endswith(BY_LAYER) and names.layers:
        return f"{name.removesuffix(BY_LAYER)}/{names.layers[int(key.rpartition('/')[2])]}"
    metric = name.rpartition("/")[2]
    own = names.classes if metric in OVER_CLASSES else names.targets if metric in OVER_TARGETS else ()
    if not own or key == name:
        return key  # one number, also nan where nothing was counted
    places = key.removeprefix(name).strip("/").split("/")
    return "/".join([name, *(own[int(place)] for place in places)])


def _add_rows(total: Any, rows: np.ndarray) -> Any:
    first = np.broadcast_to(np.asarray(total, np.float64), (1, *rows.shape[1:]))
    return np.cumsum(np.concatenate([first, rows]), axis=0)[-1].tolist()
