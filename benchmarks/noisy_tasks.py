"""Tasks of benchmarks/search_value.py, on which a single evaluation says little: wrong labels, few examples."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.data.readers.embedded import digits
from jaxtrain.data.source import Source, Split

WRONG = 0.3
"""The share of wrong labels."""


def wrong_digits(path: Path) -> Source:
    """Returns 600 digits, of which nearly a third has a label drawn at random."""
    split, draw = _shuffled(path), np.random.default_rng(1)
    targets = split.targets[:600].copy()
    wrong = draw.random(len(targets)) < WRONG
    targets[wrong] = draw.integers(0, 10, int(wrong.sum()))
    return Source({"train": Split(split.inputs[:600], targets)}, classes=10)


def few_digits(path: Path) -> Source:
    """Returns 160 digits."""
    split = _shuffled(path)
    return Source({"train": Split(split.inputs[:160], split.targets[:160])}, classes=10)


def _shuffled(path: Path) -> Split:
    split = digits(path).splits["train"]
    order = np.random.default_rng(0).permutation(len(split.targets))
    return Split(split.inputs[order], split.targets[order])


_SGD = {"name": "sgd", "momentum": 0.9, "learning_rate": 0.01}
_ADAM = {"name": "adam", "learning_rate": 1e-3}
_REGRESSION = {"task": {"name": "regression"}, "loss": {"name": "mse"}}

TASKS: dict[str, tuple[dict[str, Any], tuple[float, float]]] = {
    "wrong labels": ({"data": {"name": "noisy_tasks:wrong_digits"}, "optimizer": _SGD, "schedule": {}}, (1e-3, 3.0)),
    "few examples": ({"data": {"name": "noisy_tasks:few_digits"}, "optimizer": _ADAM, "schedule": {}}, (1e-4, 0.3)),
    "noisy targets": ({"data": {"name": "diabetes"}, "optimizer": _ADAM, "schedule": {}, **_REGRESSION}, (1e-4, 0.3)),
    "wrong labels, decayed": ({"data": {"name": "noisy_tasks:wrong_digits"}, "optimizer": _SGD}, (1e-3, 3.0)),
}
"""Name -> (config, lowest and highest learning rate). Rates are constant; the last task has the default schedule."""
