"""Reduce on plateau: a factor that evaluations move. It is an edit of a state's hyperparameters, between two calls.

All that it remembers are floats among the hyperparameters, so it is saved, resumed and mapped over lanes as they are.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxtrain.config.registry import Values
from jaxtrain.config.schema import Bounds, Fraction, NonNegative, Positive, Probability

REMEMBERED: Mapping[str, float] = {"best": float(jnp.finfo(jnp.float32).max), "waited": 0.0, "resting": 0.0}
"""What a plateau knows before the first evaluation; not infinity, since a state must be finite."""


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
    """`scale`, multiplied by `factor` whenever `eval.metric` has not improved for `patience` evaluations in a row.

    Better means by more than the part `threshold` of the best so far, on the validation split; after a reduction the
    next `cooldown` evaluations do not count, and `scale` falls no lower than `minimum`. Evaluations are those of
    `eval.every`. Equals optax's contrib.reduce_on_plateau, https://optax.readthedocs.io/en/latest/api/contrib.html.

    >>> [float(reduce_on_plateau(jnp.float32(step), 100.0, scale=0.25)) for step in (0, 100)]
    [0.25, 0.25]
    """
    return jnp.broadcast_to(jnp.asarray(scale, jnp.float32), jnp.shape(step))


def after_evaluation(hparams: Values, prefix: str, loss: Any) -> dict[str, jax.Array]:
    """Returns the hyperparameters with the entries of one plateau edited: those whose names begin with `prefix`.

    `loss`, lower is better, has their shape: () for a run, (lanes,) for lanes. What is not a number is no improvement.
    """
    now = {name.removeprefix(prefix): jnp.asarray(hparams[name]) for name in hparams if name.startswith(prefix)}
    loss = jnp.asarray(loss, jnp.float32)
    improved = loss < now["best"] - now["threshold"] * jnp.abs(now["best"])
    waited = jnp.where(improved | (now["resting"] > 0.0), 0.0, now["waited"] + 1.0)
    reduced = waited >= now["patience"]
    lower = jnp.maximum(now["scale"] * now["factor"], jnp.minimum(now["minimum"], now["scale"]))
    edited = {
        "scale": jnp.where(reduced, lower, now["scale"]),
        "best": jnp.where(improved, loss, now["best"]),
        "waited": jnp.where(reduced, 0.0, waited),
        "resting": jnp.where(reduced, now["cooldown"], jnp.maximum(now["resting"] - 1.0, 0.0)),
    }
    return {**hparams, **{prefix + name: value for name, value in edited.items()}}
