"""The CNN with Flax's stock layers: a compiled step, called in a Python loop."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax


class CNN(nn.Module):
    """Two 3x3 convolutions of 32 and 64 filters, each with a 2x2 max pool, then dense layers of 128 and 10."""

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Takes (batch, 28, 28, 1) and returns logits (batch, 10)."""
        hidden = inputs
        for features in (32, 64):
            hidden = nn.max_pool(nn.relu(nn.Conv(features, (3, 3))(hidden)), (2, 2), (2, 2))
        hidden = nn.relu(nn.Dense(128)(hidden.reshape(len(hidden), -1)))
        return nn.Dense(10)(hidden)


def compile_steps(
    optimizer: optax.GradientTransformation, images: jax.Array, labels: jax.Array, rows: np.ndarray
) -> Callable[[], Any]:
    """Returns a call of `len(rows)` steps that continues from the last call and returns its losses on the host."""
    model = CNN()

    def loss(params: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = model.apply({"params": params}, images)
        assert isinstance(logits, jax.Array)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), (logits.argmax(-1) == labels).sum()

    def step(params: Any, opt_state: Any, images: jax.Array, labels: jax.Array, row: jax.Array) -> Any:
        reported, gradients = jax.value_and_grad(loss, has_aux=True)(params, images[row], labels[row])
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, reported

    program = jax.jit(step, donate_argnums=(0, 1))
    params = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
    # The state is placed with the data's sharding, else the program would compile twice.
    params, opt_state = jax.device_put((params, optimizer.init(params)), images.sharding)

    def run() -> Any:
        nonlocal params, opt_state
        outputs = []
        for row in rows:
            params, opt_state, reported = program(params, opt_state, images, labels, row)
            outputs.append(reported)
        return jax.device_get(outputs)

    return run
