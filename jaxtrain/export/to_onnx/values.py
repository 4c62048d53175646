"""Values of a graph: their shapes, with the number of examples as a symbol, and their types."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import dtypes, export

Dimension = Any
"""An int, or an expression of the number of examples, as of `jax.export`."""

Shape = tuple[Dimension, ...]


class NoFormError(Exception):
    """Says what of a primitive has no form in ONNX; nothing for all of it."""


@dataclass(frozen=True, eq=False)
class Value:
    """A value by its name, and its content where that is known already.

    An axis of length 1 may stand for one of any length, along which the value is repeated: operations of ONNX on
    single numbers repeat their operands so.
    """

    name: str
    shape: Shape
    dtype: np.dtype
    content: np.ndarray | None = None

    @property
    def is_known(self) -> bool:
        """Whether its content is known before the program runs."""
        return self.content is not None

    @property
    def is_empty(self) -> bool:
        """Whether it holds no number, whatever the number of examples."""
        return 0 in self.shape


def held_dtype(dtype: Any) -> np.dtype:
    """Returns the type that a graph holds for a type of JAX: float32 for all narrower floats, which CPUs lack."""
    if jnp.issubdtype(dtype, dtypes.extended):
        raise NoFormError(f"the type {dtype}")
    held = np.dtype(dtype)
    is_narrow = jnp.issubdtype(held, np.floating) and held.itemsize < 4
    return np.dtype(np.float32) if is_narrow else held


def is_static(dimensions: Sequence[Dimension]) -> bool:
    """Tells whether no dimension depends on the number of examples."""
    return not any(export.is_symbolic_dim(dimension) for dimension in dimensions)


def linear_form(dimension: Dimension) -> tuple[int, int]:
    """Returns (a, b) of a dimension a * n + b; raises NoFormError for another function of the number of examples n."""
    if not export.is_symbolic_dim(dimension):
        return 0, int(dimension)
    (symbol,) = dimension.get_vars()
    evaluate: Any = dimension._evaluate
    at_1, at_2, at_5 = (evaluate({symbol: count}) for count in (1, 2, 5))
    slope = at_2 - at_1
    if at_5 != at_1 + 4 * slope:
        raise NoFormError(f"the size {dimension}")
    return slope, at_1 - slope


def product(dimensions: Sequence[Dimension]) -> Dimension:
    """Returns the product of dimensions."""
    return math.prod(dimensions)


def broadcast_shapes(shapes: Sequence[Shape]) -> Shape:
    """Returns the shape of an operation on single numbers of values with these shapes."""
    rank = max(map(len, shapes))
    aligned = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(next((d for d in column if d != 1), 1) for column in zip(*aligned, strict=True))
