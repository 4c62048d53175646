"""Functions that are traced once, though a program needs both the shapes of what they return and their operations."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


def traced_once(function: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Returns a function whose trace is kept for arguments of equal shapes; the program that uses it stays the same.

    A deep model takes seconds to trace. Nothing is compiled apart: the operations are inlined where it is called.
    """
    return jax.jit(function, inline=True)
