"""Main memory of this machine."""

import os
import resource
from pathlib import Path

from jaxtrain.errors import StorageError
from jaxtrain.files import read_text

GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
STATUS = Path("/proc/self/status")


def total_memory() -> int:
    """Returns the bytes of main memory, within the limit of the control group."""
    return _within_group(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def free_memory() -> int:
    """Returns the available bytes of main memory (all of it if the system does not tell), within the same limit.

    What is left of a limit on this process (`ulimit -v`, `ulimit -d`) counts, too.
    """
    available = _bytes_in(Path("/proc/meminfo"), "MemAvailable")
    return _within_process(total_memory() if available is None else _within_group(available))


def _within_group(size: int) -> int:
    try:
        return min(size, int(read_text(GROUP_LIMIT)))
    except (StorageError, ValueError):  # no limit, or no control groups
        return size


LIMITS = {"RLIMIT_AS": "VmSize", "RLIMIT_DATA": "VmData"}
"""Limits of a process, and the line of its status that says how much of each it takes."""


def _within_process(size: int) -> int:
    for limit, line in LIMITS.items():
        most, _ = resource.getrlimit(getattr(resource, limit))
        if most != resource.RLIM_INFINITY:
            size = min(size, max(0, most - (_bytes_in(STATUS, line) or 0)))
    return size


def _bytes_in(file: Path, name: str) -> int | None:
    """Returns the number of a line such as "VmData:  93 kB" in bytes; None where there is no such line."""
    try:
        lines = read_text(file).splitlines()
    except StorageError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
