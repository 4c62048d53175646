"""Main memory of this machine."""

import os
from pathlib import Path

from jaxtrain.errors import StorageError
from jaxtrain.files import read_text

GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def total_memory() -> int:
    """Returns the bytes of main memory, within the limit of the control group."""
    return _within_group(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def free_memory() -> int:
    """Returns the available bytes of main memory (all of it if the system does not tell), within the same limit."""
    try:
        lines = read_text(Path("/proc/meminfo")).splitlines()
        return _within_group(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")))
    except (StorageError, StopIteration):
        return total_memory()


def _within_group(size: int) -> int:
    try:
        return min(size, int(read_text(GROUP_LIMIT)))
    except (StorageError, ValueError):  # no limit, or no control groups
        return size
