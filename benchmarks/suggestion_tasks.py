"""The tasks of benchmarks/lr_suggestion.py, their trainings in full, and the ramp of fastai's finder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtrain import build
from jaxtrain.config.resolve import resolve_config
from jaxtrain.data.readers.idx import fashion_mnist
from jaxtrain.data.source import Source, Split
from jaxtrain.lr_range.rules import valley
from jaxtrain.lr_range.sweep import finish_each, lr_range_test
from jaxtrain.parallel.population import Population
from jaxtrain.training.experiment import Experiment

SEEDS, EVALUATIONS, CAPACITY = 3, 20, 100


class Task(NamedTuple):
    """A config's data and model, the metric beside the loss, the full length in steps, and whether it was held out."""

    data: Mapping[str, Any]
    model: Mapping[str, Any]
    steps: int
    held_out: bool
    metric: str = "accuracy"


def fashion_5000(path: Path) -> Source:
    """The first 5,000 examples of Fashion-MNIST."""
    split = fashion_mnist(path).splits["train"]
    return Source({"train": Split(split.inputs[:5000], split.targets[:5000])}, classes=10)


_FASHION, _CNN = "suggestion_tasks:fashion_5000", {"name": "cnn", "features": (8, 16), "hidden": (64,)}
TASKS = {
    "digits_mlp": Task({"name": "digits", "batch_size": 64}, {"name": "mlp"}, 700, False),
    "breast_cancer_mlp": Task(
        {"name": "breast_cancer", "batch_size": 32}, {"name": "mlp", "hidden": (64, 64)}, 700, False
    ),
    "fashion_5000_mlp": Task({"name": _FASHION, "batch_size": 128}, {"name": "mlp"}, 600, False),
    "digits_cnn": Task({"name": "digits", "batch_size": 64}, _CNN, 700, True),
    "diabetes_mlp": Task(
        {"name": "diabetes", "batch_size": 32}, {"name": "mlp", "hidden": (64, 64)}, 500, True, metric="r2"
    ),
    "fashion_5000_cnn": Task({"name": _FASHION, "batch_size": 64}, _CNN, 300, True),
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "momentum": 0.9},
    "adam": {"name": "adam"},
    "adamw": {"name": "adamw", "weight_decay": 0.05},
}


def experiment(name: str, optimizer: str, quick: bool) -> Experiment:
    """Builds a task as a user writes it down: the default schedule, a fifth of the data for validation, no test."""
    task = TASKS[name]
    regression = {"task": {"name": "regression", "metrics": ("r2",)}, "loss": {"name": "mse"}}
    given = {
        "data": {**task.data, "validation_fraction": 0.2, "test_fraction": 0.0},
        "model": dict(task.model),
        "optimizer": {**OPTIMIZERS[optimizer], "learning_rate": 1e-3},
        "train": {"duration": f"{20 if quick else task.steps} steps"},
        **(regression if task.metric == "r2" else {}),
    }
    return build(resolve_config(given).config, lanes=True)


def trained(found: Experiment, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Trains rates in full, as lanes; returns the best validation loss and metric over the training, (rates, seeds).

    Evaluated 20 times; infinite (the metric: minus infinity) where a lane diverged.
    """
    total, metric = found.lengths.total, "r2" if found.config["task"]["name"] == "regression" else "accuracy"
    population = Population(found.rules, found.mesh, lanes=len(rates) * SEEDS)
    hparams = {**found.hparams, "optimizer.learning_rate": np.repeat(rates, SEEDS)}
    states = population.init(np.tile(range(SEEDS), len(rates)), hparams, found.example)
    stops = sorted({round(total * (i + 1) / EVALUATIONS) for i in range(EVALUATIONS)} - {0})
    losses, metrics, at = [], [], 0
    for stop in stops:
        while at < stop:
            steps = min(CAPACITY, stop - at)
            states, _ = population.call(states, found.batches(at, steps, CAPACITY), steps)
            at += steps
        measured = population.evaluate(states, found.eval_batches("validation"))
        loss, score = (population.fetch(measured[name]) for name in ("loss", metric))
        losses.append(finish_each(loss))
        metrics.append(finish_each(score))
    alive = population.fetch(states.live)
    best = np.where(alive, np.min(losses, axis=0), np.inf), np.where(alive, np.max(metrics, axis=0), -np.inf)
    return best[0].reshape(-1, SEEDS), best[1].reshape(-1, SEEDS)


def ramp(found: Experiment) -> list[float]:
    """Returns what fastai's `valley` suggests on a ramp as fastai's, for each of three seeds."""
    rates, seed = np.geomspace(1e-7, 10.0, 100), found.config["seed"]
    result = lr_range_test(
        found.rules,
        found.hparams,
        found.batches,
        rates,
        range(seed, seed + SEEDS),
        method="ramp",
        mesh=found.mesh,
    )
    return [as_fastai(rates, losses) for losses in result.losses.T]


def as_fastai(rates: np.ndarray, losses: np.ndarray, beta: float = 0.98) -> float:
    """Applies `valley` to a smoothed ramp, stopped at four times its best, without its first tenth and last five."""
    average, best, smoothed = 0.0, np.inf, []
    for i, loss in enumerate(losses):
        average = beta * average + (1.0 - beta) * loss
        smoothed.append(average / (1.0 - beta ** (i + 1)))
        best = min(best, smoothed[-1])
        if not smoothed[-1] <= 4.0 * best:
            break
    kept = slice(len(rates) // 10, max(len(smoothed) - 5, len(rates) // 10 + 2))
    return valley(rates[: len(smoothed)][kept], np.asarray(smoothed)[kept])
