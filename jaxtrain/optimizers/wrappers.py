"""What goes around any optimizer, and which parameters weight decay applies to."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxtrain.config.schema import NonNegative, Pattern, Positive
from jaxtrain.core.trees import match_paths
from jaxtrain.errors import ConfigError


def around(
    transformation: optax.GradientTransformation,
    clip_value: Positive | None = None,
    clip_norm: Positive | None = None,
    clip_adaptive: Positive | None = None,
    frozen: Pattern | None = None,
    scaled: Pattern | None = None,
    scaled_by: NonNegative | None = None,
) -> optax.GradientTransformation:
    """Clips gradients, freezes parameters and scales the steps of others by path; None leaves each of these out.

    In this order: every gradient to [-`clip_value`, `clip_value`]; their global norm to `clip_norm` (Pascanu et al.
    2013, https://arxiv.org/abs/1211.5063); the norm of each unit's gradient to `clip_adaptive` times the norm of its
    weights, which counts as 1e-3 at least (Brock et al. 2021, https://arxiv.org/abs/2102.06171).

    `frozen` and `scaled` are regular expressions, searched in paths such as "Dense_0/kernel". Parameters that match
    `frozen` stay as they are, have no state in the optimizer and count in no norm; the steps of those that match
    `scaled` are multiplied by `scaled_by`, which is a learning rate of their own. ConfigError where one matches none.

    >>> optimizer = around(optax.sgd(0.1), clip_value=2.0, frozen="head", scaled="^norm", scaled_by=0.5)
    >>> weights = {"body": jnp.array([4.0]), "head": jnp.array([4.0]), "norm": jnp.array([4.0])}
    >>> updates, _ = optimizer.update(weights, optimizer.init(weights), weights)
    >>> {name: round(float(update[0]), 3) for name, update in updates.items()}
    {'body': -0.2, 'head': 0.0, 'norm': -0.1}
    """
    if (scaled is None) != (scaled_by is None):
        key, given = ("scaled", scaled) if scaled_by is None else ("scaled_by", scaled_by)
        raise ConfigError(f"optimizer.{key}", given, "None, or optimizer.scaled and optimizer.scaled_by together")
    clips = (
        (clip_value, optax.clip),
        (clip_norm, optax.clip_by_global_norm),
        (clip_adaptive, optax.adaptive_grad_clip),
    )
    parts = [clip(limit) for limit, clip in clips if limit is not None] + [transformation]
    if scaled is not None and scaled_by is not None:
        parts.append(
            optax.masked(optax.scale(scaled_by), lambda params: match_paths("optimizer.scaled", scaled, params))
        )
    whole = optax.chain(*parts) if len(parts) > 1 else transformation
    return whole if frozen is None else _thawed(whole, frozen)


def decay_mask(decayed: str | None) -> Callable[[Any], Any]:
    """Returns what optax calls a mask: params -> a tree of bools, whether weight decay applies.

    `decayed` is a regular expression, searched in paths; None is `is_decayed`.
    """
    return is_decayed if decayed is None else lambda params: match_paths("optimizer.decayed", decayed, params)


def is_decayed(params: Any) -> Any:
    """Marks what weight decay applies to: arrays of two axes and more, hence neither biases nor norms."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _thawed(transformation: optax.GradientTransformation, frozen: str) -> optax.GradientTransformation:
    """Shows the transformation only the parameters whose path does not match."""

    def labels(params: Any) -> Any:
        still = match_paths("optimizer.frozen", frozen, params)
        return jax.tree.map(lambda stays: "frozen" if stays else "trained", still)

    return optax.partition({"trained": transformation, "frozen": optax.set_to_zero()}, labels)
