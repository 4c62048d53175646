"""Compares the default search by TPE with plain Optuna's, which asks for one trial at a time, at equal steps.

python benchmarks/search_learning.py [--studies=5] [--output=FILE.json] [--quick]

A study that asks for one trial at a time is Optuna's TPE around solo runs: the same points, in the same order.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import timing  # before jax: puts this clone first on the path

from jaxtrain.commands.options import use_a_host_device_per_core

use_a_host_device_per_core()  # before JAX starts, like the command

import numpy as np  # noqa: E402
from scipy import stats  # noqa: E402
from suggestion_data import NUMBERS  # noqa: E402

from jaxtrain import run_search  # noqa: E402
from jaxtrain.config.resolve import resolve_config  # noqa: E402

TASKS = ("digits_300", "breast_cancer", "wine_150", "diabetes", "friedman1", "clusters")
SPACE = {
    "optimizer": {
        "learning_rate": ("log_uniform", 1e-5, 1.0),
        "b1": ("uniform", 0.5, 0.99),
        "weight_decay": ("log_uniform", 1e-5, 1.0),
    },
    "model": {"dropout": ("uniform", 0.0, 0.6)},
}
WAYS: dict[str, dict[str, Any]] = {"default": {}, "one at a time": {"search.batch": 1}}


def main() -> None:
    """Runs the studies of every task in both ways; reports paired differences of the best values."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("--studies", type=int, default=5, help="studies of a task, each with a seed of its own (5)")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="one task, two studies, a few trials and steps")
    options = parser.parse_args()
    where = timing.environment()
    title = "Best validation loss of 32 trials: the default batch of TPE, and one trial at a time"
    print("\n".join([title, *timing.environment_lines(where)]), flush=True)
    tasks = {}
    for name in TASKS[: 1 if options.quick else None]:
        tasks[name] = task(name, 2 if options.quick else options.studies, options.quick)
        print(_line(name, tasks[name]), flush=True)
    medians = [found["median difference"] for found in tasks.values()]
    print(f"median difference over tasks {statistics.median(medians):+.4f} (negative: the default is better)")
    timing.save({"title": title, "tasks": tasks, "environment": where}, options.output)


def task(name: str, studies: int, quick: bool) -> dict[str, Any]:
    """Returns the best values of both ways, their paired differences relative to the loss, and seconds."""
    best: dict[str, list[float]] = {way: [] for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(studies):
        for way, overrides in WAYS.items():
            began = time.perf_counter()
            best[way].append(_study(name, seed, overrides, quick))
            seconds[way].append(time.perf_counter() - began)
    ours, theirs = (np.asarray(best[way]) for way in WAYS)
    differences = (ours - theirs) / theirs
    half = float(stats.t.ppf(0.975, studies - 1) * differences.std(ddof=1) / np.sqrt(studies))
    return {
        "best": best,
        "seconds": seconds,
        "median difference": float(np.median(differences)),
        "interval": [float(differences.mean()) - half, float(differences.mean()) + half],
        "not worse": bool(differences.mean() - half <= 0.0),
    }


def _study(name: str, seed: int, overrides: dict[str, Any], quick: bool) -> float:
    """Runs a study; returns its best value."""
    given = {"search.sampler": "tpe", "search.trials": 4 if quick else 32}
    with tempfile.TemporaryDirectory() as folder:
        result = run_search(
            resolve_config(study_config(name, seed, quick), given | overrides).config, folder, quiet=True
        )
    best = result.findings.best
    assert best is not None
    assert best.value is not None
    return best.value


def study_config(name: str, seed: int, quick: bool) -> dict[str, Any]:
    """Returns what a study of a task gives to the config."""
    regression = {"task": {"name": "regression"}, "loss": {"name": "mse"}} if name in NUMBERS else {}
    return {
        "seed": seed,
        "data": {
            "name": "suggestion_data:table",
            "set_name": name,
            "batch_size": 32,
            "validation_fraction": 0.3,
            "test_fraction": 0.0,
        },
        "model": {"name": "mlp", "hidden": (64,)},
        "optimizer": {"name": "adamw", "learning_rate": 1e-4},
        "train": {"duration": "20 steps" if quick else "200 steps"},
        "eval": {"every": "25 %"},
        "track": {"tensorboard": False},
        "search": {"space": SPACE, "compare_seeds": 0},
        **regression,
    }


def _line(name: str, found: dict[str, Any]) -> str:
    values = ", ".join(
        f"{way} {statistics.median(found['best'][way]):.4f} in {sum(found['seconds'][way]):.0f} s" for way in WAYS
    )
    low, high = found["interval"]
    verdict = "not worse" if found["not worse"] else "WORSE"
    return f"{name}: {values}; difference {found['median difference']:+.2%}, 95 % {low:+.2%} to {high:+.2%}: {verdict}"


if __name__ == "__main__":
    main()
