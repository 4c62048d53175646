"""Memory of the devices: what a compiled program needs, and what is free."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from jaxtrain.parallel.mesh import Devices


class PlannedMemory(NamedTuple):
    """Bytes that a program needs on each device, as the compiler plans them; `aliased`: outputs laid over arguments."""

    arguments: int
    temporaries: int
    outputs: int
    aliased: int

    @property
    def total(self) -> int:
        """All of them together."""
        return self.arguments + self.temporaries + self.outputs - self.aliased


def plan_memory(compiled: Any) -> PlannedMemory | None:
    """Returns what the compiler plans for a compiled program; None where the backend's compiler does not say."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    sizes = found.argument_size_in_bytes, found.temp_size_in_bytes, found.output_size_in_bytes
    return PlannedMemory(*sizes, found.alias_size_in_bytes)


def memory_limit(mesh: Devices) -> int:
    """Returns the bytes that a program may plan for on each device: what is free there, less a tenth."""
    statistics = mesh.devices.flat[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return int(0.9 * (statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)))
    return int(0.9 * _free_host_memory() / mesh.size)


def _free_host_memory() -> int:
    """Returns the bytes that the system can give: what it says is available, else all that there are."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(available, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no limit, or another system
        return available
