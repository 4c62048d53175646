"""Device memory: what a compiled program needs and what is free."""

from typing import Any, NamedTuple

from jaxtrain.data.host_memory import free_memory, total_memory
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
    return int(0.9 * free_memory() / mesh.size)


def memory_of_device(mesh: Devices) -> int:
    """Returns the bytes that each device has, free or not."""
    statistics = mesh.devices.flat[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    return total_memory() // mesh.size
