"""Tasks: what is learnt, as three pure functions made from a model, a loss and what the data say."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp

from jaxtrain.config.registry import Values
from jaxtrain.core.metric import Mean
from jaxtrain.core.precision import Module
from jaxtrain.core.state import Batch, Task, stream
from jaxtrain.tasks.metrics import METRICS

ModelFunction = Callable[..., Module]
"""(values, what the data say) -> the module, which computes in the precision of the config."""

LossFunction = Callable[[Values, jax.Array, jax.Array], jax.Array]
"""(values, predictions, targets) -> one number per example, of shape (batch,)."""


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
