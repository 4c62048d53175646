"""Small leaves of a tree become one array for each dtype, and the tree again."""

from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest

from jaxtrain.core.frozen import SharedByLanes
from jaxtrain.storage import joined_leaves
from jaxtrain.storage.joined_leaves import join_leaves, joined_shapes, split_leaves


def a_tree(scale: float = 1.0) -> Any:
    """Leaves of five dtypes, a scalar, an empty one, a view and what lanes share."""
    return {
        "0": {"kernel": scale * np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.array(7, np.int32)},
        "1": [np.zeros((0, 4), np.float32), np.array([True, False]), np.arange(8, dtype=np.float32)[::2]],
        "shared": SharedByLanes({"key": np.array([1, 2**32 - 1], np.uint32)}),
        "half": np.array([1.5, np.nan], ml_dtypes.bfloat16),
    }


def shapes_of(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize(("small", "arrays"), [(2**20, 5), (0, 7)])
def test_leaves_are_joined_by_dtype_and_split_to_the_bit(
    small: int, arrays: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joined_leaves, "SMALL", small)
    tree = a_tree()
    joined = join_leaves(tree)
    assert len(joined) == arrays
    assert shapes_of(joined) == joined_shapes(shapes_of(tree))
    restored = split_leaves(joined, shapes_of(tree))
    assert jax.tree.structure(restored) == jax.tree.structure(tree)
    for before, after in zip(jax.tree.leaves(tree), jax.tree.leaves(restored), strict=True):
        assert (before.dtype, before.shape, before.tobytes()) == (after.dtype, after.shape, after.tobytes())


def test_a_split_leaf_does_not_hold_the_whole_array() -> None:
    tree = a_tree()
    for leaf in jax.tree.leaves(split_leaves(join_leaves(tree), shapes_of(tree))):
        assert leaf.flags.owndata or leaf.base.nbytes == leaf.nbytes


@pytest.mark.parametrize("change", ["path", "shape"])
def test_trees_of_other_paths_or_shapes_have_other_names(change: str) -> None:
    tree = a_tree()
    kernel = tree["0"].pop("kernel")
    tree["0"]["weight" if change == "path" else "kernel"] = kernel if change == "path" else kernel.T
    assert join_leaves(tree).keys() != join_leaves(a_tree()).keys()
    assert join_leaves(a_tree(2.0)).keys() == join_leaves(a_tree()).keys()
