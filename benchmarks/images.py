"""Loads the Fashion-MNIST configs for the benchmarks, with random images of the same shape if the files are missing."""

import atexit
import functools
import gzip
import os
import struct
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from timing import ROOT

from jaxtrain import build, load_config
from jaxtrain.training.experiment import Experiment

QUICK = "--quick" in sys.argv  # to see that a benchmark runs, a few random images do
SIZES = {"train": 600, "t10k": 200} if QUICK else {"train": 60_000, "t10k": 10_000}
SMALLER = {"data.batch_size": 16} if QUICK else {}


@functools.cache
def use_data() -> list[str]:
    """Sets JAXTRAIN_DATA to a folder with `fashion_mnist/*.gz`; returns a note that says which data it holds.

    Keeps the folder that the variable names if it has the files. Otherwise, and with --quick, it writes random files
    to a temporary folder, which this process and the commands that it starts read.
    """
    folder = Path(os.environ.get("JAXTRAIN_DATA", "data"), "fashion_mnist")
    if (folder / "train-images-idx3-ubyte.gz").is_file() and not QUICK:
        return ["data: Fashion-MNIST"]
    temporary = tempfile.TemporaryDirectory()
    atexit.register(temporary.cleanup)
    _write_random_images(Path(temporary.name, "fashion_mnist"))
    os.environ["JAXTRAIN_DATA"] = temporary.name
    why = "--quick" if QUICK else "JAXTRAIN_DATA has no fashion_mnist/"
    return [f"data: {SIZES['train']:,} random images of Fashion-MNIST's shape ({why})"]


def _write_random_images(folder: Path) -> None:
    """Writes random images of 28x28 grey pixels, and random labels of 10 classes, as IDX files."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for part, size in SIZES.items():
        images = generator.integers(0, 256, (size, 28, 28), np.uint8)
        labels = generator.integers(0, 10, size, np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            packed = gzip.compress(header + array.tobytes(), compresslevel=0)
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(packed)


def experiment(config: str, overrides: Mapping[str, Any]) -> tuple[Experiment, list[str]]:
    """Builds configs/<config>.py with overrides; returns the experiment and a note on its data."""
    notes = use_data()
    return build(load_config(ROOT / "configs" / f"{config}.py", {**SMALLER, **overrides})), [*notes]
