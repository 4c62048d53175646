"""Loss and metrics of predictions that are made already, without the model that made them."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxtrain.config.defaults import family
from jaxtrain.core.metric import Metrics, merge
from jaxtrain.data.info import DataInfo
from jaxtrain.tasks.metrics import METRICS
from jaxtrain.tasks.shapes import PerExample

MEASURED = frozenset(
    {
        *("classification", "binary_classification", "multi_label", "label_distribution"),
        *("regression", "segmentation", "detection", "language_modelling", "sequence_classification"),
    }
)
"""Tasks whose loss and metrics are functions of predictions and targets alone."""


class Measure:
    """Adds up the loss and the metrics of a config over predictions and targets, a piece at a time.

    It compiles one program, for `size` examples at once.
    """

    def __init__(self, config: Mapping[str, Any], info: DataInfo, size: int) -> None:
        """Takes a config of which the sections `task` and `loss` are read; see `is_measured`."""
        self._info = info
        self._size = size
        self._program = jax.jit(_metrics_of(config, info))
        self._total: Metrics | None = None

    @property
    def metrics(self) -> Metrics:
        """The sums and counts so far; empty where nothing was added."""
        return self._total or {}

    def add(self, predictions: np.ndarray, targets: np.ndarray) -> None:
        """Adds predictions (n, ...), as `Run.predict` returns them, and raw targets (n, ...)."""
        if self._info.standardised:
            predictions, targets = map(self._info.standardise_targets, (predictions, targets))
        elif targets.dtype.kind in "biu":
            targets = targets.astype(np.int32)
        else:
            targets = targets.astype(np.float32)
        for begin in range(0, len(targets), self._size):
            part = slice(begin, begin + self._size)
            self._add_padded(np.asarray(predictions[part], np.float32), targets[part])

    def _add_padded(self, predictions: np.ndarray, targets: np.ndarray) -> None:
        lacking = self._size - len(targets)
        mask = np.concatenate([np.ones(len(targets), np.float32), np.zeros(lacking, np.float32)])
        padded = (np.concatenate([a, np.zeros((lacking, *a.shape[1:]), a.dtype)]) for a in (predictions, targets))
        metrics = jax.device_get(self._program(*padded, mask))
        self._total = metrics if self._total is None else merge(self._total, metrics)


def is_measured(config: Mapping[str, Any]) -> bool:
    """Tells whether the loss and metrics of a config can be computed from predictions, by members of ours alone."""
    names = [config["loss"]["name"], *config["task"].get("metrics", ())]
    return config["task"]["name"] in MEASURED and not any(":" in name for name in names)


class _Given(nn.Module):
    """A model whose outputs are its inputs."""

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        return inputs


def _metrics_of(config: Mapping[str, Any], info: DataInfo) -> Callable[..., Metrics]:
    """Returns the function (predictions, targets, mask) -> metrics of a task whose model makes the predictions."""
    if info.box_classes is not None:
        return _metrics_of_boxes(config)
    bound = {name: family(name).bind(config[name]) for name in ("task", "loss")}
    values = {
        f"{section}.{knob}": np.float32(value)
        for section in bound
        for knob, value in config[section].items()
        if isinstance(value, float)
    }
    loss = PerExample(bound["loss"], bound["loss"].name)
    task = bound["task"](values, lambda *_: _Given(), loss, info)
    known = {} if info.void is None else {"void": info.void}

    def metrics_of(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Metrics:
        batch = {"inputs": predictions, "targets": targets, "mask": mask, **known}
        return task.loss({}, {}, batch, jax.random.key(0), values, False)[1][1]

    return metrics_of


def _metrics_of_boxes(config: Mapping[str, Any]) -> Callable[..., Metrics]:
    """Returns the metrics of detections; their loss is one of a model's outputs, not of its detections."""
    functions = {name: METRICS.member(name) for name in config["task"]["metrics"]}

    def metrics_of(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> Metrics:
        return {name: function(predictions, targets, mask) for name, function in functions.items()}

    return metrics_of
