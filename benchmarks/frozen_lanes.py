"""Compares trials of a head on a frozen body, as lanes that hold the body once, with one trial and with whole lanes.

python benchmarks/frozen_lanes.py [--output=FILE.json] [--quick]

Times are CPU seconds, so that other programs on the machine change them little.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import timing

from jaxtrain import Population, build, load_config
from jaxtrain.core.batches import Batches
from jaxtrain.parallel.mesh import compile_init, compile_train_call, device_mesh
from jaxtrain.training.experiment import Experiment

LANES = 64
STEPS = 20
ROUNDS = 5
TIME_BAR = 1.5  # of one trial
MEMORY_BAR = 10.0  # times as many lanes in the same memory


def main() -> None:
    """Times 64 lanes and one trial in turns, and plans the memory of both kinds of lanes."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="a smaller network, as a smoke test")
    options = parser.parse_args()
    experiment = build_head(64 if options.quick else 2048)
    batches = experiment.batches(0, STEPS, STEPS)
    lanes, solo = programs(experiment, batches)
    took = {"lanes": [], "solo": []}
    for counts in [False] + [True] * (1 if options.quick else ROUNDS):
        for name, program in (("lanes", lanes), ("solo", solo)):
            seconds = cpu_seconds(program)
            took[name] += [seconds] if counts else []
    title = f"{LANES} trials of a head on a frozen body, as lanes of one program (ours)"
    ratios = [
        timing.ratio(f"CPU time of {STEPS} steps, with one trial", "s", took["lanes"], took["solo"], TIME_BAR),
        memory(experiment, batches),
    ]
    timing.report(title, ratios, [f"the head has {share_of_head(experiment):.2%} of the parameters"], options.output)


def build_head(width: int) -> Experiment:
    """Builds the experiment: the last layer of an MLP on the digits is trained, the layers before are frozen."""
    config = Path(__file__).parents[1] / "configs" / "digits.py"
    given = {"model.hidden": (width, width), "model.dropout": None, "optimizer.frozen": "Dense_[01]"}
    return build(load_config(str(config), {**given, "data.batch_size": 128, "parallel.mesh": 1}))


def programs(experiment: Experiment, batches: Batches) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Returns functions that train the lanes, at rates of their own, and one trial."""
    rates = np.geomspace(1e-4, 1e-2, LANES).astype(np.float32)
    hparams = {**experiment.hparams, "optimizer.learning_rate": rates}
    population = Population(experiment.rules, experiment.mesh, LANES, width=LANES, share_frozen=True)
    states = population.init(0, hparams, experiment.example)
    mesh = device_mesh(1)
    init = compile_init(experiment.rules, mesh)
    state = init(jax.random.key(0), experiment.example, experiment.hparams)
    call = compile_train_call(experiment.rules, mesh, "mesh")

    def copied(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.copy(), tree)  # a call uses up the state that it is given

    def train_lanes() -> Any:
        own = states.replace(
            **{name: copied(getattr(states, name)) for name in states.__dataclass_fields__ if name != "frozen"}
        )
        return population.call(own, batches, STEPS)

    return train_lanes, lambda: call(copied(state), batches, STEPS)


def cpu_seconds(program: Callable[[], Any]) -> float:
    """Returns the CPU seconds of this process in which a program runs to its end."""
    began = time.process_time()
    jax.block_until_ready(program())
    return time.process_time() - began


def memory(experiment: Experiment, batches: Batches) -> timing.Ratio:
    """Compares the planned memory of lanes that hold the body each and once."""
    planned = [
        Population(experiment.rules, experiment.mesh, LANES, share_frozen=share).plan_bytes(experiment.hparams, batches)
        for share in (False, True)
    ]
    own, shared = ([size / 2**20] for size in planned)
    return timing.ratio("planned memory of lanes with a body each", "MiB", own, shared, MEMORY_BAR, at_least=True)


def share_of_head(experiment: Experiment) -> float:
    """Returns the trained parameters as a part of all."""
    state = experiment.state_shapes()
    trained, frozen = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (state.params, state.frozen))
    return trained / (trained + frozen)


if __name__ == "__main__":
    main()
