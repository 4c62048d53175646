"""Gradient clipping, freezing and per-path step scaling around any optimizer; masks of weight decay."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxtrain.config.schema import NonNegative, Pattern, Positive
from jaxtrain.core.trees import match_paths
from jaxtrain.errors import ConfigError


def wrap(
    transformation: optax.GradientTransformation,
    clip_value: Positive | None = None,
    clip_norm: Positive | None = None,
    clip_adaptive: Positive | None = None,
    frozen: Pattern | None = None,
    scaled: Pattern | None = None,
    scaled_by: NonNegative | None = None,
) -> optax.GradientTransformation:
    """Clips gradients, freezes parameters by path and scales the steps of others by path; None turns each of these off.

    Clipping comes in this order: every gradient to [-`clip_value`, `clip_value`]; the global norm to `clip_norm`
    (Pascanu et al. 2013, https://arxiv.org/abs/1211.5063); the norm of each unit's gradient to `clip_adaptive` times
    the norm of its weights, taken as at least 1e-3 (Brock et al. 2021, https://arxiv.org/abs/2102.06171).

    `frozen` and `scaled` are regular expressions, searched in paths such as "Dense_0/kernel". Parameters that match
    `frozen` do not change, have no optimizer state and count in no norm. Steps of parameters that match `scaled` are
    multiplied by `scaled_by`, which gives them their own learning rate. ConfigError if a pattern matches no path.

    >>> optimizer = wrap(optax.sgd(0.1), clip_value=2.0, frozen="head", scaled="^norm", scaled_by=0.5)
    >>> weights = {"body": jnp.array([4.0]), "head": jnp.array([4.0]), "norm": jnp.array([4.0])}
    >>> updates, _ = optimizer.update(weights, optimizer.init(weights), weights)
    >>> {name: round(float(update[0]), 3) for name, update in updates.items()}
    {'body': -0.2, 'head': 0.0, 'norm': -0.1}
    """
    if (scaled is None) != (scaled_by is None):
        key, given = ("scaled", scaled) if scaled_by is None else ("scaled_by", scaled_by)
        raise ConfigError(f"optimizer.{key}", given, "None, or both optimizer.scaled and optimizer.scaled_by")
    clips = (
        (clip_value, optax.clip),
        (clip_norm, optax.clip_by_global_norm),
        (clip_adaptive, optax.adaptive_grad_clip),
    )
    transformations = [clip(limit) for limit, clip in clips if limit is not None] + [transformation]
    if scaled is not None and scaled_by is not None:
        mask = partial(match_paths, "optimizer.scaled", scaled)
        transformations.append(optax.masked(optax.scale(scaled_by), mask))
    wrapped = optax.chain(*transformations) if len(transformations) > 1 else transformation
    return wrapped if frozen is None else _freeze(wrapped, frozen)


def decay_mask(decayed: str | None) -> Callable[[Any], Any]:
    """Returns an optax mask: a function from params to a tree of bools, true where weight decay applies.

    `decayed` is a regular expression, searched in paths; None means `is_decayed`.
    """
    return is_decayed if decayed is None else lambda params: match_paths("optimizer.decayed", decayed, params)


def is_decayed(params: Any) -> Any:
    """Returns a tree of bools, true for arrays with at least two axes: weight decay skips biases and norms."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def store_raw_keys(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """Stores the typed random keys in a transformation's state as integers, which checkpoints and digests can hold."""

    def is_key(leaf: Any) -> bool:
        return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)

    def raw(state: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, state)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        shapes = jax.eval_shape(transformation.init, params)
        typed = jax.tree.map(
            lambda shape, leaf: jax.random.wrap_key_data(leaf) if is_key(shape) else leaf, shapes, state
        )
        updates, state = optax.with_extra_args_support(transformation).update(updates, typed, params, **extra)
        return updates, raw(state)

    return optax.GradientTransformationExtraArgs(lambda params: raw(transformation.init(params)), update)


def _freeze(transformation: optax.GradientTransformation, frozen: str) -> optax.GradientTransformation:
    """Applies the transformation only to parameters whose path does not match; the others get zero updates."""

    def labels(params: Any) -> Any:
        mask = match_paths("optimizer.frozen", frozen, params)
        return jax.tree.map(lambda is_frozen: "frozen" if is_frozen else "trained", mask)

    partitioned = optax.partition(
        {"trained": transformation, "frozen": optax.set_to_zero()}, labels, mask_compatible_extra_args=True
    )

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        filled = {name: _filled(given, params) if callable(given) else given for name, given in extra.items()}
        return partitioned.update(updates, state, params, **filled)

    return optax.GradientTransformationExtraArgs(partitioned.init, update)


def _filled(function: Callable[..., Any], params: Any) -> Callable[..., Any]:
    """Makes a function of all parameters one of the trained ones, in which the frozen ones are masked."""

    def of_trained(trained: Any, **options: Any) -> Any:
        whole = jax.tree.map(
            lambda leaf, own: own if isinstance(leaf, optax.MaskedNode) else leaf,
            trained,
            params,
            is_leaf=lambda node: isinstance(node, optax.MaskedNode),
        )
        return function(whole, **options)

    return functools.wraps(function)(of_trained)
