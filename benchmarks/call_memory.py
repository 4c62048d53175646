"""Compares the planned memory of a call with that of one step, for an MLP with a large state; nothing is trained.

python benchmarks/call_memory.py [--output=FILE.json] [--quick]

The part for a TPU compiles ahead of time. It needs no TPU, but its compiler, of the extra `tpu`; where that is not
installed, the part is left out and said to be. Set TPU_SKIP_MDS_QUERY=1 on a machine without a TPU.
"""

import argparse
import functools
import importlib.util
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import timing
from jax.sharding import SingleDeviceSharding

from jaxtrain import train_call, train_step
from jaxtrain.core.batches import Batches
from jaxtrain.core.state import Rules, init_state
from jaxtrain.core.trees import tree_bytes
from jaxtrain.models.mlp import MLP
from jaxtrain.optimizers.schedules import Schedule
from jaxtrain.parallel.memory import plan_memory
from jaxtrain.tasks.linen import linen_task
from jaxtrain.tasks.losses.classification import cross_entropy

CPU_BAR = 1.3
TPU_BAR = 1.05
CAPACITY = 20
BATCH = 128
FEATURES = 64
TOPOLOGY = "v5e:2x2"


def main() -> None:
    """Plans both programs for the CPU, and for a TPU where its compiler is installed."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="a smaller network, as a smoke test")
    options = parser.parse_args()
    hidden = (256, 256, 256) if options.quick else (2048, 2048, 2048)
    ratios = [compare("CPU", hidden, jax.devices("cpu")[0], CPU_BAR)]
    notes = []
    if importlib.util.find_spec("libtpu"):
        from jax.experimental import topologies

        device = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY).devices[0]
        ratios.append(compare("one TPU v5e", hidden, device, TPU_BAR))
    else:
        notes.append('the part for a TPU was left out: libtpu is not installed; pip install -e ".[tpu]"')
    title = "Planned memory of a call of guarded steps (ours) and of one step (theirs)"
    timing.report(title, ratios, notes, options.output)


def compare(name: str, hidden: tuple[int, ...], device: Any, bar: float) -> timing.Ratio:
    """Plans a call and a step for a device."""
    rules, state, batches = shapes(hidden, device)
    batch = jax.eval_shape(lambda batches: batches.take(0), batches)
    step = functools.partial(train_step, rules=rules, measure_norms=False)
    call = functools.partial(train_call, rules=rules._replace(guard_steps=True))
    count = on_device(jax.ShapeDtypeStruct((), np.int32), device)
    ours = planned_mib(call, state, batches, count)
    theirs = planned_mib(step, state, on_device(batch, device))
    size = f"state of {tree_bytes(state) / 2**20:,.0f} MiB"
    return timing.ratio(f"{name}, {size}", "MiB", [ours], [theirs], bar)


def shapes(hidden: tuple[int, ...], device: Any) -> tuple[Rules, Any, Batches]:
    """Returns rules, and the shapes of a state and of the batches of a call."""
    task = linen_task(
        lambda values: MLP(10, hidden), lambda values, outputs, targets: cross_entropy(outputs, targets), ()
    )
    rules = Rules(task, Schedule(), lambda values: optax.adamw(1e-3))
    data = {
        "inputs": jax.ShapeDtypeStruct((BATCH, FEATURES), np.float32),
        "targets": jax.ShapeDtypeStruct((BATCH,), np.int32),
    }
    batches = on_device(Batches(data, jax.ShapeDtypeStruct((CAPACITY, BATCH), np.int32)), device)
    init = functools.partial(init_state, rules=rules)
    state = jax.eval_shape(init, jax.random.key(0), batches.example, {"train.total_steps": 1e6})
    return rules, on_device(state, device), batches


def on_device(tree: Any, device: Any) -> Any:
    """Returns shapes that lie on a device, so that programs are compiled for it."""
    sharding = SingleDeviceSharding(device)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def planned_mib(function: Any, *arguments: Any) -> float:
    """Compiles a function that donates its state; returns the MiB that it needs."""
    planned = plan_memory(jax.jit(function, donate_argnums=0).lower(*arguments).compile())
    assert planned is not None
    return planned.total / 2**20


if __name__ == "__main__":
    main()
