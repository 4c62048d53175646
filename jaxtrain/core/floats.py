"""The type of floats in a program: float32, or float64 where what enters it is float64."""

from typing import Any

import jax
import jax.numpy as jnp


def as_floats(values: Any) -> jax.Array:
    """Returns numbers as float64 where they are float64, else as float32."""
    array = jnp.asarray(values)
    return array.astype(float_type(array))


def float_type(*arrays: Any) -> Any:
    """Returns the type of what is computed from arrays: float64 where one of them is float64, else float32."""
    return jnp.float64 if any(array.dtype == jnp.float64 for array in arrays) else jnp.float32
