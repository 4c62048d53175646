"""The distance of each lane of a population from its run alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxtrain.core.batches import Batches
from jaxtrain.core.state import TrainState
from jaxtrain.parallel.mesh import compile_init, compile_train_call, device_mesh, replicate
from jaxtrain.parallel.population import Population


def compare_with_solo(
    population: Population,
    seeds: Sequence[int],
    hparams: Mapping[str, Any],
    batches: Batches,
    steps: int,
    *,
    states: TrainState | None = None,
) -> np.ndarray:
    """Returns each lane's relative L2 distance between its parameters and those of its solo run, (lanes,).

    Lanes and solo runs start from initial weights and take the same `steps`; `states` are those of lanes that took them
    already. Solo runs use one device. The distance is 0 at width 1. Use it to check a model of your own before a
    search.
    """
    example = jax.device_get(batches.example)
    if states is None:
        states, _ = population.call(population.init(seeds, hparams, example), batches, steps)
    rules = population.rules
    one = device_mesh(1)
    init = compile_init(rules, one)
    call = compile_train_call(rules, one, "mesh", population.step)
    batches = batches.replace(data=replicate(jax.device_get(batches.data), one))
    floats = {name: np.broadcast_to(np.float32(value), (population.lanes,)) for name, value in hparams.items()}
    distances = []
    for lane, seed in enumerate(seeds):
        own = {name: values[lane] for name, values in floats.items()}
        solo, _ = call(init(jax.random.key(seed), example, own), batches, steps)
        distances.append(_distance(population.fetch_lane(states, lane).params, jax.device_get(solo.params)))
    return np.asarray(distances)


def _distance(params: Any, reference: Any) -> float:
    """Returns ||params - reference|| / ||reference||, the L2 norms over all leaves, in float64."""
    difference = jax.tree.map(lambda a, b: np.sum((np.float64(a) - np.float64(b)) ** 2), params, reference)
    size = jax.tree.map(lambda b: np.sum(np.float64(b) ** 2), reference)
    return float(np.sqrt(sum(jax.tree.leaves(difference)) / sum(jax.tree.leaves(size))))
