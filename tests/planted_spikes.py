"""Runs with bad batches at known steps, of data whose rows come once: what `train.on_spike` must name and undo."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxtrain.data.order import batch_indices
from jaxtrain.data.source import Source

CLASSES = 5
FEATURES = 12
SIZE = 32
DIRECTIONS = np.random.default_rng(0).normal(size=(FEATURES, CLASSES))


def points(examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns noisy classes of random points, inputs float32 (examples, FEATURES) and labels."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(examples, FEATURES)).astype(np.float32)
    scores = inputs @ DIRECTIONS
    return inputs, (scores + random.normal(size=scores.shape)).argmax(axis=1).astype(np.int32)


def rows_at(step: int, examples: int) -> np.ndarray:
    """Returns the rows of the batch of a step."""
    return batch_indices(step, 1, examples=examples, batch_size=SIZE, seed=0, weights=None)[0]


def scaled(inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs in another unit."""
    return 30 * inputs, labels


def inverted(inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs of the other sign, far out: each label is far from what was learnt."""
    return -10 * inputs, labels


def mislabelled(inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each point the class that it is farthest from."""
    return inputs, (inputs @ DIRECTIONS).argmin(axis=1).astype(np.int32)


FAULTS = {"scaled": scaled, "inverted": inverted, "mislabelled": mislabelled}


def source(steps: int, faults: Mapping[int, str], seed: int = 1) -> Source:
    """Returns data of which each row comes once in so many steps, with a faulty batch at each of these steps."""
    inputs, labels = points(steps * SIZE, seed)
    for step, fault in faults.items():
        rows = rows_at(step, len(inputs))
        inputs[rows], labels[rows] = FAULTS[fault](inputs[rows], labels[rows])
    judge = points(1000, seed + 1)
    return Source({"train": (inputs, labels), "validation": judge, "test": judge}, classes=CLASSES)


def overrides(steps: int, on_spike: str | None = "rewind") -> dict[str, Any]:
    """Returns the part of a config that such a run needs."""
    return {"train.duration": f"{steps} steps", "train.on_spike": on_spike, "data.batch_size": SIZE}
