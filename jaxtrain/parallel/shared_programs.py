"""Programs that a process shares: equal rules get one jitted function, and dropping it frees what it compiled.

JAX keeps compiled programs, and the traces that they came from, for as long as the jitted function lives. A function
that takes rules as a static argument lives for ever, so every rules get a function of their own.
"""

import ctypes
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import jax

from jaxtrain.core.state import Rules

T = TypeVar("T")

MOST = 256
"""Functions that a process keeps; beyond, the least recently used are dropped."""

_functions: dict[tuple[Hashable, ...], Any] = {}
"""(maker, rules, arguments) -> jitted function, the least recently used first."""


def shared_program(make: Callable[..., T], rules: Rules, *arguments: Hashable) -> T:
    """Returns `make(rules, *arguments)`, the same object for equal arguments."""
    key = (make, rules, *arguments)
    function = _functions.pop(key, None) or make(rules, *arguments)
    _functions[key] = function
    if len(_functions) > MOST:
        del _functions[next(iter(_functions))]
    return function


def drop_programs(rules: Rules) -> None:
    """Drops all programs of these rules, and returns their memory to the system; the next use compiles them again."""
    for key in [key for key in _functions if key[1] == rules]:
        del _functions[key]
    _trim()


def drop_all_programs() -> None:
    """Drops all programs of the process, with the traces of library functions that no program can drop alone.

    Such traces, as those of an initializer for each shape, take about a megabyte for a model of another width.
    """
    _functions.clear()
    jax.clear_caches()
    _trim()


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # of glibc: without it the heap of the compiler's many threads stays with the process
        trim(0)
