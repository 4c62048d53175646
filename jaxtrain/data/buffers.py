"""Host buffers that are filled again once nobody reads them, aligned so that the CPU reads them in place."""

import sys
from collections.abc import Mapping

import numpy as np

ALIGNMENT = 64
"""Bytes: JAX on a CPU reads an array at such an address without a copy; others cost 2.5 times as much."""


class Buffers:
    """Trees of arrays of the same shapes; one is handed out again only when no view of it is left.

    A device array made of a buffer holds a view, until the device has read it and the array is dropped. So a buffer is
    never changed while a call may read it, or may be made again.
    """

    def __init__(self, shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> None:
        """Takes {name: (shape, dtype)}."""
        self._shapes = dict(shapes)
        self._owners: list[dict[str, np.ndarray]] = []
        self._unused = _references({"": np.empty(0, np.uint8)})

    def __len__(self) -> int:
        """Returns the number of buffers that were made."""
        return len(self._owners)

    def take(self) -> dict[str, np.ndarray]:
        """Returns arrays to fill, of any contents."""
        for owner in self._owners:
            if _references(owner) <= self._unused:
                return self._views(owner)
        sizes = {name: int(np.prod(shape)) * dtype.itemsize for name, (shape, dtype) in self._shapes.items()}
        self._owners.append({name: np.empty(size + ALIGNMENT, np.uint8) for name, size in sizes.items()})
        return self._views(self._owners[-1])

    def _views(self, owner: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        views = {}
        for name, (shape, dtype) in self._shapes.items():
            begin = -owner[name].ctypes.data % ALIGNMENT
            size = int(np.prod(shape)) * dtype.itemsize
            views[name] = owner[name][begin : begin + size].view(dtype).reshape(shape)
        return views


def _references(owner: Mapping[str, np.ndarray]) -> int:
    """Returns the most references to an array; each view of one, however it was made, holds one."""
    return max(sys.getrefcount(memory) for memory in owner.values())
