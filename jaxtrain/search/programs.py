"""Programs: the trials of a batch, grouped by what shapes the compiled program that trains them."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import numpy as np

from jaxtrain.config.defaults import Config, flatten
from jaxtrain.config.hparams import hyperparameters
from jaxtrain.config.identity import to_json
from jaxtrain.core.state import TrainState
from jaxtrain.errors import ConfigError, UsageError
from jaxtrain.parallel.memory import memory_limit
from jaxtrain.parallel.population import Population, fitted
from jaxtrain.search.lanes import Lanes, OneByOne
from jaxtrain.search.space import FIXED, Trial
from jaxtrain.training.experiment import Experiment, build
from jaxtrain.training.fine_tuning import load_initial_weights

PROBE_STEPS = 5  # steps by which a program is timed before it runs
MAX_WIDENING = 1.5  # how much wider a program may be than what it is taken for: cheaper than to compile another
MAX_CHUNK = 1024  # lanes that are stepped together at most: beyond, nothing is won, and a kill costs more


@dataclass(frozen=True)
class Program:
    """Trials that differ in floats and seeds alone, and the experiment of the first, which shapes them all."""

    experiment: Experiment
    trials: tuple[Trial, ...]

    def init(self, lanes: Lanes, own: Sequence[tuple[Trial, int]]) -> TrainState:
        """Makes the states of (trial, seed), one for each lane, from another run's weights where the config says so."""
        seeds, hparams = np.array([seed for _, seed in own], np.uint32), self.hparams([trial for trial, _ in own])
        states = lanes.init(seeds, hparams, self.experiment.example)
        section, rules = self.experiment.config["checkpoint"], self.experiment.rules
        return load_initial_weights(states, section, rules, lanes.spread, lanes=lanes.padded)

    def step_seconds(self, lanes: Lanes, own: Sequence[tuple[Trial, int]]) -> float:
        """Measures the seconds of a step of one lane, by a few steps of lanes that are thrown away."""
        batches = self.experiment.batches(0, PROBE_STEPS)
        states, output = lanes.call(self.init(lanes, own), batches, 1)
        jax.block_until_ready(output)  # compiled, where it was not
        began = time.perf_counter()
        jax.block_until_ready(lanes.call(states, batches, PROBE_STEPS)[1])
        return (time.perf_counter() - began) / (PROBE_STEPS * len(own))

    def hparams(self, trials: Sequence[Trial]) -> dict[str, np.ndarray]:
        """Returns name -> float32 (trials,) of every float that enters the program."""
        rows = [{**self.experiment.hparams, **hyperparameters(trial.config)} for trial in trials]
        return {name: np.array([row[name] for row in rows], np.float32) for name in rows[0]}


@dataclass
class Programs:
    """Groups trials; what a group shares is made once, and kept for the batches to come."""

    _experiments: dict[str, Experiment] = field(default_factory=dict)
    _by_data: dict[str, Experiment] = field(default_factory=dict)
    _lanes: dict[str, dict[int, Lanes]] = field(default_factory=dict)

    def group(self, trials: Sequence[Trial]) -> list[Program]:
        """Returns the programs of a batch, in the order of their first trials."""
        groups: dict[str, list[Trial]] = {}
        for trial in trials:
            groups.setdefault(signature(trial.config), []).append(trial)
        return [Program(self.experiment(group[0].config), tuple(group)) for group in groups.values()]

    def experiment(self, config: Config) -> Experiment:
        """Returns the experiment of all configs that differ from this one in floats and seed alone."""
        key = signature(config)
        if key not in self._experiments:
            read = to_json({k: v for k, v in config["data"].items() if k not in ("batch_size", "eval_batch_size")})
            found = build(config, lanes=True, beside=self._by_data.get(read))
            if "validation" not in found.dataset.sizes:
                allowed = "above 0: a search chooses by the validation split"
                raise ConfigError("data.validation_fraction", config["data"]["validation_fraction"], allowed)
            self._by_data.setdefault(read, found)
            self._experiments[key] = found
        return self._experiments[key]

    def lanes(self, experiment: Experiment, count: int) -> Lanes:
        """Returns the program that steps `count` lanes at once, or as many as fit; one that is made stays.

        Where not even one lane fits on each device, one after another is spread over all of them.
        """
        made = self._lanes.setdefault(signature(experiment.config), {})
        if count not in made:
            wide_enough = [lanes for lanes in made.values() if count <= lanes.lanes <= MAX_WIDENING * count]
            made[count] = min(wide_enough, key=lambda lanes: lanes.lanes, default=None) or _fit_lanes(experiment, count)
        return made[count]


def signature(config: Config) -> str:
    """Returns what shapes the program of a config, as text: all but the values of its floats, and the seed."""
    shape = {name: value for name, value in flatten(config).items() if name.partition(".")[0] not in FIXED}
    return to_json({**shape, **dict.fromkeys(hyperparameters(config), "float"), "seed": None})


def _fit_lanes(experiment: Experiment, count: int) -> Lanes:
    """Chooses how many lanes are stepped together, by halving until the compiler's plan fits in memory."""
    mesh, config = experiment.mesh, experiment.config
    most = min(MAX_CHUNK, count, _lanes_whose_states_fit(experiment))
    while most >= mesh.size or most == count:
        chunks = -(-count // most)
        try:
            even = Population(experiment.rules, mesh, -(-count // chunks))
            return fitted(even, config["parallel"]["width"], experiment.hparams, experiment.batches(0, 0))
        except UsageError:
            if config["parallel"]["width"] is not None:
                raise
            if most <= mesh.size:
                break
            most = max(mesh.size, most // 2)
    return OneByOne(build(config, beside=experiment))


def _lanes_whose_states_fit(experiment: Experiment) -> int:
    """Bounds the lanes by their states alone, which are there three times: taken, returned, and on the host."""
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(experiment.state_shapes()))
    return max(1, experiment.mesh.size * memory_limit(experiment.mesh) // (3 * state))


def plan_line(trials: int, chunks: Sequence[tuple[int, int]], seconds: float) -> str:
    """Says in a line how many programs, lanes and chunks a batch comes to; a chunk is (program, lanes)."""
    lanes, cuts = sum(count for _, count in chunks), Counter(program for program, _ in chunks)
    programs = max(1, len(cuts))
    each = f"{lanes // programs} lanes" if lanes % programs == 0 else f"{lanes} lanes in all"
    cut = f", {max(cuts.values())} chunks each" if max(cuts.values(), default=1) > 1 else ""
    plural = "s" if programs > 1 else ""
    return f"{trials} trials = {programs} program{plural} x {each}{cut}, about {_format_seconds(seconds)}"


def _format_seconds(seconds: float) -> str:
    return f"{max(seconds, 1):.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
