"""Name of the mapped axis over which batch norms compute their statistics."""

import contextlib
import contextvars
from collections.abc import Iterator

_batch_axis: contextvars.ContextVar[str | None] = contextvars.ContextVar("batch_axis", default=None)


@contextlib.contextmanager
def batch_axis(name: str) -> Iterator[None]:
    """Makes batch norms traced inside compute their statistics over the mapped axis `name`.

    Under `pmap` a model sees only its device's share of the batch. A context variable tells the norms of the axis, so
    that models take no argument for it.
    """
    token = _batch_axis.set(name)
    try:
        yield
    finally:
        _batch_axis.reset(token)


def mapped_batch_axis() -> str | None:
    """Returns the axis set by `batch_axis`, or None outside of it."""
    return _batch_axis.get()
