"""The faults of `faulty_models` in models of other libraries, as a user's own tasks: NNX and plain functions."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from faulty_models import raise_by
from flax import nnx

from jaxtrain import Task, nnx_task, pytree_task


class NNXFaulty(nnx.Module):
    """A hidden layer, and an output to which what goes wrong is added."""

    def __init__(self, inputs: int, outputs: int, fault: str, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(inputs, 4, rngs=rngs)
        self.out = nnx.Linear(4, outputs, rngs=rngs)
        self.fault = fault

    def __call__(self, inputs: jax.Array) -> jax.Array:
        hidden = nnx.relu(self.hidden(inputs.reshape(len(inputs), -1)))
        wrong = raise_by(self.fault, hidden).sum(1, keepdims=True)
        return self.out(hidden) + wrong


def nnx_faulty(model: Any, loss: Any, info: Any, fault: str = "nan") -> Task:
    size = math.prod(info.input_shape)
    return nnx_task(lambda values, rngs: NNXFaulty(size, info.classes, fault, rngs), loss, ("accuracy",))


def plain_faulty(model: Any, loss: Any, info: Any, fault: str = "nan") -> Task:
    size = math.prod(info.input_shape)

    def make(values: Any, key: jax.Array) -> dict[str, jax.Array]:
        return {"first": jnp.full((size, 4), 0.01), "second": jax.random.normal(key, (4, info.classes))}

    def apply(weights: dict[str, jax.Array], inputs: jax.Array, key: jax.Array, train: bool) -> jax.Array:
        hidden = jax.nn.relu(inputs.reshape(len(inputs), -1) @ weights["first"])
        wrong = raise_by(fault, hidden).sum(1, keepdims=True)
        return hidden @ weights["second"] + wrong

    return pytree_task(make, apply, loss, ("accuracy",))
