"""Tells models whether their program runs once for a call, or inside a compiled loop."""

import contextlib
import contextvars
from collections.abc import Iterator

_outside_loops: contextvars.ContextVar[bool] = contextvars.ContextVar("outside_loops", default=False)


@contextlib.contextmanager
def outside_loops() -> Iterator[None]:
    """Makes layers traced inside take the formulation that is fast outside of `scan` and `while`, as in a prediction.

    Training and evaluation run models inside loops, which is the default. The numbers agree within rounding.
    """
    token = _outside_loops.set(True)
    try:
        yield
    finally:
        _outside_loops.reset(token)


def is_outside_loops() -> bool:
    """Tells whether the program being traced was declared by `outside_loops`."""
    return _outside_loops.get()
