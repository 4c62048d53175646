"""Models of other libraries, as a user's own tasks: NNX, a pytree with a state, plain functions, Equinox."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxtrain import Task, dropout, nnx_task, pytree_task


class NNXNet(nnx.Module):
    """A hidden layer with batch norm and two kinds of dropout."""

    def __init__(self, inputs: int, outputs: int, rate: Any, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(inputs, 16, rngs=rngs), nnx.Linear(16, outputs, rngs=rngs)])
        self.norm = nnx.BatchNorm(16, momentum=0.9, rngs=rngs)
        self.fixed = nnx.Dropout(0.1, rngs=rngs)
        self.rate = rate
        self.rngs = rngs
        self.deterministic = False  # which `train()` and `eval()` set

    def __call__(self, inputs: jax.Array) -> jax.Array:
        hidden = self.fixed(nnx.relu(self.norm(self.layers[0](inputs.reshape(len(inputs), -1)))))
        return self.layers[1](hidden if self.deterministic else dropout(self.rngs.dropout(), hidden, self.rate))


def nnx_net(model: Any, loss: Any, info: Any, rate: float = 0.1) -> Task:
    size = math.prod(info.input_shape)
    return nnx_task(lambda values, rngs: NNXNet(size, info.classes, rate, rngs), loss, ("accuracy",))


def plain_functions(model: Any, loss: Any, info: Any, rate: float = 0.1) -> Task:
    sizes = (math.prod(info.input_shape), 16, info.classes)

    def make(values: Any, key: jax.Array) -> list[jax.Array]:
        keys = jax.random.split(key)
        return [
            jax.random.normal(k, shape) / shape[0] ** 0.5 for k, *shape in zip(keys, sizes, sizes[1:], strict=False)
        ]

    def apply(weights: list[jax.Array], inputs: jax.Array, key: jax.Array, train: bool) -> jax.Array:
        hidden = jax.nn.relu(inputs.reshape(len(inputs), -1) @ weights[0])
        return (dropout(key, hidden, rate) if train else hidden) @ weights[1]

    return pytree_task(make, apply, loss, ("accuracy",))


@jax.tree_util.register_dataclass
@dataclass
class Tree:
    """A model as Equinox has them: arrays, an integer array, a function and a hyperparameter as leaves."""

    weights: list[jax.Array]
    order: jax.Array
    activation: Callable[[jax.Array], jax.Array]
    rate: Any


def tree_with_state(model: Any, loss: Any, info: Any, rate: float = 0.1) -> Task:
    """Standardises by a running mean, and takes the inputs in an order that is drawn once."""
    size = math.prod(info.input_shape)

    def make(values: Any, key: jax.Array) -> tuple[Tree, dict[str, jax.Array]]:
        keys = jax.random.split(key, 3)
        weights = [jax.random.normal(keys[0], (size, 16)) / size**0.5, jax.random.normal(keys[1], (16, info.classes))]
        state = {"mean": jnp.zeros(16), "calls": jnp.zeros((), jnp.int32)}
        return Tree(weights, jax.random.permutation(keys[2], size), jax.nn.relu, rate), state

    def apply(tree: Tree, state: dict[str, jax.Array], inputs: jax.Array, key: jax.Array, train: bool) -> Any:
        hidden = inputs.reshape(len(inputs), -1)[:, tree.order] @ tree.weights[0]
        mean = hidden.mean(axis=0) if train else state["mean"]
        updated = {"mean": 0.9 * state["mean"] + 0.1 * mean, "calls": state["calls"] + 1}
        hidden = tree.activation(hidden - mean)
        return (dropout(key, hidden, tree.rate) if train else hidden) @ tree.weights[1], updated

    return pytree_task(make, apply, loss, ("accuracy",), stateful=True)


def equinox_net(model: Any, loss: Any, info: Any, rate: float = 0.1) -> Task:
    import equinox as eqx  # pyright: ignore[reportMissingImports]

    class Net(eqx.Module):
        layers: list
        norm: Any
        dropout: Any

        def __init__(self, key: jax.Array) -> None:
            keys = jax.random.split(key)
            size = math.prod(info.input_shape)
            self.layers = [eqx.nn.Linear(size, 16, key=keys[0]), jax.nn.relu, eqx.nn.Linear(16, 10, key=keys[1])]
            self.norm = eqx.nn.BatchNorm(16, axis_name="batch", mode="batch")
            self.dropout = eqx.nn.Dropout(rate)

        def __call__(self, inputs: jax.Array, state: Any, key: jax.Array, train: bool) -> Any:
            hidden, state = self.norm(self.layers[0](inputs.ravel()), state, inference=not train)
            hidden = self.dropout(self.layers[1](hidden), key=key, inference=not train)
            return self.layers[2](hidden), state

    def apply(net: Any, state: Any, inputs: jax.Array, key: jax.Array, train: bool) -> Any:
        call = jax.vmap(net, in_axes=(0, None, 0, None), out_axes=(0, None), axis_name="batch")
        return call(inputs, state, jax.random.split(key, len(inputs)), train)

    return pytree_task(lambda values, key: eqx.nn.make_with_state(Net)(key), apply, loss, ("accuracy",), stateful=True)
