"""Chooses between two formulations of an operation by the platform that runs the program."""

from collections.abc import Callable
from typing import Any

import jax

from jaxtrain.core.outside_loops import is_outside_loops


def in_loop_on_cpu(fast: Callable[..., jax.Array], native: Callable[..., jax.Array], *arguments: Any) -> jax.Array:
    """Calls `fast` in programs compiled for a CPU whose models run inside a loop, and `native` in all others.

    The platform is known when a program is lowered, and not when it is traced: both forms are traced, and one is
    compiled. So a program that is lowered on one machine suits the other that runs it.
    """
    if is_outside_loops():
        return native(*arguments)
    return jax.lax.platform_dependent(*arguments, cpu=fast, default=native)
