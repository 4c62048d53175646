"""Sizes that a file declares, compared with what memory holds before anything is read."""

from collections.abc import Sequence

from jaxtrain.data.host_memory import total_memory
from jaxtrain.errors import DataError, Words


def check_memory(file: str, size: int, shape: Sequence[int]) -> None:
    """Raises DataError for an array of `size` bytes that main memory cannot hold."""
    most = total_memory()
    if size > most:
        got = Words(f"{size:,} bytes for the shape {tuple(shape)}")
        raise DataError(file, got, f"at most {most:,}, the memory of this machine", "Keep fewer examples")
