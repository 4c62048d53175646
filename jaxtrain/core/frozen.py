"""Frozen parameters, which no step changes: kept apart from the trained ones, and once for lanes that share them."""

from collections.abc import Callable
from typing import Any

import jax
from flax import struct


def split_params(params: Any, is_frozen: Any) -> tuple[Any, Any]:
    """Returns (trained, frozen): each has the structure of `params`, and None where the other has the array.

    `is_frozen` is a tree of bools.
    """
    trained = jax.tree.map(lambda leaf, frozen: None if frozen else leaf, params, is_frozen)
    return trained, jax.tree.map(lambda leaf, frozen: leaf if frozen else None, params, is_frozen)


def join_params(trained: Any, frozen: Any) -> Any:
    """Inverts `split_params`; `frozen` is None for a run that trains all of its parameters."""
    if frozen is None:
        return trained
    return jax.tree.map(lambda own, other: other if own is None else own, trained, frozen, is_leaf=_is_none)


def split_like(state: Any, params: Any) -> tuple[Any, Any]:
    """Splits all parameters as those of a state are; the frozen part is None for a state without frozen parameters."""
    if state.frozen is None:
        return params, None
    is_frozen = jax.tree.map(_is_none, state.params, is_leaf=_is_none)
    return split_params(params, is_frozen)


def _is_none(node: Any) -> bool:
    return node is None


class SharedByLanes(struct.PyTreeNode):
    """Frozen parameters of states with a lane axis, which have none themselves, since all lanes share them."""

    tree: Any


def take_shared(states: Any) -> tuple[Any, Any]:
    """Returns states without what their lanes share, and that: None where each lane has its own."""
    shared = states.frozen
    return (states.replace(frozen=None), shared.tree) if _is_shared(shared) else (states, None)


def put_shared(states: Any, shared: Any) -> Any:
    """Inverts `take_shared`."""
    return states if shared is None else states.replace(frozen=SharedByLanes(shared))


def map_lanes(function: Callable[..., Any], *trees: Any) -> Any:
    """Maps a function over the leaves with a lane axis; what the lanes share is that of the first tree."""
    return jax.tree.map(
        lambda leaf, *others: leaf if _is_shared(leaf) else function(leaf, *others), *trees, is_leaf=_is_shared
    )


def _is_shared(node: Any) -> bool:
    return isinstance(node, SharedByLanes)
