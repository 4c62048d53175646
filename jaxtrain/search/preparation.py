"""Decides what the config of a search leaves open, and refuses what cannot be searched, before anything is written."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jaxtrain.config.defaults import Config
from jaxtrain.config.hparams import hyperparameters
from jaxtrain.core.steps import eval_step
from jaxtrain.data.host_memory import total_memory
from jaxtrain.errors import ConfigError, JaxtrainError, unknown
from jaxtrain.parallel.shared_programs import drop_all_programs
from jaxtrain.search.budget import with_bought
from jaxtrain.search.halving import rung_fractions
from jaxtrain.search.identity import demand_same, with_batch
from jaxtrain.search.programs import MOST_PROGRAMS, Programs
from jaxtrain.search.samplers import SAMPLERS, exhaustion, number_of_trials
from jaxtrain.search.shapes import shapes_line
from jaxtrain.search.space import Space, read_space
from jaxtrain.storage.ownership import Owner
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.shared_frozen import shares_frozen
from jaxtrain.training.size_checks import check_lanes


@dataclass(frozen=True)
class Preparation:
    """A search as it will be run: its config with nothing left open, its space and the number of its trials."""

    config: Config
    space: Space
    trials: int
    higher_is_better: bool


def prepare(
    config: Config,
    folder: Path,
    owner: Owner | None,
    programs: Programs,
    timed: Callable[[Config, float], float],
    say: Callable[[str], None],
) -> Preparation:
    """Chooses the trials and the batch, and traces each value of the space that shapes a program.

    Args:
        config: a config that `with_trials` has seen.
        folder: of the study.
        owner: the study in it.
        programs: makes the experiments.
        timed: returns the full runs that fit into a number of seconds.
        say: gets a line on each choice.

    Raises:
        ConfigError: the space cannot be searched.
        UsageError: the folder belongs to another study.
    """
    if config["search"]["budget"] is not None:
        config = with_bought(config, programs.experiment(config), folder, owner, timed, say)
    space = read_space(config)
    trials = number_of_trials(space)
    if line := exhaustion(space):
        say(line)
    is_chosen = config["search"]["batch"] is None
    config = with_batch(config, owner)
    if is_chosen:
        _say_batch(config["search"], say)
    programs.most_lanes = min(config["search"]["batch"], trials) * config["search"]["seeds"]
    space = read_space(config)
    demand_same(folder, config, owner)
    experiment = programs.experiment(config)
    _check_lanes(experiment, config["search"], trials)
    direction = higher_is_better(experiment)
    rung_fractions(config["search"], experiment)  # raises if no rungs are possible
    _check_static_values(space, programs)
    say(shapes_line(space, trials))
    return Preparation(config, space, trials, direction)


def higher_is_better(experiment: Experiment) -> bool:
    """Returns the direction of `eval.metric`, found by tracing the evaluation step, without running it."""
    shapes = experiment.state_shapes()
    # Two rows: with one, shapes that do not fit a batch would broadcast.
    batch = {name: np.repeat(rows, 2, axis=0) for name, rows in experiment.example.items()}
    batch["mask"] = np.ones(2, np.float32)
    metrics = jax.eval_shape(functools.partial(eval_step, rules=experiment.rules), shapes, batch)
    metric = experiment.config["eval"]["metric"]
    if metric not in metrics:
        raise unknown("eval.metric", metric, metrics)
    return metrics[metric].higher_is_better


def _say_batch(section: Config, say: Callable[[str], None]) -> None:
    """Says how many trials are asked for at a time, where the sampler learns from those before."""
    if section["sampler"] not in SAMPLERS and section["batch"] < section["trials"]:
        say(f"search.batch: {section['batch']} trials at a time, so that {section['sampler']} learns from those before")


def _check_lanes(experiment: Experiment, section: Config, trials: int) -> None:
    """Raises ConfigError for a batch of trials, or a comparison, whose states main memory cannot hold.

    They lie there between rungs.
    """
    state = experiment.state_shapes()
    batch = {"search.batch": min(section["batch"], trials), "search.seeds": section["seeds"]}
    seeds = range(section["seeds"])
    check_lanes(experiment.mesh, state, batch, total_memory(), share=shares_frozen(experiment, seeds))
    check_lanes(experiment.mesh, state, {"search.compare_seeds": section["compare_seeds"]}, total_memory() // 2)


def _check_static_values(space: Space, programs: Programs) -> None:
    """Traces every static value once, so that invalid ones are reported before training starts."""
    traced = 0
    for members, dimension, value in space.ends():
        config = space.trial(0, members | {dimension.key: value}).config
        if dimension.key in hyperparameters(config):
            continue
        try:
            experiment = programs.experiment(config)
            higher_is_better(experiment)
            traced += 1
            if traced % MOST_PROGRAMS == 0:  # JAX keeps half a megabyte of each trace
                drop_all_programs()
        except JaxtrainError as error:
            if isinstance(error, ConfigError) and error.key == dimension.key:
                key = f"search.space.{error.key}"
                raise ConfigError(key, error.got, error.expected, error.hint) from error
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__
            expected = "a value that a model can be made of and measured with"
            hint = f"Leave it out: it raises {reason}"
            raise ConfigError(f"search.space.{dimension.key}", value, expected, hint) from error
