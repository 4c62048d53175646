"""Builds a task from a Linen module, a loss per example and metrics."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp

from jaxtrain.config.registry import Values
from jaxtrain.core.floats import float_type
from jaxtrain.core.metric import Mean
from jaxtrain.core.precision import Module
from jaxtrain.core.state import Batch, Task, stream
from jaxtrain.errors import ConfigError, Words
from jaxtrain.tasks.metrics import METRICS, measure
from jaxtrain.tasks.mixtures import main_targets, mixed_losses
from jaxtrain.tasks.shapes import PerExample, describe, name_of

ModelFunction = Callable[..., Module]
"""(values, number of outputs) -> the module, which computes in the precision of the config."""

LossFunction = Callable[[Values, jax.Array, jax.Array], jax.Array]
"""(values, predictions, targets) -> one loss per example, (batch,)."""


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
    known: Mapping[str, Callable[[jax.Array], jax.Array]] = {},
) -> Task:
    """Builds a task from a Linen module, made inside the trace from each step's values, and a loss per example.

    `shaped` reshapes the module's outputs to predictions, and `prepared` converts targets for the loss. `measured` maps
    (predictions, targets) to the arguments of the metrics, and `in_units` maps predictions to what `predict` returns.
    The framework puts the mean of float targets over the training split into the batch, as "target_mean" (1, ...):
    metrics with an argument `centre` get it, mapped like a target. `known` maps the names of other arguments to
    functions of the targets: metrics with such an argument get its value.

    When it is traced, the task raises ConfigError for a loss that is not one number for each example, and for outputs
    that `shaped` cannot reshape.
    """
    loss = PerExample(loss, name_of(loss))
    functions = tuple((name, METRICS.member(name)) for name in metrics)

    def reshape(outputs: Any) -> jax.Array:
        try:
            return shaped(outputs)
        except (AttributeError, TypeError) as error:
            got = Words(f"a model that returns {describe(outputs)}")
            raise ConfigError(
                "model.name", got, f"outputs that can be reshaped to fit the targets ({error})"
            ) from error

    def init(key: jax.Array, batch: Batch, values: Values) -> tuple[Any, Any]:
        variables = dict(module(values).init({"params": key}, batch["inputs"], train=False))
        return variables.pop("params", {}), variables

    def loss_and_metrics(
        params: Any, model_state: Any, batch: Batch, key: jax.Array, values: Values, train: bool
    ) -> tuple[jax.Array, tuple[Any, dict[str, Mean]]]:
        variables = {"params": params, **model_state}
        rngs = {"dropout": stream(key, "dropout")}
        mutable = list(model_state) if train else []
        result = module(values).apply(variables, batch["inputs"], train=train, rngs=rngs, mutable=mutable)
        outputs, updates = cast(tuple[jax.Array, dict[str, Any]], result)
        predictions = reshape(outputs)
        targets = prepared(main_targets(batch))
        mask = batch.get("mask", jnp.ones(targets.shape[0], jnp.float32))
        losses = mixed_losses(lambda targets: loss(values, predictions, prepared(targets)), batch)
        mask = mask.astype(float_type(losses))
        total = Mean.of(losses, mask)
        arguments = measured(predictions, targets)

        def centre() -> jax.Array | float:
            if "target_mean" not in batch:
                return 0.0
            mean = jnp.broadcast_to(batch["target_mean"], batch["targets"].shape).astype(batch["targets"].dtype)
            return measured(predictions, prepared(mean))[1]

        values_known = {"centre": centre} | {name: functools.partial(f, targets) for name, f in known.items()}
        results = {name: measure(function, *arguments, mask, values_known) for name, function in functions}
        return total.sum / total.count, ({**model_state, **updates}, {"loss": total, **results})

    def predict(params: Any, model_state: Any, inputs: jax.Array, values: Values) -> jax.Array:
        outputs = module(values).apply({"params": params, **model_state}, inputs, train=False)
        return in_units(reshape(cast(jax.Array, outputs)))

    return Task(init, loss_and_metrics, predict)
