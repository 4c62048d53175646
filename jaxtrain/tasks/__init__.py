"""Tasks: what is learned, as three pure functions made from a model, a loss and the data's description."""

import functools
from typing import Any

from jaxtrain.config.defaults import Config, family
from jaxtrain.config.registry import Bound, Family, Values
from jaxtrain.core.precision import Module, Precision
from jaxtrain.core.state import Task
from jaxtrain.data.info import DataInfo
from jaxtrain.tasks.classification import binary_classification, classification, label_distribution
from jaxtrain.tasks.linen import linen_task
from jaxtrain.tasks.regression import regression
from jaxtrain.tasks.segmentation import segmentation

__all__ = ["TASKS", "linen_task", "make_task"]


def make_task(config: Config, info: DataInfo) -> Task:
    """Builds the task of a resolved config; the same object for configs that differ in floats alone."""
    bound = {name: family(name).bind(config[name]) for name in ("task", "model", "loss")}
    precision = Precision(config["train"]["precision"], config["train"]["matmul_precision"])
    return _made(bound["task"], bound["model"], bound["loss"], info, precision)


@functools.lru_cache(maxsize=256)
def _made(task: Bound, model: Bound, loss: Bound, info: DataInfo, precision: Precision) -> Task:
    """Rebuilds the member from the values of each call, like a model or an optimizer, so its floats arrive traced."""

    def module(values: Values, *supplied: Any) -> Module:
        return precision.wrap_module(model(values, *supplied))

    def built(values: Values) -> Task:
        return task(values, module, loss, info)

    return Task(
        init=precision.wrap_function(lambda key, batch, values: built(values).init(key, batch, values)),
        loss=precision.wrap_function(
            lambda params, model_state, batch, key, values, train: built(values).loss(
                params, model_state, batch, key, values, train
            )
        ),
        predict=precision.wrap_function(
            lambda params, model_state, inputs, values: built(values).predict(params, model_state, inputs, values)
        ),
    )


TASKS = Family(
    "task",
    {
        "classification": classification,
        "binary_classification": binary_classification,
        "label_distribution": label_distribution,
        "regression": regression,
        "segmentation": segmentation,
    },
    supplied=("model", "loss", "info"),
)
