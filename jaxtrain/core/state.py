"""The state of a run, and the rules that move it: data on one side, pure functions on the other."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxtrain.config.registry import Values

Batch = Mapping[str, Any]
"""`inputs` and `targets`, of shape (batch, ...), and in evaluation `mask` (batch,), 0 where a row is padding."""


class Task(NamedTuple):
    """What is learnt, as three pure functions.

    init(key, batch, values) -> (params, model_state)
    loss(params, model_state, batch, key, values, train) -> (loss, (model_state, {name: Mean})), "loss" among the names
    predict(params, model_state, inputs, values) -> outputs
    """

    init: Callable[..., Any]
    loss: Callable[..., Any]
    predict: Callable[..., Any]


class Rules(NamedTuple):
    """The static half of a run: what turns a batch into the next state.

    schedule(step, hparams) -> this step's values: a copy of hparams with the scheduled entries replaced
    optimizer(values) -> optax.GradientTransformation
    accumulate: micro-batches that a batch is cut into
    """

    task: Task
    schedule: Callable[[jax.Array, Values], Values]
    optimizer: Callable[[Values], optax.GradientTransformation]
    accumulate: int = 1


class TrainState(struct.PyTreeNode):
    """Everything that a step reads and writes: arrays only, so it can be mapped, saved and compared.

    `key` is a raw uint32 key, `hparams` a flat dict of float32 scalars, `ema` the averaged (params, model_state) or
    None. `live` is False once a call has left the finite numbers, and no later step moves such a state.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    key: jax.Array
    hparams: dict[str, jax.Array]
    ema: Any
    live: jax.Array


def init_state(key: jax.Array, batch: Batch, hparams: Mapping[str, float | jax.Array], *, rules: Rules) -> TrainState:
    """Makes the state before the first step: weights drawn from `key`, the optimizer's state of this run's values.

    `hparams` maps full names to numbers, `"train.total_steps"` among them; with `"train.ema"` there, parameters and
    batch statistics are averaged too.
    """
    hparams = {name: jnp.asarray(value, jnp.float32) for name, value in hparams.items()}
    step = jnp.zeros((), jnp.int32)
    values = rules.schedule(step, hparams)
    params, model_state = rules.task.init(stream(key, "init"), batch, values)
    opt_state = rules.optimizer(values).init(params)
    ema = jax.tree.map(jnp.array, (params, model_state)) if "train.ema" in hparams else None
    raw_key = jax.random.key_data(key)
    return TrainState(step, params, model_state, opt_state, raw_key, hparams, ema, live=jnp.array(True))


def stream(key: jax.Array, name: str) -> jax.Array:
    """Derives the key of a named stream of random numbers."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))
