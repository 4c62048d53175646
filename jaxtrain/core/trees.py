"""Sizes, paths and sha256 digests of the leaves of a pytree; detects corruption and compares two states by one line."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.errors import ConfigError, Words, message, one_of

LeafTable = dict[str, dict[str, Any]]


def sample_distance(size: int, most: int) -> int:
    """Returns the distance of at most `most` evenly spaced numbers; an odd one meets all columns of even widths."""
    return -(-size // most) | 1


def is_float(leaf: Any) -> bool:
    """Tells whether an array or a shape holds floating-point numbers."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def tree_bytes(tree: Any) -> int:
    """Returns the bytes of a tree of arrays or shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def named_leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yields (path, leaf), with paths such as "params/Dense_0/kernel", in the order of `jax.tree.leaves`.

    Raises ValueError if two leaves have the same path, because a key contains a slash.
    """
    seen = set()
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        if path in seen:
            got = Words(f"two leaves with the path {path!r}")
            hint = "Rename one of the keys"
            raise ValueError(message("tree", got, "a path of its own for each leaf", hint))
        seen.add(path)
        yield path, leaf


def replace_leaves(tree: Any, leaves: Mapping[str, Any]) -> Any:
    """Returns the tree with the leaves given by their paths in the place of its own; others stay."""
    replaced = [leaves.get(path, leaf) for path, leaf in named_leaves(tree)]
    return jax.tree.unflatten(jax.tree.structure(tree), replaced)


def leaf_digests(tree: Any) -> LeafTable:
    """Maps the path of each array to {"sha256": hex digits, "shape": list of int, "dtype": name}."""
    return {path: _leaf_digest(np.asarray(leaf)) for path, leaf in named_leaves(tree)}


def _leaf_digest(array: np.ndarray) -> dict[str, Any]:
    # NumPy cannot export a buffer of bfloat16, so hash a view of its bytes.
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return {"sha256": hashlib.sha256(content).hexdigest(), **_spec(array)}


def state_digest(tree: Any) -> str:
    """Returns the sha256 (hex digits) of paths, shapes, dtypes and contents of all leaves, in order."""
    return table_digest(leaf_digests(tree))


def table_digest(table: LeafTable) -> str:
    """Returns the digest of a state from those of its leaves."""
    return hashlib.sha256(json.dumps(list(table.items())).encode()).hexdigest()


def first_difference(saved: Mapping[str, Mapping[str, Any]], target: Any) -> str | None:
    """Describes the first leaf whose path, shape or dtype differs from the saved one; None if all match.

    `saved` is a table of `leaf_digests`, `target` a pytree of arrays or `jax.ShapeDtypeStruct`. Contents are ignored.
    """
    expected = {path: _spec(leaf) for path, leaf in named_leaves(target)}
    for path, spec in expected.items():
        if path not in saved:
            return f"{path}: missing in what was saved, expected {_format(spec)}"
        if _format(saved[path]) != _format(spec):
            return f"{path}: saved {_format(saved[path])}, expected {_format(spec)}"
    extra = next((path for path in saved if path not in expected), None)
    return None if extra is None else f"{extra}: saved {_format(saved[extra])}, unexpected here"


def _spec(leaf: Any) -> dict[str, Any]:
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return {"shape": list(array.shape), "dtype": str(array.dtype)}


def _format(spec: Mapping[str, Any]) -> str:
    return f"{spec['dtype']}[{','.join(str(size) for size in spec['shape'])}]"


def match_paths(key: str, pattern: str, tree: Any) -> Any:
    """Returns a tree of bools: True for leaves whose path contains a match of the regular expression.

    Raises ConfigError, which lists all paths, if no path matches; `key` is the config key of the pattern.
    """
    paths = [path for path, _ in named_leaves(tree)]
    matches = [re.search(pattern, path) is not None for path in paths]
    if not any(matches):
        raise ConfigError(key, pattern, f"a pattern that matches {one_of(paths)}")
    return jax.tree.unflatten(jax.tree.structure(tree), matches)
