"""The programs that benchmarks/population.py times: the same runs as lanes, one after another, and by hand."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import peers
from jax.sharding import PartitionSpec

from jaxtrain import train_step
from jaxtrain.core.batches import Batches
from jaxtrain.parallel.mesh import AXIS, compile_init, compile_train_call, device_mesh, replicate, shard_lanes
from jaxtrain.parallel.population import Population
from jaxtrain.training.experiment import Experiment


def lanes_call(experiment: Experiment, lanes: int, steps: int, dead: int = 0) -> Callable[[], Any]:
    """Returns a call of the population; every other lane is dead until `dead` of them are."""
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
    """Returns the solo runs one after another, each stepped in a Python loop of the jitted step, without norms."""
    mesh, rules = device_mesh(1), experiment.rules
    data, rows = replicate(experiment.dataset.split("train"), mesh), experiment.rows(0, steps, steps)

    def stepped(state: Any, data: Any, rows: Any) -> Any:
        state, metrics = train_step(
            state, {name: array[rows] for name, array in data.items()}, rules=rules, measure_norms=False
        )
        return state, (metrics["loss"], metrics["accuracy"])

    step, states = jax.jit(stepped, donate_argnums=0), _solo_states(experiment, lanes, mesh)
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
    """Returns the solo runs one after another, by the same compiled calls as `train` makes."""
    mesh = device_mesh(1)
    call = compile_train_call(experiment.rules, mesh, "mesh")
    batches = Batches(replicate(experiment.dataset.split("train"), mesh), experiment.rows(0, steps, steps))
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
    """Returns what one would write: the step scanned over batches, mapped over lanes, the lanes cut over devices."""
    rules, lane = experiment.rules, PartitionSpec(AXIS)

    def trained(states: Any, data: Any, rows: Any) -> Any:
        def step(state: Any, row: Any) -> Any:
            state, metrics = train_step(
                state, {name: array[row] for name, array in data.items()}, rules=rules, measure_norms=False
            )
            return state, (metrics["loss"], metrics["accuracy"])

        return jax.lax.map(lambda state: jax.lax.scan(step, state, rows), states)

    whole = (lane, PartitionSpec(), PartitionSpec())
    mapped = jax.shard_map(trained, mesh=experiment.mesh, in_specs=whole, out_specs=lane, check_vma=False)
    program = jax.jit(mapped, donate_argnums=0)
    population = Population(experiment.rules, experiment.mesh, lanes)
    states = population.init(range(lanes), experiment.hparams, experiment.example)
    data, rows = experiment.on_devices("train"), experiment.rows(0, steps, steps)

    def run() -> Any:
        nonlocal states
        states, reported = program(states, data, rows)
        return jax.device_get(reported)

    return run


def torch_loop(experiment: Experiment, lanes: int, steps: int) -> Callable[[], Any]:
    """Returns as many runs of a tuned loop, one after another, on preloaded tensors."""
    data, rate = experiment.dataset.split("train"), experiment.config["optimizer"]["learning_rate"]
    rows = experiment.rows(0, steps, steps)
    given = ("mlp", peers.device(), rate, 1_000_000, data["inputs"], data["targets"], rows)
    runs = [peers.torch_steps(*given) for _ in range(lanes)]
    return lambda: [run() for run in runs]
