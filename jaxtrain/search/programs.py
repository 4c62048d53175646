"""Groups the trials of a batch by the compiled program that trains them, and sizes each program."""

import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import jax
import numpy as np

from jaxtrain.config.defaults import Config, flatten
from jaxtrain.config.hparams import hyperparameters
from jaxtrain.config.identity import to_json
from jaxtrain.config.section_traits import SHARED_BY_TRIALS
from jaxtrain.core.state import TrainState
from jaxtrain.core.trees import tree_bytes
from jaxtrain.data import Source
from jaxtrain.errors import ConfigError, UsageError
from jaxtrain.parallel.memory import memory_limit
from jaxtrain.parallel.population import Population
from jaxtrain.parallel.shared_programs import drop_all_programs, drop_programs
from jaxtrain.parallel.width import fit_width, preferred_width
from jaxtrain.search.lanes import Lanes, OneByOne
from jaxtrain.search.space import Trial
from jaxtrain.tasks import needs_of
from jaxtrain.training.checks import check_counted
from jaxtrain.training.experiment import Experiment, build
from jaxtrain.training.fine_tuning import load_initial_weights
from jaxtrain.training.memory_plan import demand_memory
from jaxtrain.training.shared_frozen import shares_frozen

PROBE_STEPS = 5  # steps over which a program is timed before it runs
MAX_WIDENING = 1.5  # reuse a program of up to this many times the lanes needed, which is cheaper than compiling another
MOST_PROGRAMS = 24  # compiled programs that a search keeps; each takes about 7 MB of memory of the host
MAX_CHUNK = 1024  # most lanes stepped together: more are no faster, and a kill loses more work
PADDING_BYTES = 2**25  # states up to which a program is made for as many lanes as a batch has, since padding is fast


@dataclass(frozen=True)
class Program:
    """Trials that differ only in floats and seeds, with the experiment of the first, whose program serves them all."""

    experiment: Experiment
    trials: tuple[Trial, ...]

    def init(self, lanes: Lanes, trials_and_seeds: Sequence[tuple[Trial, int]]) -> TrainState:
        """Makes the states of (trial, seed), one for each lane, with the weights of `checkpoint.init_from` if given."""
        seeds = np.array([seed for _, seed in trials_and_seeds], np.uint32)
        hparams = self.hparams([trial for trial, _ in trials_and_seeds])
        states = lanes.init(seeds, hparams, self.experiment.example)
        section = self.experiment.config["checkpoint"]
        return load_initial_weights(states, section, self.experiment.rules, lanes.spread, lanes=lanes.padded)

    def step_seconds(self, lanes: Lanes, trials_and_seeds: Sequence[tuple[Trial, int]]) -> float:
        """Measures the seconds of a step of one lane, over PROBE_STEPS steps of states that are discarded."""
        batches = self.experiment.batches(0, PROBE_STEPS)
        states, output = lanes.call(self.init(lanes, trials_and_seeds), batches, 1)
        jax.block_until_ready(output)  # the first call compiles the program
        began = time.perf_counter()
        jax.block_until_ready(lanes.call(states, batches, PROBE_STEPS)[1])
        return (time.perf_counter() - began) / (PROBE_STEPS * len(trials_and_seeds))

    def hparams(self, trials: Sequence[Trial]) -> dict[str, np.ndarray]:
        """Returns name -> float32 (trials,) of every float input of the program."""
        rows = [{**self.experiment.hparams, **hyperparameters(trial.config)} for trial in trials]
        return {name: np.array([row[name] for row in rows], np.float32) for name in rows[0]}


@dataclass
class Programs:
    """Groups trials into programs; caches experiments, data and lanes for later batches.

    Of the compiled programs it keeps MOST_PROGRAMS, those that were used last. `data` are those given in Python.
    `most_lanes` is the number of lanes of a whole batch: where padding is free, one program of this width serves
    all trials of a shape, however many of them a batch has.
    """

    data: Source | None = None
    most_lanes: int = 0
    _experiments: dict[str, Experiment] = field(default_factory=dict)
    _by_data: dict[str, Experiment] = field(default_factory=dict)
    _lanes: dict[str, dict[tuple[int, bool], Lanes]] = field(default_factory=dict)
    _compiled: dict[str, int] = field(default_factory=dict)  # signature -> programs, the least recently used first
    _dropped: int = 0  # signatures so far

    def group(self, trials: Sequence[Trial]) -> list[Program]:
        """Groups the trials of a batch into programs, in the order of their first trials."""
        groups: dict[str, list[Trial]] = {}
        for trial in trials:
            groups.setdefault(signature(trial.config), []).append(trial)
        return [Program(self.experiment(group[0].config), tuple(group)) for group in groups.values()]

    def experiment(self, config: Config) -> Experiment:
        """Returns the experiment shared by all configs that differ from this one only in floats and seed."""
        key = signature(config)
        if key not in self._experiments:
            check_counted(config, "in a search, whose trials are compared at equal steps")
            data = {k: v for k, v in config["data"].items() if k not in ("batch_size", "eval_batch_size")}
            key_of_data = to_json({**data, **needs_of(config)})
            experiment = build(config, lanes=True, beside=self._by_data.get(key_of_data), data=self.data)
            if "validation" not in experiment.dataset.sizes:
                expected = "above 0, since a search chooses by the validation split"
                raise ConfigError("data.validation_fraction", config["data"]["validation_fraction"], expected)
            self._by_data.setdefault(key_of_data, experiment)
            self._experiments[key] = experiment
        return self._experiments[key]

    def lanes(self, experiment: Experiment, count: int, seeds: Collection[int]) -> Lanes:
        """Returns a program that steps `count` lanes together, or as many as fit; programs are cached.

        The lanes are runs of these seeds, and hold frozen parameters once if those are equal.

        If not even one lane fits on each device, lanes are trained one at a time over all devices.
        """
        key = signature(experiment.config)
        share = shares_frozen(experiment, seeds)
        cached = self._lanes.setdefault(key, {})
        if (count, share) not in cached:
            alike = [lanes for (_, shared), lanes in cached.items() if shared == share]
            wide_enough = [lanes for lanes in alike if _serves(lanes, count)]
            narrowest = min(wide_enough, key=lambda lanes: lanes.lanes, default=None)
            cached[count, share] = narrowest or self._make_lanes(experiment, count, share)
        self._note_use(key)
        return cached[count, share]

    def _make_lanes(self, experiment: Experiment, count: int, share: bool) -> Lanes:
        """Makes a program for `count` lanes, or for those of a whole batch where padding is free."""
        if preferred_width(count, experiment.config["parallel"]["width"], share_frozen=share) == 1:
            room = PADDING_BYTES // _state_bytes(experiment, share)
            count = max(count, min(self.most_lanes, room))
        return _fit_lanes(experiment, count, share)

    def is_compiled(self, experiment: Experiment) -> bool:
        """Tells whether the programs of an experiment are among those that are kept."""
        return signature(experiment.config) in self._compiled

    def close(self) -> None:
        """Ends the threads that read data, and drops all programs of a search that had too many.

        The programs of other searches are kept for the next one.
        """
        for experiment in self._experiments.values():
            experiment.close()
        if self._dropped:
            self._compiled.clear()
            drop_all_programs()

    def _note_use(self, key: str) -> None:
        """Counts the programs of a signature as the last used: one initialises, and each width trains and evaluates."""
        self._compiled.pop(key, None)
        self._compiled[key] = 1 + 2 * len({id(lanes) for lanes in self._lanes[key].values()})
        while len(self._compiled) > 1 and sum(self._compiled.values()) > MOST_PROGRAMS:
            self._drop(next(iter(self._compiled)))

    def _drop(self, key: str) -> None:
        """Drops the programs of a signature; what is known of their widths stays."""
        self._dropped += 1
        del self._compiled[key]
        drop_programs(self._experiments[key].rules)
        if self._dropped % MOST_PROGRAMS == 0:
            self._compiled.clear()
            drop_all_programs()


def signature(config: Config) -> str:
    """Returns the static part of a config as text: all but the values of its floats, and the seed."""
    shape = {name: value for name, value in flatten(config).items() if name.partition(".")[0] not in SHARED_BY_TRIALS}
    return to_json({**shape, **dict.fromkeys(hyperparameters(config), "float"), "seed": None})


def _serves(lanes: Lanes, count: int) -> bool:
    """Tells whether a program is wide enough for `count` lanes, and not much slower than one made for them."""
    return count <= lanes.lanes and (lanes.padding_is_free or lanes.lanes <= MAX_WIDENING * count)


def _fit_lanes(experiment: Experiment, count: int, share: bool) -> Lanes:
    """Chooses how many lanes are stepped together, by halving until the compiler's memory estimate fits."""
    mesh = experiment.mesh
    config = experiment.config
    most = min(MAX_CHUNK, count, _lanes_whose_states_fit(experiment, share))
    while most >= mesh.size or most == count:
        chunks = -(-count // most)
        try:
            even = Population(experiment.rules, mesh, -(-count // chunks), share_frozen=share)
            return fit_width(even, config["parallel"]["width"], experiment.hparams, experiment.batches(0, 0))
        except UsageError:
            if config["parallel"]["width"] is not None:
                raise
            if most <= mesh.size:
                break
            most = max(mesh.size, most // 2)
    alone = build(config, beside=experiment)
    demand_memory(alone)
    return OneByOne(alone, share)


def _lanes_whose_states_fit(experiment: Experiment, share: bool) -> int:
    """Returns an upper bound on lanes from their states alone, which exist three times: input, output, host copy."""
    limit = experiment.mesh.size * memory_limit(experiment.mesh)
    return max(1, limit // (3 * _state_bytes(experiment, share)))


def _state_bytes(experiment: Experiment, share: bool) -> int:
    """Returns the bytes of the state of one lane, without the frozen parameters that lanes share."""
    state = experiment.state_shapes()
    return tree_bytes(state.replace(frozen=None) if share else state)


def plan_line(trials: int, chunks: Sequence[tuple[int, int]], seconds: float) -> str:
    """Describes a batch in one line: its programs, lanes, chunks and duration; a chunk is (program, lanes)."""
    lanes_of: Counter[int] = Counter()
    for program, count in chunks:
        lanes_of[program] += count
    chunks_of = Counter(program for program, _ in chunks)
    programs = max(1, len(chunks_of))
    lanes = lanes_of.total()
    each = f" x {lanes // programs} lanes" if len(set(lanes_of.values())) <= 1 else f", {lanes} lanes in total"
    most_chunks = max(chunks_of.values(), default=1)
    split = f", up to {most_chunks} chunks each" if most_chunks > 1 else ""
    plural = "s" if programs > 1 else ""
    return f"{trials} trials = {programs} program{plural}{each}{split}, about {_format_seconds(seconds)}"


def _format_seconds(seconds: float) -> str:
    return f"{max(seconds, 1):.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
