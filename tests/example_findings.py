"""Made-up outcomes of searches, for the tests of pictures and files."""

import dataclasses
from typing import Any

import numpy as np
from tiny_runs import tiny

from jaxtrain.search.results import Comparison, Findings
from jaxtrain.search.space import Space, read_space
from jaxtrain.search.trials import Outcome

CONDITIONAL = {
    "optimizer.name": ("choice", ("sgd", "adamw")),
    "optimizer.learning_rate": ("log_uniform", 1e-4, 1.0),
    "optimizer.momentum": ("uniform", 0.5, 0.99),
    "optimizer.weight_decay": ("log_uniform", 1e-6, 1e-1),
    "model.hidden": ("choice", ((32,), (64,), (64, 64))),
    "data.batch_size": ("grid", (32, 64, 128, 256)),
}
"""A space in which momentum is active under one optimizer and weight decay under the other."""


def space_of(ranges: dict[str, tuple]) -> Space:
    """Reads a space over the tiny config."""
    return read_space(tiny({f"search.space.{key}": entry for key, entry in ranges.items()}))


def findings_of(count: int, ranges: dict[str, tuple] | None = None, seeds: int = 3, compared: bool = True) -> Findings:
    """Makes up a search whose accuracy is best near a learning rate of 0.02 and which diverges above 0.5."""
    space = space_of(ranges or CONDITIONAL)
    draw = np.random.default_rng(0)
    points = [space.own, *(space.suggest(lambda d: d.at(draw.random())) for _ in range(count - 1))]
    outcomes = [_outcome(number, point, seeds, draw) for number, point in enumerate(points)]
    best = max(outcomes, key=lambda o: (o.status == "done", o.value or 0.0))
    sides = {seed: 0.95 + 0.01 * seed for seed in (3, 4, 5)}, {seed: 0.93 + 0.01 * seed**1.05 for seed in (3, 4, 5)}
    comparison = Comparison("test", "accuracy", True, best.trial, *sides) if compared else None
    return Findings("digits_search", space, outcomes, "accuracy", True, 83.4, comparison)


def _outcome(number: int, point: dict[str, Any], seeds: int, draw: np.random.Generator) -> Outcome:
    rate = point.get("optimizer.learning_rate", 0.02)
    middle = 0.96 - 0.11 * np.log10(rate / 0.02) ** 2 - 0.03 * (point.get("optimizer.name") == "sgd")
    values = np.clip(middle + 0.01 * draw.standard_normal(seeds), 0.05, 0.999)
    by_seed: dict[int, float | None] = dict(enumerate(values.tolist()))
    if rate > 0.5:
        return Outcome(number, "diverged", None, dict.fromkeys(by_seed), 7, point, point, [], 0.4)
    early = values.mean() < 0.9
    step = 20 if early else 60
    curve = [[s, float(values.mean() * (1 - 0.6 * 0.9**s))] for s in range(10, step + 1, 10)]
    status = "stopped" if early else "done"
    return Outcome(number, status, float(values.mean()), by_seed, step, point, point, curve, step / 40)


def all_diverged(count: int = 5) -> Findings:
    """Makes a search in which every trial diverged."""
    found = findings_of(count, compared=False)
    lost = [dataclasses.replace(o, status="diverged", value=None, seeds=dict.fromkeys(o.seeds)) for o in found.outcomes]
    return dataclasses.replace(found, outcomes=lost)
