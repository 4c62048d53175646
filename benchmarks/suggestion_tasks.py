"""Combinations of benchmarks/lr_suggestion.py, their full trainings, and a range test like fastai's."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from suggestion_data import DEVELOPMENT, HELD_OUT, NUMBERS

from jaxtrain import build
from jaxtrain.config.resolve import resolve_config
from jaxtrain.lr_range.rules import valley
from jaxtrain.lr_range.sweep import Points, Setup, finish_each, sweep_ramp
from jaxtrain.parallel.population import Population
from jaxtrain.training.experiment import Experiment

SEEDS = 3
EVALUATIONS = 20
CAPACITY = 100

MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp"},
    "small": {"name": "mlp", "hidden": (32,)},
    "deep": {"name": "mlp", "hidden": (64, 64, 64), "dropout": 0.1},
}
OPTIMIZERS: dict[str, tuple[dict[str, Any], float]] = {
    "sgd": ({"name": "sgd", "momentum": 0.9}, 0.03),
    "adam": ({"name": "adam"}, 1e-3),
    "adamw": ({"name": "adamw", "weight_decay": 0.05}, 1e-3),
    "lion": ({"name": "lion"}, 1e-4),
    "rmsprop": ({"name": "rmsprop"}, 1e-3),
}
"""Name -> its section and its usual default rate."""
SCHEDULES = ("warmup_cosine", "constant", "one_cycle", "linear")
LENGTHS = (300, 800, 1600)


class Combination(NamedTuple):
    """A data set, model, optimizer, schedule and length of the run in steps."""

    data: str
    model: str
    optimizer: str
    schedule: str
    steps: int

    @property
    def name(self) -> str:
        """The name of its file."""
        return "-".join(map(str, self))


def combinations(count: int, held_out: bool) -> list[Combination]:
    """Draws combinations in which each value of every part occurs equally often, up to one."""
    generator = np.random.default_rng(int(held_out))

    def spread(values: Sequence[Any]) -> list[Any]:
        places = np.arange(count) % len(values)
        return [values[place] for place in generator.permutation(places)]

    parts = (HELD_OUT if held_out else DEVELOPMENT, tuple(MODELS), tuple(OPTIMIZERS), SCHEDULES, LENGTHS)
    return [Combination(*each) for each in zip(*(spread(part) for part in parts), strict=True)]


def experiment(combination: Combination, data_seed: int = 0, steps: int | None = None) -> Experiment:
    """Builds a combination, with 30 % of a small set for validation and 20 % of others."""
    name, model, optimizer, schedule, length = combination
    small = name.endswith(("_150", "_200", "_300")) or name in ("iris", "wine_alcohol")
    large = name in ("digits", "hastie")
    given: dict[str, Any] = {
        "data": {
            "name": "suggestion_data:table",
            "set_name": name,
            "batch_size": 16 if small else 64 if large else 32,
            "validation_fraction": 0.3 if small else 0.2,
            "test_fraction": 0.0,
            "seed": data_seed,
        },
        "model": MODELS[model],
        "optimizer": {**OPTIMIZERS[optimizer][0], "learning_rate": OPTIMIZERS[optimizer][1]},
        "schedule": {"optimizer": {"learning_rate": {"name": schedule}}},
        "train": {"duration": f"{steps or length} steps"},
    }
    if name in NUMBERS:
        given |= {"task": {"name": "regression"}, "loss": {"name": "mse"}}
    return build(resolve_config(given).config, lanes=True)


class Trained(NamedTuple):
    """Validation losses of full trainings, means over seeds (rates,): the best evaluation, the last, and untrained."""

    best: np.ndarray
    last: np.ndarray
    untrained: float


def train_rates(built: Experiment, rates: np.ndarray, first_seed: int = 0) -> Trained:
    """Trains each rate in full with three seeds, as lanes, and evaluates 20 times; a diverged lane has the loss inf."""
    total = built.lengths.total
    population = Population(built.rules, built.mesh, lanes=len(rates) * SEEDS)
    hparams = {**built.hparams, "optimizer.learning_rate": np.repeat(rates, SEEDS)}
    seeds = range(first_seed, first_seed + SEEDS)
    states = population.init(np.tile(seeds, len(rates)), hparams, built.example)
    judge = built.eval_batches("validation")
    losses = [finish_each(population.fetch(population.evaluate(states, judge)["loss"]))]
    at = 0
    for stop in sorted({round(total * (i + 1) / EVALUATIONS) for i in range(EVALUATIONS)} - {0}):
        while at < stop:
            steps = min(CAPACITY, stop - at)
            states, _ = population.call(states, built.batches(at, steps, CAPACITY), steps)
            at += steps
        loss = finish_each(population.fetch(population.evaluate(states, judge)["loss"]))
        losses.append(np.where(population.fetch(states.live) & np.isfinite(loss), loss, np.inf))
    of_seeds = np.asarray(losses[1:]).reshape(-1, len(rates), SEEDS)
    return Trained(of_seeds.min(axis=0).mean(axis=1), of_seeds[-1].mean(axis=1), float(np.mean(losses[0])))


def ramp(built: Experiment) -> list[float]:
    """Returns the suggestion of fastai's `valley` on a ramp with fastai's settings, for each of three seeds."""
    rates = np.geomspace(1e-7, 10.0, 100)
    seed = built.config["seed"]
    setup = Setup(built.rules, built.hparams, built.batches, mesh=built.mesh)
    points = Points("optimizer.learning_rate", rates, range(seed, seed + SEEDS))
    return [as_fastai(rates, losses) for losses in sweep_ramp(setup, points)[0].T]


def as_fastai(rates: np.ndarray, losses: np.ndarray, beta: float = 0.98) -> float:
    """Applies `valley` to the smoothed losses, cut at four times the best, without the first tenth and last five."""
    average = 0.0
    best = np.inf
    smoothed = []
    for i, loss in enumerate(losses):
        average = beta * average + (1.0 - beta) * loss
        smoothed.append(average / (1.0 - beta ** (i + 1)))
        best = min(best, smoothed[-1])
        if not smoothed[-1] <= 4.0 * best:
            break
    begin = len(rates) // 10
    kept = slice(begin, len(smoothed) - 5) if len(smoothed) > begin + 7 else slice(None)  # else it was cut at once
    return valley(rates[: len(smoothed)][kept], np.asarray(smoothed)[kept])
