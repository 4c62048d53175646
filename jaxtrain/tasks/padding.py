"""Examples of unlike length: a batch is computed at the shortest of a few lengths that holds it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxtrain.config.registry import Values
from jaxtrain.core.batch_axis import mapped_batch_axis
from jaxtrain.core.state import Batch, Task
from jaxtrain.data.encoded import Padding


def cut_padding(task: Task, padding: Padding) -> Task:
    """Returns the task whose loss is computed at the first of `padding.lengths` that holds all of the batch.

    The program has a branch for each length, and chooses by the batch itself: which one a step takes follows from the
    seed and the step alone, a call may hold batches of all lengths, and nothing is compiled later. Predictions take
    inputs of any length as they are.
    """
    if len(padding.lengths) == 1:
        return task

    def loss(params: Any, model_state: Any, batch: Batch, key: jax.Array, values: Values, train: bool) -> Any:
        def at_length(length: int, params: Any, *rest: Any) -> Any:
            model_state, batch, key, values = rest
            shortened = {**batch, "inputs": batch["inputs"][:, :length]}
            return task.loss(params, model_state, shortened, key, values, train)

        branches = [lambda *given, length=length: at_length(length, *given) for length in padding.lengths]
        return _switch(branches, _branch(batch["inputs"], padding), params, model_state, batch, key, values)

    return task._replace(loss=loss)


def _branch(inputs: jax.Array, padding: Padding) -> jax.Array:
    """Returns the place of the shortest length that holds all rows (batch, n, ...), on all devices."""
    longest = jnp.sum(padding.is_kept(inputs), axis=1, dtype=jnp.int32).max()
    axis = mapped_batch_axis()
    longest = longest if axis is None else lax.pmax(longest, axis)
    return jnp.searchsorted(jnp.asarray(padding.lengths, jnp.int32), longest)


def _switch(losses: list[Callable[..., Any]], branch: jax.Array, params: Any, *rest: Any) -> Any:
    """Calls one of several (params, *rest) -> (loss, aux), and differentiates it by `params` within its branch.

    JAX would keep the intermediate results of all branches for the backward pass, zeros for those not taken.
    """

    @jax.custom_vjp
    def chosen(branch: jax.Array, params: Any, *rest: Any) -> Any:
        return lax.switch(branch, losses, params, *rest)

    def forward(branch: jax.Array, params: Any, *rest: Any) -> tuple[Any, Any]:
        return lax.switch(branch, [jax.value_and_grad(loss, has_aux=True) for loss in losses], params, *rest)

    def backward(gradients: Any, cotangents: Any) -> tuple[Any, ...]:
        scale = cotangents[0]
        return (None, jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), gradients), *(None for _ in rest))

    chosen.defvjp(forward, backward)
    return chosen(branch, params, *rest)
