"""Low-rank adaptation: trains a product of two small matrices beside each chosen weight, which stays as it is."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain.config.registry import Values
from jaxtrain.core.state import Batch, Task, stream
from jaxtrain.core.trees import match_paths, named_leaves, replace_leaves
from jaxtrain.errors import ConfigError

BASE = "base"
"""Key of the task's own parameters, which are frozen."""

ADAPTERS = "lora"
"""Key of the trained matrices: path -> {"down": (inputs, rank), "up": (rank, outputs)}."""


ALPHA = "lora.alpha"
"""The hyperparameter that scales the adapters; only adapted runs have it."""


def merge_leaves(leaves: Mapping[str, Any], alpha: Any) -> dict[str, Any]:
    """Returns path -> array of the task's own parameters, with the adapters added, given those of an adapted task."""
    base = {path.removeprefix(f"{BASE}/"): leaf for path, leaf in leaves.items() if path.startswith(f"{BASE}/")}
    pairs = [
        path.removesuffix("/down") for path in leaves if path.startswith(f"{ADAPTERS}/") and path.endswith("/down")
    ]
    for pair in pairs:
        path = pair.removeprefix(f"{ADAPTERS}/")
        base[path] = _add(base[path], leaves[f"{pair}/down"], leaves[f"{pair}/up"], alpha)
    return base


def _add(weight: Any, down: Any, up: Any, alpha: Any) -> Any:
    """Returns weight + alpha / rank * down @ up."""
    return weight + alpha / down.shape[-1] * (down @ up).reshape(weight.shape)


class LoRA(NamedTuple):
    """The weights that are adapted: those with two axes or more whose path matches the regular expression."""

    paths: str
    rank: int

    def adapt(self, task: Task) -> Task:
        """Returns the task with parameters {"base": those of the task, "lora": path -> matrices}.

        Its functions see weight + alpha / rank * down @ up, with alpha = values["lora.alpha"]. `up` starts at 0, so the
        first step starts from the task's own weights. Hu et al. (2021), https://arxiv.org/abs/2106.09685.
        """

        def init(key: jax.Array, batch: Batch, values: Values) -> tuple[Any, Any]:
            params, model_state = task.init(key, batch, values)
            return {BASE: params, ADAPTERS: self._adapters(params, stream(key, ADAPTERS))}, model_state

        def loss(params: Any, model_state: Any, batch: Batch, key: jax.Array, values: Values, train: bool) -> Any:
            return task.loss(self.merge(params, values), model_state, batch, key, values, train)

        def predict(params: Any, model_state: Any, inputs: Any, values: Values) -> Any:
            return task.predict(self.merge(params, values), model_state, inputs, values)

        def decode(params: Any, model_state: Any, tokens: Any, values: Values, *at: Any) -> Any:
            return task.decode(self.merge(params, values), model_state, tokens, values, *at)

        return Task(init, loss, predict, decode)

    def merge(self, params: Any, values: Values) -> Any:
        """Returns the task's own parameters with the adapters added to them."""
        base = dict(named_leaves(params[BASE]))
        added = {path: _add(base[path], alpha=values[ALPHA], **pair) for path, pair in params[ADAPTERS].items()}
        return replace_leaves(params[BASE], added)

    def _adapters(self, params: Any, key: jax.Array) -> dict[str, dict[str, jax.Array]]:
        """Makes the matrices of each chosen weight; all axes of a kernel but the last count as inputs."""
        matched = jax.tree.leaves(match_paths("lora.paths", self.paths, params))
        chosen = {
            path: leaf
            for (path, leaf), match in zip(named_leaves(params), matched, strict=True)
            if match and leaf.ndim > 1
        }
        if not chosen:
            raise ConfigError("lora.paths", self.paths, "a pattern that matches a weight of two axes or more")
        adapters = {}
        for path, leaf in chosen.items():
            *inputs, outputs = leaf.shape
            width = math.prod(inputs)
            down = jax.random.normal(stream(key, path), (width, self.rank)) / math.sqrt(width)
            adapters[path] = {"down": down, "up": jnp.zeros((self.rank, outputs))}
        return adapters
