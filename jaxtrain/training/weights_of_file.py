"""Weights of a `.safetensors` file as those of a run: names are mapped, and axes moved where they differ."""

import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from jaxtrain.errors import ConfigError, JaxtrainWarning, Words
from jaxtrain.files import reported_as
from jaxtrain.storage.safetensors_files import read_arrays

Layout = Literal["jax", "torch"]
"""Order of the axes of kernels. "jax": (inputs, outputs), (height, width, inputs, outputs); "torch": outputs first."""

PAIR = "pairs (regular expression, path), both texts"

MOST_LISTED = 20
"""Names of arrays that a warning lists."""


def read_weights_of_file(path: Path, names: Any, layout: Layout, wanted: Collection[str]) -> dict[str, np.ndarray]:
    r"""Reads path -> array, floats as float32; warns of arrays that have no place among the `wanted` paths.

    `names` holds pairs (regular expression, path): the first expression that matches the whole name of an array in the
    file gives its path, in which \1 stands for the first group. An array without a match keeps its name as its path.
    The prefix "params/" may be left out. Raises ConfigError for names that are no such pairs or that give two arrays
    one path, and for a file that cannot be read.
    """
    with reported_as(ConfigError, "checkpoint.init_from"):
        arrays = read_arrays(path)
    pairs = _check_pairs(names)
    weights: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    for name, array in arrays.items():
        place = _place(_rename(name, pairs), wanted)
        if place in origin:
            got = Words(f"one path, {place!r}, for {origin[place]!r} and {name!r}")
            raise ConfigError("checkpoint.init_names", got, "a path of its own for each array")
        origin[place] = name
        moved = _transpose(array, layout) if place.endswith("/kernel") else array
        weights[place] = moved.astype(np.float32) if jnp.issubdtype(moved.dtype, jnp.floating) else moved
    _warn_of_unused({origin[place]: place for place in weights if place not in wanted}, path)
    return weights


def _check_pairs(names: Any) -> list[tuple[re.Pattern[str], str]]:
    pairs = []
    for pair in names or ():
        if not isinstance(pair, tuple) or [type(part) for part in pair] != [str, str]:
            raise ConfigError("checkpoint.init_names", pair, PAIR)
        pattern, path = pair
        try:
            pairs.append((re.compile(pattern), path))
        except re.error as error:
            raise ConfigError("checkpoint.init_names", pair, PAIR, f"The expression is none: {error}") from error
    return pairs


def _rename(name: str, pairs: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, path in pairs:
        if matched := pattern.fullmatch(name):
            try:
                return matched.expand(path)
            except (re.error, IndexError) as error:
                hint = f"The path names a group that the expression lacks: {error}"
                raise ConfigError("checkpoint.init_names", (pattern.pattern, path), PAIR, hint) from error
    return name


def _place(name: str, wanted: Collection[str]) -> str:
    return f"params/{name}" if name not in wanted and f"params/{name}" in wanted else name


def _transpose(kernel: np.ndarray, layout: Layout) -> np.ndarray:
    """Moves the axis of the outputs to the end, and that of the inputs before it."""
    if layout == "jax" or kernel.ndim < 2:
        return kernel
    return np.moveaxis(kernel, (0, 1), (-1, -2))


def _warn_of_unused(unused: Mapping[str, str], path: Path) -> None:
    if unused:
        listed = [name if name == place else f"{name} (as {place})" for name, place in unused.items()]
        more = f" and {len(listed) - MOST_LISTED} more" if len(listed) > MOST_LISTED else ""
        got = Words(f"arrays in {path} that the model has no place for: {', '.join(listed[:MOST_LISTED])}{more}")
        expected = "an array for each weight; these are left out"
        warnings.warn(JaxtrainWarning("checkpoint.init_from", got, expected), stacklevel=2)
