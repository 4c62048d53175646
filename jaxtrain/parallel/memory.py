"""Device memory: what a compiled program needs and what is free."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from jaxtrain.errors import StorageError
from jaxtrain.files import read_text
from jaxtrain.parallel.mesh import Devices


class PlannedMemory(NamedTuple):
    """Bytes that a program needs on each device, by XLA's memory analysis; `aliased`: outputs that reuse arguments."""

    arguments: int
    temporaries: int
    outputs: int
    aliased: int

    @property
    def total(self) -> int:
        """Bytes in all, with aliased ones counted once."""
        return self.arguments + self.temporaries + self.outputs - self.aliased


def plan_memory(compiled: Any) -> PlannedMemory | None:
    """Returns the memory plan of a compiled program; None if the backend gives no memory analysis."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return PlannedMemory(
        arguments=analysis.argument_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        outputs=analysis.output_size_in_bytes,
        aliased=analysis.alias_size_in_bytes,
    )


def memory_limit(mesh: Devices) -> int:
    """Returns the bytes that a program may use on each device: 90 % of what is free."""
    statistics = mesh.devices.flat[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return int(0.9 * (statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)))
    return int(0.9 * _free_host_memory() / mesh.size)


def _free_host_memory() -> int:
    """Returns the available bytes of main memory (all of it if the system does not tell), within the cgroup limit."""
    try:
        lines = read_text(Path("/proc/meminfo")).splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (StorageError, StopIteration):
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(available, int(read_text(Path("/sys/fs/cgroup/memory.max"))))
    except (StorageError, ValueError):  # no limit, or no cgroups
        return available
