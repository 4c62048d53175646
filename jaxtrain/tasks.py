"""Tasks: what is learnt, as three pure functions made from a model, a loss and what the data say."""

import functools
import math
from collections.abc import Callable
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.config import Config, family
from jaxtrain.errors import DataError
from jaxtrain.families import Bound, Family, Values
from jaxtrain.knobs import Fraction
from jaxtrain.losses.classification import class_weights
from jaxtrain.metrics import METRICS, Mean
from jaxtrain.precision import Module, Precision
from jaxtrain.state import Batch, Task, stream

ModelFunction = Callable[..., Module]
"""(values, what the data say) -> the module, which computes in the precision of the config."""

LossFunction = Callable[[Values, jax.Array, jax.Array], jax.Array]
"""(values, predictions, targets) -> one number per example, of shape (batch,)."""


class Info(Protocol):
    """What a task asks of the data: the shapes of one example, the number of classes, the targets' statistics."""

    @property
    def classes(self) -> int | None: ...  # noqa: D102
    @property
    def target_shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def target_mean(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def target_std(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def class_counts(self) -> tuple[int, ...]: ...  # noqa: D102


def make_task(config: Config, info: Info) -> Task:
    """Builds the task of a resolved config; the same object for configs that differ in floats alone."""
    bound = {name: family(name).bind(config[name]) for name in ("task", "model", "loss")}
    precision = Precision(config["train"]["precision"], config["train"]["matmul_precision"])
    return _made(bound["task"], bound["model"], bound["loss"], info, precision)


@functools.lru_cache(maxsize=256)
def _made(task: Bound, model: Bound, loss: Bound, info: Info, precision: Precision) -> Task:
    """Rebuilds the member from the values of each call, like a model or an optimizer, so its floats arrive traced."""

    def module(values: Values, *supplied: Any) -> Module:
        return precision.applied(model(values, *supplied))

    def built(values: Values) -> Task:
        return task(values, module, loss, info)

    return Task(
        init=precision.traced(lambda key, batch, values: built(values).init(key, batch, values)),
        loss=precision.traced(
            lambda params, model_state, batch, key, values, train: built(values).loss(
                params, model_state, batch, key, values, train
            )
        ),
        predict=precision.traced(
            lambda params, model_state, inputs, values: built(values).predict(params, model_state, inputs, values)
        ),
    )


def classification(
    model: ModelFunction,
    loss: LossFunction,
    info: Info,
    class_balance: Fraction | None = None,
    metrics: tuple[str, ...] = ("accuracy",),
) -> Task:
    """Tells classes apart: the model gives a logit for each class, targets are labels from 0.

    `class_balance` weighs the loss of each class by the effective number of its training examples, whatever the loss:
    0 all alike, 0.999 or so as Cui et al. (2019), 1 by the inverse of their number; see `losses.class_weights`.
    """
    if info.classes is None or info.target_shape:
        raise DataError("task.name: given 'classification'; allowed: data with integer labels, one for each example")
    return linen_task(lambda values: model(values, info.classes), _class_balanced(loss, info, class_balance), metrics)


def binary_classification(
    model: ModelFunction,
    loss: LossFunction,
    info: Info,
    class_balance: Fraction | None = None,
    metrics: tuple[str, ...] = ("accuracy",),
) -> Task:
    """Says yes or no: the model gives a logit for each target of 0 or 1, which may be one, or a row of several labels.

    `class_balance` is that of `classification`, for one target an example.
    """
    shape = info.target_shape
    if (info.classes or 2) > 2:
        raise DataError(f"task.name: given 'binary_classification' of {info.classes} classes; allowed: labels 0 and 1")
    return linen_task(
        lambda values: model(values, math.prod(shape)),
        _class_balanced(loss, info, class_balance),
        metrics,
        shaped=lambda outputs: outputs.reshape(outputs.shape[0], *shape),
    )


def label_distribution(model: ModelFunction, loss: LossFunction, info: Info, metrics: tuple[str, ...] = ()) -> Task:
    """Predicts distributions: the model gives a logit for each class, targets are a row of probabilities an example."""
    if len(info.target_shape) != 1:
        raise DataError(
            f"task.name: given 'label_distribution' of targets {info.target_shape}; allowed: a row an example"
        )
    return linen_task(lambda values: model(values, *info.target_shape), loss, metrics)


def _class_balanced(loss: LossFunction, info: Info, beta: Any) -> LossFunction:
    """Weighs the loss of each example by its class; None leaves it as it is."""
    if beta is None:
        return loss
    if not info.class_counts:
        raise DataError("task.class_balance: given a float; allowed: None, where no example has a label of its own")

    def balanced(values: Values, predictions: jax.Array, targets: jax.Array) -> jax.Array:
        return loss(values, predictions, targets) * class_weights(np.asarray(info.class_counts), beta)[targets]

    return balanced


def regression(model: ModelFunction, loss: LossFunction, info: Info, metrics: tuple[str, ...] = ("mse", "r2")) -> Task:
    """Predicts numbers: the loss sees standardised targets, metrics and predictions are in the targets' own units."""
    shape = info.target_shape
    if len(info.target_mean) != math.prod(shape):
        raise DataError(f"task.name: given 'regression' of targets {shape}; allowed: one number, or a row, an example")
    mean, std = (np.asarray(numbers, np.float32).reshape(1, *shape) for numbers in (info.target_mean, info.target_std))

    def loss_of(values: Values, predictions: jax.Array, targets: jax.Array) -> jax.Array:
        return loss(values, predictions, (targets - mean) / std)

    return linen_task(
        lambda values: model(values, math.prod(shape)),
        loss_of,
        metrics,
        shaped=lambda outputs: outputs.reshape(outputs.shape[0], *shape),
        # About the mean, sums of squares stay accurate in float32 however far from 0 the targets lie.
        measured=lambda predictions, targets: (predictions * std, targets - mean),
        in_units=lambda predictions: predictions * std + mean,
        prepared=lambda targets: targets.astype(jnp.float32),
    )


def segmentation(model: ModelFunction, loss: LossFunction, info: Info, metrics: tuple[str, ...] = ("dice",)) -> Task:
    """Tells the regions of an image apart: a foreground, targets masks of 0 and 1, or classes, targets labels from 0.

    The model gives a logit for each pixel, or, where the data state more than two classes, one for each class.
    """
    classes = info.classes or 2
    axes = (classes,) if classes > 2 else ()
    return linen_task(
        lambda values: model(values, math.prod(axes)),
        loss,
        metrics,
        shaped=lambda outputs: outputs.reshape(outputs.shape[0], *info.target_shape, *axes),
    )


def linen_task(
    module: Callable[[Values], Module],
    loss: LossFunction,
    metrics: tuple[str, ...] = (),
    *,
    shaped: Callable[[jax.Array], jax.Array] = lambda outputs: outputs,
    prepared: Callable[[jax.Array], jax.Array] = lambda targets: targets,
    measured: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]] = lambda outputs, targets: (
        outputs,
        targets,
    ),
    in_units: Callable[[jax.Array], jax.Array] = lambda predictions: predictions,
) -> Task:
    """Makes a task of a Linen module, built inside the trace from this step's values, and a loss per example.

    `shaped` brings the module's outputs to the targets' shape and `prepared` the targets to the loss's type;
    `measured` is what metrics see of (predictions, targets), and `in_units` what `predict` returns.
    """
    functions = tuple((name, METRICS.member(name, "task.metrics")) for name in metrics)

    def init(key: jax.Array, batch: Batch, values: Values) -> tuple[Any, Any]:
        variables = dict(module(values).init({"params": key}, batch["inputs"], train=False))
        return variables.pop("params", {}), variables

    def loss_and_metrics(
        params: Any, model_state: Any, batch: Batch, key: jax.Array, values: Values, train: bool
    ) -> tuple[jax.Array, tuple[Any, dict[str, Mean]]]:
        variables, rngs = {"params": params, **model_state}, {"dropout": stream(key, "dropout")}
        mutable = list(model_state) if train else []
        found = module(values).apply(variables, batch["inputs"], train=train, rngs=rngs, mutable=mutable)
        outputs, changed = cast(tuple[jax.Array, dict[str, Any]], found)
        predictions, targets = shaped(outputs), prepared(batch["targets"])
        mask = batch.get("mask", jnp.ones(targets.shape[0], jnp.float32))
        total = Mean.of(loss(values, predictions, targets), mask)
        seen = measured(predictions, targets)
        judged = {name: function(*seen, mask) for name, function in functions}
        return total.sum / total.count, ({**model_state, **changed}, {"loss": total, **judged})

    def predict(params: Any, model_state: Any, inputs: jax.Array, values: Values) -> jax.Array:
        outputs = module(values).apply({"params": params, **model_state}, inputs, train=False)
        return in_units(shaped(cast(jax.Array, outputs)))

    return Task(init, loss_and_metrics, predict)


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
