"""Times the programs of the first trials, and counts the full runs that a search can train within a time."""

import math
import time

import jax

from jaxtrain.config.defaults import Config
from jaxtrain.errors import ConfigError
from jaxtrain.parallel.compilation import Compilations
from jaxtrain.search.programs import Program, Programs
from jaxtrain.search.samplers import MOST_AT_A_TIME, PARTS, SAMPLERS, make_sampler, number_of_trials
from jaxtrain.search.space import read_space

AIM = 0.9
"""The part of the time that is planned for."""

REPORT_SECONDS = 10.0

TIMED_SECONDS = 1.0
"""Seconds for which the steps of a program are timed."""

MOST_TIMED = 4
"""Programs that are timed; others count as their mean."""


def affordable_runs(
    config: Config, programs: Programs, *, higher_is_better: bool, seconds: float, began: float, compiled: Compilations
) -> float:
    """Returns the full runs, of one seed each, that the trials of a search may take.

    The programs of the first trials are compiled and timed, which comes out of the time, as do the other programs, the
    comparison at the end and the report.

    Args:
        config: the config of the search.
        programs: its programs; those that are timed need no compilation later.
        higher_is_better: the direction of `eval.metric`.
        seconds: the time of the whole search.
        began: the reading of `time.perf_counter()` at which it began.
        compiled: counts compilations.

    Raises:
        ConfigError: not even one trial fits.
    """
    section = config["search"]
    groups = _first_groups(config, programs, higher_is_better)
    timed = groups[:MOST_TIMED]
    before = compiled.seconds
    runs = [_run_seconds(group, programs, section["seeds"]) * len(group.trials) for group in timed]
    run = sum(runs) / sum(len(group.trials) for group in timed)
    compilation = (compiled.seconds - before) / len(timed)
    # A program at each width: all trials, those that continue, the comparison.
    to_come = len(groups) * 2 - len(timed) + bool(section["compare_seeds"])
    spent = time.perf_counter() - began
    aside = spent + compilation * to_come + 2 * section["compare_seeds"] * run + REPORT_SECONDS
    left = AIM * seconds - aside
    if left < run * section["seeds"]:
        least = math.ceil((aside + run * section["seeds"]) / AIM)
        expected = f"at least {least:,} seconds, for compiling, a trial, the comparison and the report"
        raise ConfigError("search.budget", section["budget"], expected, "Raise it")
    return left / run


def _first_groups(config: Config, programs: Programs, higher_is_better: bool) -> list[Program]:
    """Returns the programs of the trials that are asked for first."""
    section = config["search"]
    several = MOST_AT_A_TIME if section["sampler"] in SAMPLERS else MOST_AT_A_TIME // PARTS
    count = section["batch"] or several
    space = read_space({**config, "search": {**section, "trials": 1_000_000}})
    points = make_sampler(space, higher_is_better).ask(range(min(count, number_of_trials(space))))
    return programs.group([space.trial(number, point) for number, point in enumerate(points)])


def _run_seconds(group: Program, programs: Programs, seeds: int) -> float:
    """Returns the seconds of a whole run of one lane among as many as are stepped together."""
    experiment = group.experiment
    first = experiment.config["seed"]
    pairs = [(trial, seed) for trial in group.trials for seed in range(first, first + seeds)]
    lanes = programs.lanes(experiment, len(pairs), {seed for _, seed in pairs})
    pairs = pairs[: lanes.lanes]
    lanes = lanes.with_lanes(len(pairs))
    states = group.init(lanes, pairs)
    steps = 1
    taken = 0
    elapsed = 0.0
    batches = experiment.batches(0, 1)
    states, output = lanes.call(states, batches, 1)
    jax.block_until_ready(output)  # the first call compiles the program
    while elapsed < TIMED_SECONDS:
        batches = experiment.batches(taken, steps)
        began = time.perf_counter()
        states, output = lanes.call(states, batches, steps)
        jax.block_until_ready(output)
        took = time.perf_counter() - began
        elapsed += took
        taken += steps
        steps = max(1, min(experiment.capacity, 4 * steps, int(steps * TIMED_SECONDS / max(took, 1e-6))))
    jax.block_until_ready(lanes.evaluate(states, experiment.eval_batches("validation")))  # compiles
    began = time.perf_counter()
    jax.block_until_ready(lanes.evaluate(states, experiment.eval_batches("validation")))
    evaluation = time.perf_counter() - began
    lengths = experiment.lengths
    evaluations = -(-lengths.total // lengths.eval)
    return (elapsed / taken * lengths.total + evaluation * evaluations) / len(pairs)
