"""Metrics of `eval.host`: what functions on the host compute from all predictions and targets of a split."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxtrain.config.defaults import Config
from jaxtrain.config.own_code import add_frames, text_of
from jaxtrain.core.metric import Mean, Metrics
from jaxtrain.core.metric_names import DIAGNOSTICS
from jaxtrain.core.state import TrainState
from jaxtrain.data.dataset import Dataset
from jaxtrain.errors import ConfigError, Words, one_of
from jaxtrain.tasks.metrics.on_host import HOST_METRICS
from jaxtrain.trackers.base import ROW_KEYS
from jaxtrain.training.experiment import Experiment


def measure_on_host(experiment: Experiment, state: TrainState, split: str) -> Metrics:
    """Returns the numbers of all functions of `eval.host` on a whole split, each as a metric counted once.

    Raises ConfigError where one raises, with its frames, or returns something else than {name: number}.
    """
    section = experiment.config["eval"]
    if not section["host"]:
        return {}
    predictions = experiment.predict(state, split)
    targets = experiment.dataset.targets(split)
    numbers: dict[str, Any] = {}
    once: Any = 1.0
    for name in section["host"]:
        found = _numbers(name, _call(name, predictions, targets))
        _demand_new(name, found, numbers)
        numbers |= found
    better = {section["metric"]: bool(section["higher_is_better"])}
    return {key: Mean(number, once, higher_is_better=better.get(key, False)) for key, number in numbers.items()}


def add_host_metrics(metrics: Metrics, on_host: Metrics, section: Config) -> Metrics:
    """Adds the metrics of `eval.host` to those of the task; `section` is `eval`.

    Raises ConfigError for a name of both, where `eval.metric` is in neither, and where its direction is missing or is
    given for a metric of the task, which has its own.
    """
    if not section["host"]:
        return metrics
    _demand_new("eval.host", on_host, {**metrics, **dict.fromkeys(ROW_KEYS)})
    metric = section["metric"]
    better = section["higher_is_better"]
    if metric not in metrics and metric not in on_host:
        names = (name for name in {**metrics, **on_host} if not name.startswith(DIAGNOSTICS))
        raise ConfigError("eval.metric", metric, one_of(names))
    if (metric in on_host) != (better is not None):
        expected = "True or False, for a number of eval.host" if better is None else "None, for a metric of the task"
        raise ConfigError("eval.higher_is_better", better, f"{expected}, with eval.metric={metric}")
    return {**metrics, **on_host}


def stack_lanes(lanes: Sequence[Metrics]) -> Metrics:
    """Stacks the metrics of lanes on a leading axis; what a lane lacks counts nothing there."""
    metrics = {name: metric for own in lanes for name, metric in own.items()}

    def stack(metric: Mean, name: str) -> Mean:
        own = [lane.get(name, metric.replace(sum=0.0, count=0.0)) for lane in lanes]
        return metric.replace(sum=np.array([m.sum for m in own]), count=np.array([m.count for m in own]))

    return {name: stack(metric, name) for name, metric in metrics.items()}


def check_host_metrics(
    config: Config, dataset: Dataset, state: TrainState, evaluate: Callable[[TrainState, str], Metrics]
) -> None:
    """Evaluates a state once before training, so that an error in a function of `eval.host` costs no training.

    Raises ConfigError where there is no split to evaluate.
    """
    if not config["eval"]["host"]:
        return
    split = next((name for name in ("validation", "test") if name in dataset.sizes), None)
    if split is None:
        expected = "() for data without a validation and a test split"
        raise ConfigError("eval.host", config["eval"]["host"], expected, "Set data.validation_fraction above 0")
    evaluate(state, split)


def _call(function: str, predictions: Any, targets: np.ndarray) -> Any:
    """Calls a function of `eval.host`; raises ConfigError with its frames where it raises."""
    member = HOST_METRICS.member(function)
    try:
        return member(predictions, targets)
    except ConfigError:  # of our own members
        raise
    except Exception as error:
        raised = f"{type(error).__name__}: {text_of(error)}".rstrip(": ")
        got = Words(f"{function!r}, which raises {raised}")
        explained = ConfigError("eval.host", got, "a function of (predictions, targets) that returns {name: number}")
        raise add_frames(explained, error) from error


def _numbers(function: str, found: Any) -> dict[str, float]:
    """Returns what a function of `eval.host` returned; raises ConfigError for something else than {name: number}."""
    expected = f"{{name: number}} from {function}"
    if not isinstance(found, Mapping):
        raise ConfigError("eval.host", Words(f"a {type(found).__name__}"), expected)
    for name, value in found.items():
        if not isinstance(name, str) or not name or name.startswith(DIAGNOSTICS):
            hint = f"Start no name with {one_of(DIAGNOSTICS)}" if isinstance(name, str) and name else ""
            raise ConfigError("eval.host", Words(f"the name {name!r}"), expected, hint)
        if np.ndim(value) != 0 or np.asarray(value).dtype.kind not in "iuf":
            kind = f"an array of shape {np.shape(value)}" if np.ndim(value) else f"a {type(value).__name__}"
            raise ConfigError("eval.host", Words(f"{kind} under {name!r}"), expected, "Give each number its own name")
    return {str(name): float(value) for name, value in found.items()}


def _demand_new(function: str, found: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    if taken := sorted(found.keys() & known.keys()):
        got = Words(f"a second metric called {', '.join(taken)}")
        raise ConfigError("eval.host", got, "names that are new", f"Rename what {function} returns")
