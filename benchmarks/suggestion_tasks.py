"""Tasks of benchmarks/lr_suggestion.py, their full trainings, and a range test like fastai's."""

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

SEEDS = 3
EVALUATIONS = 20
CAPACITY = 100


class Task(NamedTuple):
    """Data and model of a config, its length in steps, whether it is held out, and the metric beside the loss."""

    data: Mapping[str, Any]
    model: Mapping[str, Any]
    steps: int
    held_out: bool
    metric: str = "accuracy"


def fashion_5000(path: Path) -> Source:
    """Reads the first 5,000 examples of Fashion-MNIST."""
    split = fashion_mnist(path).splits["train"]
    return Source({"train": Split(split.inputs[:5000], split.targets[:5000])}, classes=10)


_FASHION = "suggestion_tasks:fashion_5000"
_CNN = {"name": "cnn", "features": (8, 16), "hidden": (64,)}
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
    """Builds a task with the default schedule, a fifth of the data for validation, and no test split."""
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


def train_rates(built: Experiment, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Trains each rate in full, as lanes; returns the best validation loss and metric of each, (rates, seeds).

    The best is taken over 20 evaluations. A lane that diverged has loss inf and metric -inf.
    """
    total = built.lengths.total
    metric = "r2" if built.config["task"]["name"] == "regression" else "accuracy"
    population = Population(built.rules, built.mesh, lanes=len(rates) * SEEDS)
    hparams = {**built.hparams, "optimizer.learning_rate": np.repeat(rates, SEEDS)}
    states = population.init(np.tile(range(SEEDS), len(rates)), hparams, built.example)
    stops = sorted({round(total * (i + 1) / EVALUATIONS) for i in range(EVALUATIONS)} - {0})
    losses = []
    metrics = []
    at = 0
    for stop in stops:
        while at < stop:
            steps = min(CAPACITY, stop - at)
            states, _ = population.call(states, built.batches(at, steps, CAPACITY), steps)
            at += steps
        measured = population.evaluate(states, built.eval_batches("validation"))
        loss, score = (population.fetch(measured[name]) for name in ("loss", metric))
        losses.append(finish_each(loss))
        metrics.append(finish_each(score))
    alive = population.fetch(states.live)
    best = np.where(alive, np.min(losses, axis=0), np.inf), np.where(alive, np.max(metrics, axis=0), -np.inf)
    return best[0].reshape(-1, SEEDS), best[1].reshape(-1, SEEDS)


def ramp(built: Experiment) -> list[float]:
    """Returns the suggestion of fastai's `valley` on a ramp with fastai's settings, for each of three seeds."""
    rates = np.geomspace(1e-7, 10.0, 100)
    seed = built.config["seed"]
    result = lr_range_test(
        built.rules,
        built.hparams,
        built.batches,
        rates,
        range(seed, seed + SEEDS),
        method="ramp",
        mesh=built.mesh,
    )
    return [as_fastai(rates, losses) for losses in result.losses.T]


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
    kept = slice(len(rates) // 10, max(len(smoothed) - 5, len(rates) // 10 + 2))
    return valley(rates[: len(smoothed)][kept], np.asarray(smoothed)[kept])
