import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain.core.trees import first_difference, leaf_digests, state_digest


def tree() -> dict:
    return {
        "params": {"Dense_0": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3, jnp.bfloat16)}},
        "key": jnp.arange(2),
    }


def test_table_names_leaves_by_path_with_shape_and_dtype():
    table = leaf_digests({"opt": optax.adam(1e-3).init({"w": jnp.ones((2, 3), jnp.bfloat16)}), "none": None})
    assert list(table) == ["opt/0/count", "opt/0/mu/w", "opt/0/nu/w"]
    assert table["opt/0/mu/w"]["shape"] == [2, 3]
    assert table["opt/0/mu/w"]["dtype"] == "bfloat16"


def test_digest_is_that_of_the_bytes_wherever_they_lie():
    assert leaf_digests(tree()) == leaf_digests(jax.tree.map(np.asarray, tree()))
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert leaf_digests([rows[0, ::2]]) == leaf_digests([np.array([0, 2], np.float32)])
    assert leaf_digests([rows.T]) == leaf_digests([np.ascontiguousarray(rows.T)])


@pytest.mark.parametrize(
    "other",
    [
        {"a": np.array([1.0, -0.0], np.float32)},
        {"b": np.array([1.0, 0.0], np.float32)},
        {"a": np.array([[1.0, 0.0]], np.float32)},
        {"a": np.array([1.0, 0.0], np.float32).view(np.int32)},
    ],
    ids=["content", "path", "shape", "dtype"],
)
def test_state_digest_sees_content_path_shape_and_dtype(other):
    first = {"a": np.array([1.0, 0.0], np.float32)}
    assert state_digest(first) == state_digest({"a": jnp.array([1.0, 0.0])})
    assert state_digest(first) != state_digest(other)


def test_leaves_that_share_a_path_are_refused():
    with pytest.raises(ValueError, match="'a/b'"):
        leaf_digests({"a": {"b": np.ones(1)}, "a/b": np.zeros(1)})


def test_first_difference_names_the_leaf_and_both_forms():
    saved = leaf_digests(tree())
    assert first_difference(saved, jax.eval_shape(tree)) is None
    wider = tree()
    wider["params"]["Dense_0"]["kernel"] = jax.ShapeDtypeStruct((2, 4), jnp.float32)
    line = first_difference(saved, wider) or ""
    assert line.startswith("params/Dense_0/kernel:")
    assert "float32[2,3]" in line
    assert "float32[2,4]" in line


def test_first_difference_sees_a_changed_dtype_and_missing_and_unexpected_leaves():
    saved = leaf_digests(tree())
    lower = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree())
    assert "bfloat16[2]" in (first_difference(saved, lower) or "")
    assert "ema: missing" in (first_difference(saved, {**tree(), "ema": jnp.ones(1)}) or "")
    assert "key: saved int32[2], unexpected" in (first_difference(saved, {"params": tree()["params"]}) or "")
