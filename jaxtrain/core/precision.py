"""The dtype that modules compute in, and the precision of their float32 matrix products.

Parameters, optimizer state, statistics, losses, metrics and predictions are float32, and float64 with "float64".
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
    """A module with the `init` and `apply` of a Linen module; a task needs no more."""

    def init(self, rngs: Any, *args: Any, **options: Any) -> Any: ...  # noqa: D102
    def apply(self, variables: Any, *args: Any, **options: Any) -> Any: ...  # noqa: D102


@dataclass(frozen=True)
class InBfloat16:
    """A module that computes in bfloat16, with variables, inputs and outputs in float32.

    `apply` casts parameters and inputs to bfloat16, so their gradients are float32 again. Other variables, such as
    running statistics, are not cast.
    """

    module: Module

    def init(self, rngs: Any, *args: Any, **options: Any) -> Any:
        """Initialises the variables in float32, to the same values as without the wrapper."""
        return self.module.init(rngs, *args, **options)

    def apply(self, variables: Any, *args: Any, **options: Any) -> Any:
        """Applies the module in bfloat16; returns float32."""
        variables = {k: _cast(tree, jnp.bfloat16) if k == "params" else tree for k, tree in variables.items()}
        with jax.numpy_dtype_promotion("standard"):  # norms mix float32 statistics with the inputs
            outputs = self.module.apply(variables, *_cast(args, jnp.bfloat16), **options)
        return _cast(outputs, jnp.float32)


@dataclass(frozen=True)
class InFloat64:
    """A module with variables, inputs and outputs in float64; it needs `jax_enable_x64`."""

    module: Module

    def init(self, rngs: Any, *args: Any, **options: Any) -> Any:
        """Initialises the variables in float32; `Precision.wrap_init` makes them float64."""
        return self.module.init(rngs, *args, **options)

    def apply(self, variables: Any, *args: Any, **options: Any) -> Any:
        """Applies the module in float64."""
        with jax.numpy_dtype_promotion("standard"):  # constants of a module may be float32
            outputs = self.module.apply(variables, *_cast(args, jnp.float64), **options)
        return _cast(outputs, jnp.float64)


WRAPPERS: dict[Compute, Callable[[Module], Module]] = {
    "float32": lambda module: module,
    "bfloat16": InBfloat16,
    "float64": InFloat64,
}
"""Compute dtype -> the wrapper of a module that computes in it."""


class Precision(NamedTuple):
    """The dtype that modules compute in, and the precision of products of float32 matrices."""

    compute: Compute = "float32"
    products: Products = "default"

    def wrap_module(self, module: Module) -> Module:
        """Makes a module compute in the chosen dtype."""
        return WRAPPERS[self.compute](module)

    def wrap_init(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Makes a function of arrays return what it returns in float32, as float64 where that is chosen."""
        if self.compute != "float64":
            return self.wrap_function(function)

        def wrapped(*args: Any) -> Any:
            given = _cast(args, jnp.float32)
            with jax.enable_x64(False):
                made = function(*given)
            return _cast(made, jnp.float64)

        return wrapped

    def wrap_function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Gives the chosen precision to the matrix products of a function and of its gradients."""

        def wrapped(*args: Any) -> Any:
            with self._context():
                return function(*args)

        return wrapped

    def _context(self) -> AbstractContextManager[Any]:
        """Sets JAX's matmul precision; "default" keeps JAX's own setting."""
        return contextlib.nullcontext() if self.products == "default" else jax.default_matmul_precision(self.products)


def _cast(tree: Any, dtype: Any) -> Any:
    """Casts the float arrays of a tree; integers, keys and other objects stay unchanged."""

    def cast(leaf: Any) -> Any:
        is_float = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, dtype) if is_float else leaf

    return jax.tree.map(cast, tree)
