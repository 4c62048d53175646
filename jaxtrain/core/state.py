"""The state of a run (arrays) and its rules (pure functions)."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxtrain.config.registry import Values
from jaxtrain.core.floats import as_floats
from jaxtrain.core.frozen import split_params
from jaxtrain.core.recent_past import RecentPast
from jaxtrain.errors import ConfigError, Words

Batch = Mapping[str, Any]
"""`inputs` and `targets` of shape (batch, ...); in evaluation also `mask` (batch,), 0 for padding rows."""


def cannot_decode(*arguments: Any) -> Any:
    """Stands for the function `decode` of a task without one: raises ConfigError."""
    expected = "a task that continues sequences, such as language_modelling"
    raise ConfigError("task.name", Words("a task without a function decode"), expected)


class Task(NamedTuple):
    """A learning problem as three pure functions; others, each optional, continue sequences and show what was learned.

    init(key, batch, values) -> (params, model_state)
    loss(params, model_state, batch, key, values, train) -> (loss, (model_state, {name: Mean})), with a metric "loss"
    predict(params, model_state, inputs, values) -> outputs
    decode(params, model_state, tokens, values, cache, position) -> (logits, cache), for tasks that continue sequences
    show(inputs, targets, predictions) -> a description of `core/pictures.py`, or several by name
    summarise(targets, predictions) -> {name: description} of a whole split
    wrongness(targets, predictions) -> how wrong each prediction is, (n,)
    `values` are the hyperparameters of the current step, full name -> float32 scalar. The last three run on the host:
    inputs and targets are raw arrays of the data, and predictions are in the units of the targets.
    """

    init: Callable[..., Any]
    loss: Callable[..., Any]
    predict: Callable[..., Any]
    decode: Callable[..., Any] = cannot_decode
    show: Callable[..., Any] | None = None
    summarise: Callable[..., Any] | None = None
    wrongness: Callable[..., Any] | None = None


class Rules(NamedTuple):
    """The static half of a run: the functions that turn a state and a batch into the next state.

    schedule(step, hparams) -> values: a copy of hparams with scheduled entries replaced by this step's values
    optimizer(values) -> optax.GradientTransformation
    accumulate: number of micro-batches that each batch is split into
    is_frozen(params) -> a tree of bools, true for the parameters that no step changes; None: all are trained
    guard_steps: whether each step of a call is judged before its update is kept, for large states (`core/guards.py`)
    norms_by_layer: whether norms are measured for each array of parameters, too
    skips_spikes: whether a batch whose loss or gradient norm leaves the range of the recent past is skipped
    samples_gradients: whether a call returns some numbers of the gradients of its last step
    """

    task: Task
    schedule: Callable[[jax.Array, Values], Values]
    optimizer: Callable[[Values], optax.GradientTransformation]
    accumulate: int = 1
    is_frozen: Callable[[Any], Any] | None = None
    guard_steps: bool = False
    skips_spikes: bool = False
    norms_by_layer: bool = False
    samples_gradients: bool = False


class TrainState(struct.PyTreeNode):
    """All arrays that a step reads and writes, and nothing else: it can be vmapped, saved and compared.

    params: the trained parameters, with None in the place of frozen ones; key: raw uint32 key of the run; hparams: flat
    dict, full name -> float32 scalar; ema: averaged (params, model_state), or None; live: False once a call has
    diverged, after which calls return the state unchanged; frozen: the other parameters, or None if all are trained;
    recent: the `RecentPast` that spikes are told from, or None if no batch is skipped.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    key: jax.Array
    hparams: dict[str, jax.Array]
    ema: Any
    live: jax.Array
    frozen: Any = None
    recent: Any = None


def init_state(key: jax.Array, batch: Batch, hparams: Mapping[str, float | jax.Array], *, rules: Rules) -> TrainState:
    """Makes the state before the first step, with initial weights drawn from `key`.

    `batch` gives the shapes of the data; one example is enough. `hparams` maps full names to numbers and includes
    `"train.total_steps"`. With `"train.ema"` in it, the state also keeps averages of parameters and batch statistics.
    """
    hparams = {name: as_floats(value) for name, value in hparams.items()}
    step = jnp.zeros((), jnp.int32)
    values = rules.schedule(step, hparams)
    params, model_state = _demand_pair(rules.task.init(stream(key, "init"), batch, values))
    params, frozen = split_params(params, rules.is_frozen(params)) if rules.is_frozen else (params, None)
    opt_state = rules.optimizer(values).init(params)
    ema = jax.tree.map(jnp.array, (params, model_state)) if "train.ema" in hparams else None
    raw_key = jax.random.key_data(key)
    recent = RecentPast.none(hparams["train.total_steps"].dtype) if rules.skips_spikes else None
    return TrainState(step, params, model_state, opt_state, raw_key, hparams, ema, jnp.array(True), frozen, recent)


def _demand_pair(made: Any) -> tuple[Any, Any]:
    """Returns what a task's init made; raises ConfigError if that is no (params, model_state)."""
    if isinstance(made, tuple) and len(made) == 2:
        return made
    got = Words(f"a task whose init returns a {type(made).__name__}")
    raise ConfigError(
        "task.name", got, "an init that returns (params, model_state)", "Return {} for a task without a state"
    )


def stream(key: jax.Array, name: str) -> jax.Array:
    """Derives the key of a named random stream, such as "init" or "dropout"."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))
