"""The name of the mapped axis over which batch norms take their statistics."""

import contextlib
import contextvars
from collections.abc import Iterator

_batch_axis: contextvars.ContextVar[str | None] = contextvars.ContextVar("batch_axis", default=None)


@contextlib.contextmanager
def batch_axis(name: str) -> Iterator[None]:
    """Makes batch norms that are traced inside take their statistics over the whole batch of a mapped axis.

    Under `pmap` a model sees its own device's share alone, and how it is mapped is not the model's business.
    """
    token = _batch_axis.set(name)
    try:
        yield
    finally:
        _batch_axis.reset(token)


def mapped_batch_axis() -> str | None:
    """Returns the name of the axis set by `batch_axis`; None outside of it."""
    return _batch_axis.get()
