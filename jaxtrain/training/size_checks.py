"""Checks of sizes before anything is allocated: what a run keeps in memory, from its shapes alone."""

import math
from collections.abc import Mapping
from typing import Any

from jaxtrain.config.defaults import Config
from jaxtrain.config.seeds import lane_count
from jaxtrain.core.state import Batch, TrainState
from jaxtrain.core.trees import tree_bytes
from jaxtrain.errors import ConfigError
from jaxtrain.parallel.memory import memory_of_device
from jaxtrain.parallel.mesh import Devices

OPTIMIZER_COPIES = 8
"""Copies of the parameters beyond which the optimizer's state, and not the model, is blamed for the memory."""


def check_sizes(config: Config, mesh: Devices, state: TrainState, example: Batch) -> None:
    """Raises ConfigError for batches of evaluation, or a state of the run, that the devices cannot hold.

    Args:
        config: a resolved config.
        mesh: the devices of the run.
        state: the shapes of the state of one seed.
        example: a batch of one example.
    """
    limit = memory_of_device(mesh)
    batch = config["data"]["eval_batch_size"]
    needed = batch * tree_bytes(example) // mesh.size
    if needed > limit:
        raise ConfigError(
            "data.eval_batch_size", batch, f"batches of at most {format_bytes(limit)}, not {format_bytes(needed)}"
        )
    _check_state(config, state, limit)
    lanes = {"train.seeds" if config["train"]["seeds"] > 1 else "data.folds": lane_count(config)}
    check_lanes(mesh, state, lanes, share=True)  # they may share what is frozen; the plan of their program is exact


def check_lanes(
    mesh: Devices, state: TrainState, counts: Mapping[str, int], limit: int | None = None, *, share: bool = False
) -> None:
    """Raises ConfigError where the states of lanes need more than `limit` bytes (None: those of all devices).

    The number of lanes is the product of the `counts` of the config's keys; the error names the largest. With `share`
    the lanes hold the frozen parameters once.
    """
    limit = memory_of_device(mesh) * mesh.size if limit is None else limit
    lanes = math.prod(counts.values())
    shared = tree_bytes(state.frozen) if share else 0
    size = tree_bytes(state) - shared
    if lanes * size + shared > limit:
        key = max(counts, key=lambda key: counts[key])
        most = (limit - shared) // size
        expected = f"at most {most:,} lanes in all, which {format_bytes(limit)} of memory hold, not {lanes:,}"
        raise ConfigError(key, counts[key], expected, "Lower it")


def _check_state(config: Config, state: TrainState, limit: int) -> None:
    needed = tree_bytes(state)
    if needed <= limit:
        return
    params = tree_bytes(state.params)
    adapters = ("lora",) if config["lora"]["paths"] else ()
    sections = ("optimizer",) if tree_bytes(state.opt_state) > OPTIMIZER_COPIES * params else ("model", *adapters)
    key, value = _largest_knob(config, sections)
    expected = f"a state of at most {format_bytes(limit)}, the memory of the device, not {format_bytes(needed)}"
    raise ConfigError(key, value, expected, "Lower it")


def _largest_knob(config: Config, sections: tuple[str, ...]) -> tuple[str, Any]:
    """Returns key and value of the knob with the largest integer of sections, which most likely makes it large."""

    def largest(value: Any) -> int:
        items = value if isinstance(value, tuple) else (value,)
        return max((item for item in items if type(item) is int), default=0)

    knobs = {f"{section}.{name}": value for section in sections for name, value in config[section].items()}
    key = max(knobs, key=lambda key: largest(knobs[key]))
    if not largest(knobs[key]):
        return f"{sections[0]}.name", config[sections[0]]["name"]
    return key, knobs[key]


def format_bytes(size: int) -> str:
    """Returns a number of bytes in GiB, or in MiB where it is less than one."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
