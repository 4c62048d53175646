"""The losses and gradients of a batch: over its micro-batches, and over the devices that share it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from jaxtrain.config.registry import Values
from jaxtrain.core.frozen import join_params
from jaxtrain.core.metric import Metrics, check_metrics
from jaxtrain.core.state import Batch, Rules, TrainState
from jaxtrain.core.trees import is_float

Axes = str | tuple[str, ...]
"""The axes of `pmap` or `shard_map` over which a batch is split; () where there are none."""

LossOfParams = Callable[[Any], tuple[jax.Array, tuple[Any, Metrics]]]


def step_key(state: TrainState, axis_name: Axes = ()) -> jax.Array:
    """Derives this step's key from the run's key, the step and, on a mapped axis, the device's index on it."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    return jax.random.fold_in(key, lax.axis_index(axis_name)) if axis_name else key


def training_losses(state: TrainState, batch: Batch, *, rules: Rules) -> list[LossOfParams]:
    """Returns the losses that `train_step` differentiates, params -> (loss, (model_state, metrics)), by micro-batch."""
    return micro_batch_losses(state, batch, rules.schedule(state.step, state.hparams), rules, ())


def micro_batch_losses(
    state: TrainState, batch: Batch, values: Values, rules: Rules, axis_name: Axes
) -> list[LossOfParams]:
    """Returns the training loss of each micro-batch, params -> (loss, (model_state, metrics)).

    All micro-batches start from the same model state. They are unrolled: a nested loop takes half as long again.
    """
    key = step_key(state, axis_name)
    n = rules.accumulate

    def loss(i: int, params: Any) -> tuple[jax.Array, tuple[Any, Metrics]]:
        rows = batch if n == 1 else jax.tree.map(lambda array: array[i::n], batch)
        rows_key = key if n == 1 else jax.random.fold_in(key, i)
        whole = join_params(params, state.frozen)
        return rules.task.loss(whole, state.model_state, rows, rows_key, values, True)

    return [functools.partial(loss, i) for i in range(n)]


def differentiate(
    losses: list[LossOfParams], params: Any, axis_name: Axes
) -> tuple[tuple[list[jax.Array], Any], Any, Metrics]:
    """Returns ((losses, gradients), model_state, metrics) of the micro-batches.

    Losses are those of each micro-batch on this device. Gradients and model state are means over micro-batches and the
    axis; metrics are summed.
    """
    parts = [jax.value_and_grad(loss, has_aux=True)(params) for loss in losses]
    gradients, model_state = mean_of([(gradients, model_state) for (_, (model_state, _)), gradients in parts])
    metrics = jax.tree.map(lambda *sums: sum(sums), *(check_metrics(metrics) for (_, (_, metrics)), _ in parts))
    gradients, model_state = _pmean((gradients, model_state), axis_name)
    return ([loss for (loss, _), _ in parts], gradients), model_state, lax.psum(metrics, axis_name)


def objective_of(losses: list[LossOfParams], axis_name: Axes) -> Callable[[Any], jax.Array]:
    """Returns the loss of the whole batch as a function of the parameters, with the dropout of this step."""
    if len(losses) == 1 and not axis_name:
        return lambda params: losses[0](params)[0]

    def mean_and_gradients(params: Any) -> tuple[jax.Array, Any]:
        (parts, gradients), *_ = differentiate(losses, params, axis_name)
        return lax.pmean(mean_of(parts), axis_name), gradients

    def mean(params: Any) -> jax.Array:
        return lax.pmean(mean_of([loss(params)[0] for loss in losses]), axis_name)

    # JAX would differentiate a mean over devices into the gradient of each device's own share, and would keep the
    # activations of all micro-batches at once.
    objective = jax.custom_vjp(mean)
    objective.defvjp(mean_and_gradients, lambda gradients, scale: (jax.tree.map(lambda leaf: scale * leaf, gradients),))
    return objective


def mean_of(trees: list[Any]) -> Any:
    """Averages the floats of trees; integers, such as counts of calls, are those of the first."""
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves) if is_float(leaves[0]) else leaves[0], *trees)


def _pmean(tree: Any, axis_name: Axes) -> Any:
    """Averages the floats of a tree over the axis; integers stay."""
    return jax.tree.map(lambda leaf: lax.pmean(leaf, axis_name) if is_float(leaf) else leaf, tree)
