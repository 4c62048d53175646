"""Hand-written baseline in plain JAX and optax: a compiled scan over training steps."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

LEARNING_RATE = 2e-3
EMA = 0.999
DROPOUT = 0.2
CLIP_NORM = 0.7
MOMENTUM = 0.9
EPSILON = 1e-5

Arrays = dict[str, jax.Array]


@dataclass(frozen=True)
class Program:
    """The MLP 784-128-128-10 with Adam and one-cycle, and its options.

    clip, dropout, ema, norm: adds gradient clipping, dropout, averaged parameters, batch norm; own: replaces Adam.
    """

    total_steps: int
    clip: bool = False
    dropout: bool = False
    ema: bool = False
    norm: bool = False
    own: optax.GradientTransformation | None = None

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Returns `own` if given, else Adam on the one-cycle schedule, after gradient clipping if `clip` is set."""
        if self.own is not None:
            return self.own
        adam = optax.adam(optax.cosine_onecycle_schedule(self.total_steps, LEARNING_RATE))
        return optax.chain(optax.clip_by_global_norm(CLIP_NORM), adam) if self.clip else adam

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Returns the initial state."""
        widths = (784, 128, 128, 10)
        draw = jax.nn.initializers.lecun_normal()
        keys = jax.random.split(key, len(widths))
        params = {}
        statistics = {}
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
            # The bias is added after the layer; with batch norm it is the bias of the norm.
            params[f"kernel{i}"] = draw(keys[i], (fan_in, fan_out))
            params[f"bias{i}"] = jnp.zeros(fan_out)
            if self.norm and i < 2:
                params[f"scale{i}"] = jnp.ones(fan_out)
                statistics[f"mean{i}"] = jnp.zeros(fan_out)
                statistics[f"variance{i}"] = jnp.ones(fan_out)
        return {
            "step": jnp.zeros((), jnp.int32),
            "params": params,
            "statistics": statistics,
            "opt_state": self.optimizer.init(params),
            "ema": jax.tree.map(jnp.array, (params, statistics)) if self.ema else None,
            "key": keys[-1],
        }

    def loss(
        self, params: Arrays, statistics: Arrays, images: jax.Array, labels: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, Arrays]]:
        """Returns (mean loss, (number of correct predictions, running statistics))."""
        hidden = images.reshape(len(images), -1)
        kept = {}
        for i in (0, 1):
            hidden = hidden @ params[f"kernel{i}"]
            if self.norm:
                mean = hidden.mean(0)
                square = (hidden**2).mean(0)
                variance = jnp.maximum(square - mean**2, 0.0)
                hidden = (hidden - mean) * (jax.lax.rsqrt(variance + EPSILON) * params[f"scale{i}"])
                kept[f"mean{i}"] = MOMENTUM * statistics[f"mean{i}"] + (1 - MOMENTUM) * mean
                kept[f"variance{i}"] = MOMENTUM * statistics[f"variance{i}"] + (1 - MOMENTUM) * variance
            hidden = jax.nn.relu(hidden + params[f"bias{i}"])
            if self.dropout:
                mask = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - DROPOUT, hidden.shape)
                hidden = jnp.where(mask, hidden / (1 - DROPOUT), 0.0)
        logits = hidden @ params["kernel2"] + params["bias2"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), ((logits.argmax(-1) == labels).sum(), kept)

    def step(self, state: dict[str, Any], images: jax.Array, labels: jax.Array) -> tuple[dict[str, Any], Any]:
        """Takes one step; returns the next state and (loss, number of correct predictions)."""
        key = jax.random.fold_in(state["key"], state["step"])
        value_and_gradients = jax.value_and_grad(self.loss, has_aux=True)
        (loss, (right, statistics)), gradients = value_and_gradients(
            state["params"], state["statistics"], images, labels, key
        )
        updates, opt_state = self.optimizer.update(gradients, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        ema = None
        if self.ema:
            ema = optax.incremental_update((params, statistics), state["ema"], 1 - EMA)
        moved = {"step": state["step"] + 1, "params": params, "statistics": statistics, "opt_state": opt_state}
        return moved | {"ema": ema, "key": state["key"]}, (loss, right)

    def compile(self, images: jax.Array, labels: jax.Array, rows: np.ndarray) -> Callable[[], Any]:
        """Compiles a call of `len(rows)` steps that continues from the last call and returns its losses on the host."""

        def run_steps(state: dict[str, Any], images: jax.Array, labels: jax.Array, rows: jax.Array) -> Any:
            return jax.lax.scan(lambda state, row: self.step(state, images[row], labels[row]), state, rows)

        program = jax.jit(run_steps, donate_argnums=0)
        # The state is placed with the data's sharding, else the program would compile twice.
        state = jax.device_put(jax.jit(self.init)(jax.random.key(0)), images.sharding)

        def call() -> Any:
            nonlocal state
            state, reported = program(state, images, labels, rows)
            return jax.device_get(reported)

        return call
