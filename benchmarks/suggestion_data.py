"""Data sets of benchmarks/lr_suggestion.py: those that scikit-learn ships or makes, whole and as small parts.

Inputs have columns of zero mean and unit variance, some with noise added. Another column of a table may be the target.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import datasets

from jaxtrain.data.source import Source, Split

Maker = Callable[[], tuple[Any, Any]]


def _loaded(name: str) -> Maker:
    def load() -> tuple[Any, Any]:
        table = getattr(datasets, f"load_{name}")()
        return table.data, table.target

    return load


def _column(name: str, target: int) -> Maker:
    """Makes a column of a table the target."""

    def load() -> tuple[Any, Any]:
        inputs, _ = _loaded(name)()
        return np.delete(inputs, target, axis=1), inputs[:, target]

    return load


def _made(name: str, *arguments: int, **options: Any) -> Maker:
    return lambda: getattr(datasets, f"make_{name}")(*arguments, random_state=0, **options)


CLASSES: dict[str, tuple[Maker, int | None, float]] = {
    "digits": (_loaded("digits"), None, 0.0),
    "digits_300": (_loaded("digits"), 300, 0.0),
    "breast_cancer": (_loaded("breast_cancer"), None, 0.0),
    "breast_cancer_150": (_loaded("breast_cancer"), 150, 0.0),
    "wine_150": (_loaded("wine"), 150, 0.8),
    "iris": (_loaded("iris"), None, 0.5),
    "moons": (_made("moons", 400, noise=0.3), None, 0.0),
    "clusters": (_made("classification", 800, 20, n_informative=6, n_classes=4), None, 0.0),
    "hastie": (_made("hastie_10_2", 3000), None, 0.0),
}
NUMBERS: dict[str, tuple[Maker, int | None]] = {
    "diabetes": (_loaded("diabetes"), None),
    "diabetes_pressure": (_column("diabetes", 3), None),
    "friedman1": (_made("friedman1", 1000, noise=1.0), None),
    "friedman2_200": (_made("friedman2", 200, noise=50.0), None),
    "friedman3": (_made("friedman3", 600, noise=0.1), None),
    "wine_alcohol": (_column("wine", 0), None),
    "breast_texture": (_column("breast_cancer", 1), None),
}
HELD_OUT = ("digits_300", "clusters", "diabetes_pressure", "friedman3", "breast_texture")
DEVELOPMENT = tuple(name for name in (*CLASSES, *NUMBERS) if name not in HELD_OUT)


def table(path: Path, set_name: str = "digits") -> Source:
    """Returns one of the data sets, in an order drawn once."""
    del path  # nothing is read from the data folder
    if set_name in CLASSES:
        make, rows, noise = CLASSES[set_name]
    else:
        make, rows = NUMBERS[set_name]
        noise = 0.0
    inputs, targets = make()
    generator = np.random.default_rng(0)
    order = generator.permutation(len(inputs))[:rows]
    scaled = ((inputs - inputs.mean(axis=0)) / (inputs.std(axis=0) + 1e-6))[order]
    scaled = scaled + noise * generator.standard_normal(scaled.shape)
    if set_name in NUMBERS:
        return Source({"train": Split(scaled.astype(np.float32), targets[order].astype(np.float32))})
    classes, labels = np.unique(targets, return_inverse=True)
    return Source({"train": Split(scaled.astype(np.float32), labels[order].astype(np.int32))}, classes=len(classes))
