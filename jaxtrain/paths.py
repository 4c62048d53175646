"""Parameters chosen by their paths, such as "Dense_0/kernel", with regular expressions."""

import re
from typing import Any

import jax

from jaxtrain.digests import named_leaves
from jaxtrain.errors import ConfigError


def matching(key: str, pattern: str, tree: Any) -> Any:
    """Returns a tree of bools: whether the regular expression is found in the path of each leaf.

    Raises ConfigError, with the paths that there are, where it is found in none: `key` is where the pattern was given.
    """
    paths = [path for path, _ in named_leaves(tree)]
    found = [re.search(pattern, path) is not None for path in paths]
    if not any(found):
        raise ConfigError(key, pattern, f"a pattern that matches one of {', '.join(paths)}")
    return jax.tree.unflatten(jax.tree.structure(tree), found)
