"""Fashion-MNIST's configs for the benchmarks; where the files are not there, random images of the same shape."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from timing import ROOT

from jaxtrain import build, load_config
from jaxtrain.errors import DataError
from jaxtrain.experiment import Experiment

RANDOM = "images:random_images"


def random_images(path: Path) -> dict[str, Any]:
    """60,000 and 10,000 random images of 28x28 grey pixels with random labels of 10 classes."""
    generator = np.random.default_rng(0)
    sizes = {"train": 60_000, "test": 10_000}
    return {
        split: (
            generator.integers(0, 256, (size, 28, 28, 1), np.uint8),
            generator.integers(0, 10, size, np.int32),
        )
        for split, size in sizes.items()
    }


def use_shared_data() -> None:
    """Lets JAXTRAIN_DATA name the data beside the clone, where they are and nothing else was said."""
    beside = ROOT.parent / "shared" / "data"
    if beside.is_dir():
        os.environ.setdefault("JAXTRAIN_DATA", str(beside))


def experiment(config: str, overrides: Mapping[str, Any]) -> tuple[Experiment, list[str]]:
    """Builds configs/<config>.py with overrides; returns it with notes on the data that were used."""
    use_shared_data()
    path = ROOT / "configs" / f"{config}.py"
    try:
        return build(load_config(path, overrides)), ["data: Fashion-MNIST"]
    except DataError:
        found = build(load_config(path, {**overrides, "data.name": RANDOM}))
        return found, ["data: random images of Fashion-MNIST's shape (JAXTRAIN_DATA has no fashion_mnist/)"]
