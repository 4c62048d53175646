"""sha256 of every leaf of a pytree, so that a flipped bit is seen and two states can be compared by one line."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxtrain.errors import ConfigError

LeafTable = dict[str, dict[str, Any]]


def named_leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yields every leaf with its path, such as "params/Dense_0/kernel", in the order of `jax.tree.leaves`.

    Raises ValueError where two leaves have one path (a key with a slash in it).
    """
    seen = set()
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        if path in seen:
            raise ValueError(f"two leaves of the tree are called {path!r}: rename one of the keys")
        seen.add(path)
        yield path, leaf


def leaf_digests(tree: Any) -> LeafTable:
    """Maps the path of every leaf to {"sha256": hex digits, "shape": list of int, "dtype": name}; leaves are arrays."""
    return {path: _leaf_digest(np.asarray(leaf)) for path, leaf in named_leaves(tree)}


def _leaf_digest(array: np.ndarray) -> dict[str, Any]:
    # bfloat16 exports no buffer of its own; its bytes do.
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return {"sha256": hashlib.sha256(content).hexdigest(), **_form(array)}


def state_digest(tree: Any) -> str:
    """Returns one sha256 (hex digits) over the paths, shapes, dtypes and contents of all leaves in their order."""
    return hashlib.sha256(json.dumps(list(leaf_digests(tree).items())).encode()).hexdigest()


def first_difference(saved: Mapping[str, Mapping[str, Any]], target: Any) -> str | None:
    """Returns a line on the first leaf of `target` whose shape or dtype is not the saved one, or None when all fit.

    `saved` is a table of `leaf_digests`; `target` a pytree of arrays or `jax.ShapeDtypeStruct`: contents do not count.
    """
    wanted = {path: _form(leaf) for path, leaf in named_leaves(target)}
    for path, form in wanted.items():
        if path not in saved:
            return f"{path}: missing in what was saved, expected {_shown(form)}"
        if _shown(saved[path]) != _shown(form):
            return f"{path}: saved {_shown(saved[path])}, expected {_shown(form)}"
    extra = next((path for path in saved if path not in wanted), None)
    return None if extra is None else f"{extra}: saved {_shown(saved[extra])}, unexpected here"


def _form(leaf: Any) -> dict[str, Any]:
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return {"shape": list(array.shape), "dtype": str(array.dtype)}


def _shown(form: Mapping[str, Any]) -> str:
    return f"{form['dtype']}[{','.join(str(size) for size in form['shape'])}]"


def match_paths(key: str, pattern: str, tree: Any) -> Any:
    """Returns a tree of bools: whether the regular expression is found in the path of each leaf.

    Raises ConfigError, with the paths that there are, where it is found in none: `key` is where the pattern was given.
    """
    paths = [path for path, _ in named_leaves(tree)]
    found = [re.search(pattern, path) is not None for path in paths]
    if not any(found):
        raise ConfigError(key, pattern, f"a pattern that matches one of {', '.join(paths)}")
    return jax.tree.unflatten(jax.tree.structure(tree), found)
