"""The training step, and calls of many steps over batches on the device. All pure: callers jit, vmap or pmap them."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax

from jaxtrain.core.averaging import evaluation_weights, update_average
from jaxtrain.core.batches import Batches
from jaxtrain.core.extra_arguments import extra_arguments, uses_argument
from jaxtrain.core.gradients import Axes, LossOfParams, differentiate, mean_of, micro_batch_losses, objective_of
from jaxtrain.core.guards import keep_finite, run_guarded_call, run_guarded_steps
from jaxtrain.core.measures import measure_gradients
from jaxtrain.core.metric import Metrics, check_metrics, merge
from jaxtrain.core.metric_names import SAMPLES
from jaxtrain.core.outside_loops import outside_loops
from jaxtrain.core.spikes import skip_spike
from jaxtrain.core.state import Batch, Rules, TrainState
from jaxtrain.core.tracing import traced_once

StepFunction = Callable[..., tuple[TrainState, Metrics]]
"""(state, batch, *, rules, axis_name) -> (state, metrics), like `train_step`; users may bring their own.

A step with an argument `measure_norms` is told whether its norms are reported, which they are on a call's last step.
One with an argument `guard` is told to judge its own update, as `train_step` does, where `rules.guard_steps`.
"""


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    rules: Rules,
    axis_name: Axes = (),
    measure_norms: bool | jax.Array = True,
    guard: bool = False,
) -> tuple[TrainState, Metrics]:
    """Takes one training step: (state, batch) -> (next state, metrics of the batch before the update).

    Under `pmap` or `shard_map`, `axis_name` is the axis over which the batch is split into equal shares: gradients are
    averaged and metrics summed over it. Without an axis, both are identities. `measure_norms`, which may be traced,
    says whether to compute norms: they take time, so a call of many steps computes them on the last one only. With
    `guard`, an update that is not finite is not kept: the state is returned as it was, not live.
    An optimizer that asks for the loss or for a function of it (see `extra_arguments`) gets those of the whole batch.
    """
    values = rules.schedule(state.step, state.hparams)
    losses = micro_batch_losses(state, batch, values, rules, axis_name)
    (parts, gradients), model_state, metrics = differentiate(losses, state.params, axis_name)
    metrics |= measure_gradients(gradients, measure_norms, rules)

    def update(gradients: Any) -> TrainState:
        params, opt_state = _update_params(state, gradients, parts, losses, rules.optimizer(values), axis_name)
        return state.replace(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            ema=update_average(state, (params, model_state), values),
        )

    if guard:
        advanced, metrics = keep_finite(update, gradients, state, metrics, measure_norms, rules.norms_by_layer)
    else:
        advanced = update(gradients)
    return skip_spike(state, advanced, gradients, metrics) if rules.skips_spikes else (advanced, metrics)


def eval_step(state: TrainState, batch: Batch, *, rules: Rules) -> Metrics:
    """Evaluates a batch, with averaged parameters if there are any; deterministic, and the state is unchanged."""
    params, model_state = evaluation_weights(state)
    values = rules.schedule(state.step, state.hparams)
    key = jax.random.wrap_key_data(state.key)
    _, (_, metrics) = rules.task.loss(params, model_state, batch, key, values, False)
    return check_metrics(metrics)


def predict_step(state: TrainState, inputs: jax.Array, *, rules: Rules) -> Any:
    """Predicts from a batch of inputs, with averaged parameters if there are any, in a program of its own."""
    values = rules.schedule(state.step, state.hparams)
    with outside_loops():
        return rules.task.predict(*evaluation_weights(state), inputs, values)


class CallOutput(struct.PyTreeNode):
    """Output of a call of up to k steps.

    metrics: those of each step, stacked on a leading axis of length k and 0 after the call's last step; values: the
    hyperparameters of the last step; live: False if the call diverged; kept: the number of its steps that led to the
    state returned; tried: the least number of steps that is known to diverge, if it diverged; gradients: samples of
    those of the last step, as `sample_gradients` returns them, or None unless `rules.samples_gradients`.
    """

    metrics: Metrics
    values: dict[str, jax.Array]
    live: jax.Array
    kept: jax.Array
    tried: jax.Array
    gradients: jax.Array | None = None


def train_call(
    state: TrainState,
    batches: Batches,
    steps: jax.Array,
    *,
    rules: Rules,
    step: StepFunction = train_step,
    axis_name: Axes = (),
) -> tuple[TrainState, CallOutput]:
    """Takes `steps` steps, one on each of the first `steps` batches.

    `steps` is traced, so one compiled program serves every length up to the capacity k of the batches. If the state or
    a loss becomes non-finite, the call returns a finite state with `live` False: the last finite one where
    `rules.guard_steps`, else the initial one, from which a replay with fewer steps gives the last. A state that is not
    live is returned unchanged.
    """
    guards_steps = rules.guard_steps and "guard" in inspect.signature(step).parameters
    options = {"rules": rules, "axis_name": axis_name} | ({"guard": True} if guards_steps else {})

    def take_step(trained: TrainState, i: jax.Array) -> tuple[TrainState, Metrics]:
        norms = {"measure_norms": i == steps - 1} if _measures_norms(step) else {}
        stepped, metrics = step(trained.replace(frozen=state.frozen), batches.take(i), **options, **norms)
        return stepped.replace(frozen=None), check_metrics(metrics)

    in_call = functools.partial(run_guarded_call, by_layer=rules.norms_by_layer)
    run = run_guarded_steps if guards_steps else in_call
    end, metrics, kept, tried = run(take_step, state.replace(frozen=None), steps, batches.capacity)
    end = end.replace(frozen=state.frozen)
    metrics = jax.tree.map(lambda rows: jnp.where(state.live, rows, 0), metrics)  # a state dead at the start counts 0
    values = rules.schedule(jnp.maximum(end.step - 1, 0), end.hparams)
    samples = metrics.pop(SAMPLES, None)
    return end, CallOutput(metrics, dict(values), end.live, kept, tried, samples and samples.sum[0])


def eval_call(
    state: TrainState,
    batches: Batches,
    total: Metrics | None = None,
    count: jax.Array | None = None,
    *,
    rules: Rules,
) -> Metrics:
    """Evaluates the first `count` batches, or all, and adds their metrics to `total`, those of the batches before."""

    @traced_once  # for its shapes, and for the loop
    def evaluate(i: jax.Array | int) -> Metrics:
        return eval_step(state, batches.take(i), rules=rules)

    if total is None:
        total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(evaluate, 0))
    last = batches.capacity if count is None else count
    return lax.fori_loop(0, last, lambda i, total: merge(total, evaluate(i)), total)


def _measures_norms(step: StepFunction) -> bool:
    parameters = inspect.signature(step).parameters.values()
    return any(p.name == "measure_norms" or p.kind is p.VAR_KEYWORD for p in parameters)


def _update_params(
    state: TrainState,
    gradients: Any,
    parts: list[jax.Array],
    losses: list[LossOfParams],
    optimizer: optax.GradientTransformation,
    axis_name: Axes,
) -> tuple[Any, Any]:
    """Returns (params, opt_state) after the optimizer's update."""

    def update(value: jax.Array) -> tuple[Any, Any]:
        extra = extra_arguments(optimizer.update, value, gradients, objective_of(losses, axis_name))
        return optimizer.update(gradients, state.opt_state, state.params, **extra)

    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes types
        # The mean over parts is computed only for optimizers that use it: programs of the others stay as they are.
        is_mean = (len(parts) == 1 and not axis_name) or not uses_argument(update, parts[0])
        updates, opt_state = update(parts[0] if is_mean else lax.pmean(mean_of(parts), axis_name))
        return optax.apply_updates(state.params, updates), opt_state
