"""Precision: in which type a module computes, and how exact its matrix products are, as two words of the config.

Parameters, the optimizer's state, statistics, losses, metrics and predictions are float32 whatever is chosen.
"""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxtrain.config.sections import Compute, Products


class Module(Protocol):
    """What a task asks of a module: that it can be initialised and applied, as a Linen module can."""

    def init(self, rngs: Any, *args: Any, **options: Any) -> Any: ...  # noqa: D102
    def apply(self, variables: Any, *args: Any, **options: Any) -> Any: ...  # noqa: D102


@dataclass(frozen=True)
class InBfloat16:
    """A module that computes in bfloat16 between variables, inputs and results in float32.

    Parameters and inputs are rounded where the module is applied, so their gradients come back in float32; other
    variables, such as running statistics, go in as they are.
    """

    module: Module

    def init(self, rngs: Any, *args: Any, **options: Any) -> Any:
        """Makes the variables as the module does by itself: in float32, the same for both types of computation."""
        return self.module.init(rngs, *args, **options)

    def apply(self, variables: Any, *args: Any, **options: Any) -> Any:
        """Applies the module."""
        rounded = {k: _cast(tree, jnp.bfloat16) if k == "params" else tree for k, tree in variables.items()}
        with jax.numpy_dtype_promotion("standard"):  # norms mix float32 statistics with the inputs
            found = self.module.apply(rounded, *_cast(args, jnp.bfloat16), **options)
        return _cast(found, jnp.float32)


class Precision(NamedTuple):
    """The type that modules compute in, and the precision of products of float32 matrices."""

    compute: Compute = "float32"
    products: Products = "default"

    def wrap_module(self, module: Module) -> Module:
        """Returns the module such that it computes in the chosen type."""
        return InBfloat16(module) if self.compute == "bfloat16" else module

    def wrap_function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function with its matrix products, and those of its gradients, of the chosen precision."""

        def within(*args: Any) -> Any:
            with self._context():
                return function(*args)

        return within

    def _context(self) -> AbstractContextManager[Any]:
        """What JAX was told by its own settings stays so by "default"."""
        return contextlib.nullcontext() if self.products == "default" else jax.default_matmul_precision(self.products)


def _cast(tree: Any, dtype: Any) -> Any:
    """Casts the arrays of floats in a tree; integers, keys and what is no array stay as they are."""

    def cast(leaf: Any) -> Any:
        is_float = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, dtype) if is_float else leaf

    return jax.tree.map(cast, tree)
