"""The numbers that a call measures on its last step: norms, and samples of gradients."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxtrain.core.floats import as_floats
from jaxtrain.core.metric import Mean, Metrics
from jaxtrain.core.metric_names import BY_LAYER, SAMPLES
from jaxtrain.core.state import Rules
from jaxtrain.core.trees import sample_distance

NORMS_OF_UPDATES = ("norm_update", "norm_parameter")


def measure_gradients(gradients: Any, measure: bool | jax.Array, rules: Rules) -> Metrics:
    """Returns the global L2 norm with count 1 if `measure`, else 0 with count 0, and what else the rules ask for."""
    measure = jnp.asarray(measure)

    def measured(function: Callable[[Any], jax.Array]) -> Mean:
        shape = jax.eval_shape(lambda: as_floats(function(gradients)))
        zeros = functools.partial(jnp.zeros, shape.shape, shape.dtype)
        value = lax.cond(measure, lambda: as_floats(function(gradients)), zeros)
        return Mean(value, measure.astype(jnp.float32))

    functions: dict[str, Callable[[Any], jax.Array]] = {"norm_gradient": optax.tree.norm}
    if rules.norms_by_layer:
        functions["norm_gradient" + BY_LAYER] = norms_by_layer
    if rules.samples_gradients:
        functions[SAMPLES] = sample_gradients
    return {name: measured(function) for name, function in functions.items()}


MOST_SAMPLES = 512
"""Numbers of each array of gradients that a call returns: each step of it writes as many zeros."""


def sample_gradients(gradients: Any) -> jax.Array:
    """Returns evenly spaced numbers of each leaf, float32 (leaves, MOST_SAMPLES), small ones filled up with zeros."""

    def sample(leaf: jax.Array) -> jax.Array:
        chosen = leaf.reshape(-1)[:: sample_distance(leaf.size, MOST_SAMPLES)].astype(jnp.float32)
        return jnp.pad(chosen, (0, MOST_SAMPLES - chosen.size))

    return jnp.stack([sample(leaf) for leaf in jax.tree.leaves(gradients)])


def measure_update(before: Any, after: Any, by_layer: bool) -> dict[str, jax.Array]:
    """Returns the L2 norms of an update and of the parameters after it; with `by_layer` also those of each array."""
    trees = dict(zip(NORMS_OF_UPDATES, (jax.tree.map(jnp.subtract, after, before), after), strict=True))
    norms = {name: as_floats(optax.tree.norm(tree)) for name, tree in trees.items()}
    own = {name + BY_LAYER: norms_by_layer(tree) for name, tree in trees.items()} if by_layer else {}
    return norms | own


def norms_by_layer(tree: Any) -> jax.Array:
    """Returns the L2 norm of each leaf, (leaves,)."""
    return jnp.stack([jnp.sqrt(jnp.square(as_floats(leaf)).sum()) for leaf in jax.tree.leaves(tree)])
