"""Reduce on plateau: evaluations change the factor, by editing the state's hyperparameters between two calls.

Its own state is kept as floats among the hyperparameters, so it is saved, resumed and mapped over lanes with them.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxtrain.config.registry import Values
from jaxtrain.config.schema import Bounds, Fraction, NonNegative, Positive, Probability
from jaxtrain.core.floats import as_floats

INITIAL_STATE: Mapping[str, float] = {"best": float(jnp.finfo(jnp.float32).max), "waited": 0.0, "resting": 0.0}
"""The state before the first evaluation; `best` is not infinity, since a state must be finite."""


def reduce_on_plateau(
    step: jax.Array,
    total_steps: jax.Array,
    scale: Positive = 1.0,
    factor: Fraction = 0.5,
    patience: Annotated[float, Bounds(1)] = 2.0,
    threshold: Probability = 1e-4,
    cooldown: NonNegative = 0.0,
    minimum: NonNegative = 0.0,
) -> jax.Array:
    """Multiplies `scale` by `factor` whenever `eval.metric` has not improved for `patience` evaluations in a row.

    An improvement is by more than the fraction `threshold` of the best value so far, on the validation split. After a
    reduction the next `cooldown` evaluations do not count, and `scale` never falls below `minimum`. Evaluations follow
    `eval.every`. Equals optax's contrib.reduce_on_plateau, https://optax.readthedocs.io/en/latest/api/contrib.html.

    >>> [float(reduce_on_plateau(jnp.float32(step), 100.0, scale=0.25)) for step in (0, 100)]
    [0.25, 0.25]
    """
    return jnp.broadcast_to(as_floats(scale), jnp.shape(step))


def after_evaluation(hparams: Values, prefix: str, loss: Any) -> dict[str, jax.Array]:
    """Returns the hyperparameters with the state of one plateau updated: the entries whose names begin with `prefix`.

    `loss` (lower is better) has their shape: () for a run, (lanes,) for lanes. A loss of nan is not an improvement.
    """
    current = {name.removeprefix(prefix): jnp.asarray(hparams[name]) for name in hparams if name.startswith(prefix)}
    loss = jnp.asarray(loss, current["best"].dtype)
    improved = loss < current["best"] - current["threshold"] * jnp.abs(current["best"])
    waited = jnp.where(improved | (current["resting"] > 0.0), 0.0, current["waited"] + 1.0)
    reduced = waited >= current["patience"]
    lower = jnp.maximum(current["scale"] * current["factor"], jnp.minimum(current["minimum"], current["scale"]))
    updated = {
        "scale": jnp.where(reduced, lower, current["scale"]),
        "best": jnp.where(improved, loss, current["best"]),
        "waited": jnp.where(reduced, 0.0, waited),
        "resting": jnp.where(reduced, current["cooldown"], jnp.maximum(current["resting"] - 1.0, 0.0)),
    }
    return {**hparams, **{prefix + name: value for name, value in updated.items()}}
