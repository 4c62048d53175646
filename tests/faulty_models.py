"""Models of a user's own with a fault each, for the debug modes; a comment marks the line of each fault."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

Fault = Literal["nan", "index", "division", "loop", "branch", "backward", "compiled"]


@jax.jit
def shifted_log(values: jax.Array) -> jax.Array:
    return jnp.log(values - 1e6)  # compiled


def raise_by(fault: str, values: jax.Array) -> jax.Array:
    """Returns zeros or what is not a number, by way of an operation that goes wrong."""
    if fault == "nan":
        return jnp.log(-1.0 - jnp.abs(values))  # nan
    if fault == "index":
        table = jnp.zeros(3)
        return table[jnp.where(values > -1e9, 7, 0)]  # index
    if fault == "division":
        quotients = values / jnp.zeros_like(values)  # division
        return jnp.where(values > 1e9, quotients, 0.0)
    if fault == "loop":
        return jax.lax.fori_loop(0, 3, lambda i, total: total + jnp.sqrt(i - 1.0), values)  # loop
    if fault == "branch":
        return jax.lax.cond(values.sum() > -1e9, lambda v: jnp.sqrt(-1.0 - v**2), lambda v: v, values)  # branch
    if fault == "backward":
        return jnp.sqrt(jax.nn.relu(values) * 0.0)  # backward
    jnp.log(jnp.ones(3))
    return shifted_log(values)


class Faulty(nn.Module):
    """A hidden layer, and an output to which what goes wrong is added."""

    outputs: int
    fault: Fault = "nan"

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        hidden = nn.relu(nn.Dense(4, name="hidden")(inputs.reshape(len(inputs), -1)))
        return nn.Dense(self.outputs)(hidden) + raise_by(self.fault, hidden).sum(1, keepdims=True)


class Blind(nn.Module):
    """A model that does not look at its inputs."""

    outputs: int

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> jax.Array:
        return nn.Dense(self.outputs)(0.0 * inputs.reshape(len(inputs), -1)[:, :2])


@jax.custom_vjp
def bent(values: jax.Array) -> jax.Array:
    """Returns sines, with a derivative that is 5 % too large."""
    return jnp.sin(values)


bent.defvjp(lambda values: (jnp.sin(values), values), lambda values, slopes: (1.05 * slopes * jnp.cos(values),))


class Bent(nn.Module):
    """A model with a derivative of its own that is wrong."""

    outputs: int

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> jax.Array:
        return nn.Dense(self.outputs)(bent(nn.Dense(8)(inputs.reshape(len(inputs), -1))))
