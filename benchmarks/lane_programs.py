"""The programs that benchmarks/population.py times: the same runs as lanes, in sequence, and hand-written."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import peers
from float_data import float_split, host_float_split
from jax.sharding import PartitionSpec

from jaxtrain import train_step
from jaxtrain.core.batches import Batches
from jaxtrain.parallel.mesh import AXIS, compile_init, compile_train_call, device_mesh, replicate, shard_lanes
from jaxtrain.parallel.population import Population
from jaxtrain.training.experiment import Experiment


def lanes_call(experiment: Experiment, lanes: int, steps: int, dead: int = 0) -> Callable[[], Any]:
    """Returns a call of the population in which `dead` of the first lanes, every second one, have diverged."""
    population = Population(experiment.rules, experiment.mesh, lanes)
    batches = experiment.batches(0, steps, steps)
    states = population.init(range(lanes), experiment.hparams, experiment.example)
    places = np.arange(population.padded)
    alive = np.asarray(states.live) & ~((places % 2 == 1) & (places < 2 * dead))
    states = states.replace(live=shard_lanes(alive, experiment.mesh))

    def run() -> Any:
        nonlocal states
        states, output = population.call(states, batches, steps)
        return population.fetch(output)

    return run


def solo_steps(experiment: Experiment, lanes: int, steps: int) -> Callable[[], Any]:
    """Returns solo runs in sequence, each a Python loop over the jitted step, without norms."""
    mesh = device_mesh(1)
    rules = experiment.rules
    data = replicate(experiment.dataset.split("train"), mesh)
    rows = experiment.batches(0, steps, steps).rows

    def take_step(state: Any, data: Any, rows: Any) -> Any:
        state, metrics = train_step(
            state, {name: array[rows] for name, array in data.items()}, rules=rules, measure_norms=False
        )
        return state, (metrics["loss"], metrics["accuracy"])

    step = jax.jit(take_step, donate_argnums=0)
    states = _solo_states(experiment, lanes, mesh)
    placed = [replicate(row, mesh) for row in rows]

    def run() -> Any:
        reported = []
        for lane in range(lanes):
            for row in placed:
                states[lane], metrics = step(states[lane], data, row)
                reported.append(metrics)
        return jax.device_get(reported)

    return run


def solo_calls(experiment: Experiment, lanes: int, steps: int) -> Callable[[], Any]:
    """Returns solo runs in sequence, by the compiled calls that `train` uses."""
    mesh = device_mesh(1)
    call = compile_train_call(experiment.rules, mesh, "mesh")
    batches = Batches(replicate(experiment.dataset.split("train"), mesh), experiment.batches(0, steps, steps).rows)
    states = _solo_states(experiment, lanes, mesh)

    def run() -> Any:
        outputs = []
        for lane in range(lanes):
            states[lane], output = call(states[lane], batches, steps)
            outputs.append(output)
        return jax.device_get(outputs)

    return run


def _solo_states(experiment: Experiment, lanes: int, mesh: Any) -> list[Any]:
    init = compile_init(experiment.rules, mesh)
    return [init(jax.random.key(seed), experiment.example, experiment.hparams) for seed in range(lanes)]


def by_hand(experiment: Experiment, lanes: int, steps: int) -> Callable[[], Any]:
    """Returns the hand-written program: a scan over batches, mapped over lanes that are sharded over devices."""
    rules = experiment.rules
    lane = PartitionSpec(AXIS)

    def train_lanes(states: Any, data: Any, rows: Any) -> Any:
        def step(state: Any, row: Any) -> Any:
            state, metrics = train_step(
                state, {name: array[row] for name, array in data.items()}, rules=rules, measure_norms=False
            )
            return state, (metrics["loss"], metrics["accuracy"])

        return jax.lax.map(lambda state: jax.lax.scan(step, state, rows), states)

    whole = (lane, PartitionSpec(), PartitionSpec())
    mapped = jax.shard_map(train_lanes, mesh=experiment.mesh, in_specs=whole, out_specs=lane, check_vma=False)
    program = jax.jit(mapped, donate_argnums=0)
    population = Population(experiment.rules, experiment.mesh, lanes)
    states = population.init(range(lanes), experiment.hparams, experiment.example)
    data = float_split(experiment, "train")
    rows = experiment.batches(0, steps, steps).rows

    def run() -> Any:
        nonlocal states
        states, reported = program(states, data, rows)
        return jax.device_get(reported)

    return run


def torch_loop(experiment: Experiment, lanes: int, steps: int) -> Callable[[], Any]:
    """Returns `lanes` runs of a tuned PyTorch loop in sequence, on preloaded tensors."""
    data = host_float_split(experiment, "train")
    rate = experiment.config["optimizer"]["learning_rate"]
    rows = experiment.batches(0, steps, steps).rows
    given = ("mlp", peers.device(), rate, 1_000_000, data["inputs"], data["targets"], rows)
    runs = [peers.torch_steps(*given) for _ in range(lanes)]
    return lambda: [run() for run in runs]
