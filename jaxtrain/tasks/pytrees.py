"""Builds a task from a model that is a pytree, such as an Equinox module or a dict of arrays with a function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxtrain.config.registry import Values
from jaxtrain.core.state import Task
from jaxtrain.core.trees import named_leaves, replace_leaves
from jaxtrain.tasks.linen import LossFunction, linen_task


def pytree_task(
    make: Callable[[Values, jax.Array], Any],
    apply: Callable[..., Any],
    loss: LossFunction,
    metrics: tuple[str, ...] = (),
    *,
    stateful: bool = False,
    **options: Any,
) -> Task:
    """Builds a task from a model that is a pytree, and a loss per example.

    `make(values, key)` builds the model inside the trace of each step, and `apply(model, inputs, key, train)` returns
    its outputs. With `stateful`, `make` returns (model, state), and `apply(model, state, inputs, key, train)` returns
    (outputs, state); the state holds what is not differentiated, such as the statistics of a batch norm.

    Float arrays of the model are trained, except hyperparameters, which are arrays in `values`. Other arrays are part
    of the model state, and other leaves, such as functions, stay as `make` builds them. Parameters are a dict of path
    -> array. The other arguments are those of `linen_task`.
    """
    return linen_task(lambda values: PytreeModule(make, apply, values, stateful), loss, metrics, **options)


@dataclass(frozen=True, eq=False)
class PytreeModule:
    """A model that is a pytree, with the `init` and `apply` of a Linen module."""

    make: Callable[[Values, jax.Array], Any]
    call: Callable[..., Any]
    values: Values
    stateful: bool

    def init(self, rngs: Any, *inputs: Any, **options: Any) -> dict[str, Any]:
        """Makes the variables from the key "params"; the model, which knows its own shapes, is not called."""
        del inputs, options
        model, state = self._make(rngs["params"])
        params, constants = self._arrays(model)
        return _without_empty(params, constants, _arrays(state))

    def apply(self, variables: Any, inputs: Any, train: bool = False, rngs: Any = None, mutable: Any = False) -> Any:
        """Calls the model with these variables; with a list in `mutable`, returns (outputs, updated model state)."""
        # XLA removes from the program what `make` draws, since it is replaced here.
        model, state = self._make(jax.random.key(0))
        model = replace_leaves(model, {**variables["params"], **variables.get("constants", {})})
        key = rngs["dropout"] if rngs else jax.random.key(0)
        if not self.stateful:
            outputs = self.call(model, inputs, key, train)
            return outputs if mutable is False else (outputs, {})
        state = replace_leaves(state, variables.get("state", {}))
        outputs, state = self.call(model, state, inputs, key, train)
        if mutable is False:
            return outputs
        return outputs, {"state": _arrays(state)} if "state" in mutable else {}

    def _make(self, key: jax.Array) -> tuple[Any, Any]:
        """Returns the model and its state, None for a model without one."""
        made = self.make(self.values, key)
        return made if self.stateful else (made, None)

    def _arrays(self, model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns path -> array of the parameters, and of the other arrays but hyperparameters."""
        given = {id(value) for value in self.values.values()}
        arrays = {path: leaf for path, leaf in _arrays(model).items() if id(leaf) not in given}
        params = {path: leaf for path, leaf in arrays.items() if jnp.issubdtype(leaf.dtype, jnp.inexact)}
        return params, {path: leaf for path, leaf in arrays.items() if path not in params}


def _arrays(tree: Any) -> dict[str, Any]:
    """Returns path -> leaf of the leaves that are arrays."""
    return {path: jnp.asarray(leaf) for path, leaf in named_leaves(tree) if hasattr(leaf, "dtype")}


def _without_empty(params: Mapping[str, Any], constants: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the variables by collection, without empty ones except the parameters."""
    kept = {name: arrays for name, arrays in (("constants", constants), ("state", state)) if arrays}
    return {"params": dict(params), **kept}
