"""Main memory of this machine."""

import os
from pathlib import Path

GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def total_memory() -> int:
    """Returns the bytes of main memory, within the limit of the control group."""
    return _within_group(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def free_memory() -> int:
    """Returns the available bytes of main memory (all of it if the system does not tell), within the same limit."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return _within_group(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")))
    except (OSError, StopIteration):
        return total_memory()


def _within_group(size: int) -> int:
    try:
        return min(size, int(GROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no limit, or no control groups
        return size
