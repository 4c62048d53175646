"""The step, and calls of many steps over data on the device. All pure; callers jit, shard, vmap or pmap them."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax

from jaxtrain.config.registry import Values
from jaxtrain.core.averaging import evaluation_weights, update_average
from jaxtrain.core.batches import Batches
from jaxtrain.core.metric import Mean, merge
from jaxtrain.core.state import Batch, Rules, TrainState

Axes = str | tuple[str, ...]
Metrics = dict[str, Mean]
StepFunction = Callable[..., tuple[TrainState, Metrics]]
"""(state, batch, *, rules, axis_name) -> (state, metrics), as `train_step` is; a user may bring one.

One that takes `measure_norms`, too, is told whether to measure what only the last step of a call reports.
"""


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    rules: Rules,
    axis_name: Axes = (),
    measure_norms: bool | jax.Array = True,
) -> tuple[TrainState, Metrics]:
    """Takes one step of training: (state, batch) -> (next state, metrics of the batch before the update).

    Under `pmap` or `shard_map`, `axis_name` names the axis over which the batch is spread in equal shares: gradients
    are averaged over it and metrics added up, which over no axis changes nothing. `measure_norms` may be traced: the
    norm of the gradients costs time, and a call of many steps measures it on its last step alone.
    """
    values = rules.schedule(state.step, state.hparams)
    gradients, model_state, metrics = _gradients(state, batch, values, rules, axis_name)
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes types
        updates, opt_state = rules.optimizer(values).update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
    norm = _gradient_norm(gradients, measure_norms)
    moved = state.replace(
        step=state.step + 1,
        params=params,
        model_state=model_state,
        opt_state=opt_state,
        ema=update_average(state, (params, model_state), values),
    )
    return moved, metrics | {"norm_gradient": norm}


def eval_step(state: TrainState, batch: Batch, *, rules: Rules) -> Metrics:
    """Measures a batch with the averaged parameters where there are any; nothing is drawn and nothing changes."""
    params, model_state = evaluation_weights(state)
    values = rules.schedule(state.step, state.hparams)
    key = jax.random.wrap_key_data(state.key)
    _, (_, metrics) = rules.task.loss(params, model_state, batch, key, values, False)
    return _checked(metrics)


def step_key(state: TrainState, axis_name: Axes = ()) -> jax.Array:
    """Derives this step's key from the run's key and the step, and on a mapped axis from the place on it."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    return jax.random.fold_in(key, lax.axis_index(axis_name)) if axis_name else key


class CallOutput(struct.PyTreeNode):
    """What a call reports.

    metrics: of each step, stacked on a leading axis of length k, 0 beyond the call's length; values: what its last
    step applied; live: whether it stayed within the finite numbers.
    """

    metrics: Metrics
    values: dict[str, jax.Array]
    live: jax.Array


def train_call(
    state: TrainState,
    batches: Batches,
    steps: jax.Array,
    *,
    rules: Rules,
    step: StepFunction = train_step,
    axis_name: Axes = (),
) -> tuple[TrainState, CallOutput]:
    """Takes the first `steps` of k batches, a step each.

    `steps` is traced, so one compiled program serves every length. Divergence is judged once, here: where the state or
    a loss is not finite at the end, the state at the call's start is returned with `live` False, and a state that is
    not live comes back as it is. A replay with fewer steps gives the last finite state.
    """
    advance = _bound(step, rules=rules, axis_name=axis_name)

    def take(state: TrainState, i: jax.Array) -> tuple[TrainState, Metrics]:
        return advance(state, batches.take(i), measure_norms=i == steps - 1)

    def body(carry: tuple[jax.Array, TrainState, Metrics]) -> tuple[jax.Array, TrainState, Metrics]:
        i, state, stacked = carry
        state, metrics = take(state, i)
        return i + 1, state, jax.tree.map(lambda rows, row: rows.at[i].set(row), stacked, _checked(metrics))

    def run(carry: Any, until: jax.Array) -> tuple[Any, None]:
        i, state, stacked, _ = carry
        # The condition must not depend on the state: under vmap each iteration would select every lane's whole carry.
        moved = lax.while_loop(lambda carry: carry[0] < until, body, (i, state, stacked))
        return (*moved, state.params), None

    start = jnp.zeros((), jnp.int32)
    shapes = jax.eval_shape(take, state, start)[1]
    stacked = jax.tree.map(lambda leaf: jnp.zeros((batches.capacity, *leaf.shape), leaf.dtype), _checked(shapes))
    # All steps but the last, then the last: so the parameters before it are at hand, and its update is measured by
    # difference. Measured inside the step it costs every step 5 %, since XLA then writes out the whole update.
    begin, ends = (start, state, stacked, state.params), jnp.stack([steps - 1, steps])
    (_, end, stacked, before), _ = lax.scan(run, begin, ends)
    stacked |= _last_norms(before, end.params, steps - 1, batches.capacity)
    live = state.live & _all_finite((end, stacked["loss"]))
    kept = jax.tree.map(lambda new, old: jnp.where(live, new, old), end, state).replace(live=live)
    stacked = jax.tree.map(lambda rows: jnp.where(state.live, rows, 0), stacked)  # one that was dead counts nothing
    applied = rules.schedule(jnp.maximum(end.step - 1, 0), end.hparams)
    return kept, CallOutput(stacked, dict(applied), live)


def eval_call(state: TrainState, batches: Batches, *, rules: Rules) -> Metrics:
    """Measures all of the batches, and adds up their metrics."""

    def measure(i: jax.Array) -> Metrics:
        return eval_step(state, batches.take(i), rules=rules)

    def body(total: Metrics, i: jax.Array) -> tuple[Metrics, None]:
        return merge(total, measure(i)), None

    places = jnp.arange(batches.capacity)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(measure, places[0]))
    return lax.scan(body, zeros, places)[0]


def _bound(step: StepFunction, **options: Any) -> StepFunction:
    """Binds options to a step; `measure_norms` reaches only a step that takes it."""
    parameters = inspect.signature(step).parameters.values()
    takes_all = any(p.name == "measure_norms" or p.kind is p.VAR_KEYWORD for p in parameters)
    if takes_all:
        return functools.partial(step, **options)
    return lambda state, batch, measure_norms: step(state, batch, **options)


def _gradients(
    state: TrainState, batch: Batch, values: Values, rules: Rules, axis_name: Axes
) -> tuple[Any, Any, Metrics]:
    """Returns (gradients, model_state, metrics) of a batch, averaged over micro-batches and the mapped axis.

    Micro-batches start from the same model state, and are unrolled: a loop inside the loop costs half as much again.
    """
    key, n = step_key(state, axis_name), rules.accumulate
    loss = jax.grad(rules.task.loss, has_aux=True)

    def part(i: int) -> tuple[Any, tuple[Any, Metrics]]:
        rows = batch if n == 1 else jax.tree.map(lambda array: array[i::n], batch)
        part_key = key if n == 1 else jax.random.fold_in(key, i)
        return loss(state.params, state.model_state, rows, part_key, values, True)

    parts = [part(i) for i in range(n)]
    gradients, model_state = _mean([(gradients, model_state) for gradients, (model_state, _) in parts])
    metrics = jax.tree.map(lambda *sums: sum(sums), *(_checked(metrics) for _, (_, metrics) in parts))
    gradients, model_state = lax.pmean((gradients, model_state), axis_name)
    return gradients, model_state, lax.psum(metrics, axis_name)


def _mean(trees: list[Any]) -> Any:
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *trees)


def _gradient_norm(gradients: Any, wanted: bool | jax.Array) -> Mean:
    """Measures the global L2 norm where it is wanted; elsewhere it counts for nothing."""
    wanted = jnp.asarray(wanted)
    norm = lax.cond(wanted, lambda: optax.tree.norm(gradients).astype(jnp.float32), lambda: jnp.zeros(()))
    return Mean(norm, wanted.astype(jnp.float32))


def _last_norms(before: Any, after: Any, last: jax.Array, capacity: int) -> Metrics:
    """Measures the norms of the parameters and of what the last step moved them by, as rows at that step."""
    trees = {"norm_update": jax.tree.map(jnp.subtract, after, before), "norm_parameter": after}
    here = (jnp.arange(capacity) == last).astype(jnp.float32)
    return {name: Mean(here * optax.tree.norm(tree).astype(jnp.float32), here) for name, tree in trees.items()}


def _all_finite(tree: Any) -> jax.Array:
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]).all()


def _checked(metrics: Metrics) -> Metrics:
    """Refuses, when the step is traced, metrics in another form than `{name: Mean}` with "loss" among them."""
    if not isinstance(metrics, dict) or not all(isinstance(metric, Mean) for metric in metrics.values()):
        raise TypeError(f"a task's metrics must be a dict of name -> jaxtrain.Mean(sum, count); given {metrics!r}")
    if "loss" not in metrics:
        raise TypeError(f"a task's metrics must hold 'loss', the Mean that is judged; given {sorted(metrics)}")
    return metrics
