"""Data: sources, and the dataset that a run builds from one.

A source is a function `(path, **knobs)` that returns the splits it has, as a `Source` or as a plain dict
`{"train": (inputs, targets), ...}`; `path`, the data folder, is supplied by the framework.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from jaxtrain.config.registry import Family
from jaxtrain.config.schema import Bounds, Count, Name, Probability
from jaxtrain.data.dataset import Dataset, load_dataset
from jaxtrain.data.info import DataInfo
from jaxtrain.data.readers.arrays import arrays
from jaxtrain.data.readers.embedded import breast_cancer, diabetes, digits
from jaxtrain.data.readers.idx import fashion_mnist, idx
from jaxtrain.data.source import Source, Split, as_source
from jaxtrain.errors import DataError
from jaxtrain.files import reported_as

__all__ = ["SOURCES", "DataInfo", "Dataset", "Settings", "Source", "Split", "load"]


@dataclass(frozen=True)
class Settings:
    """Settings of every source: the data folder (None: $JAXTRAIN_DATA, else data/), splits and batch sizes.

    `seed` determines the splits and the order of the batches. A fraction applies only if the source has no such split.
    """

    path: Name | None = None
    seed: Annotated[int, Bounds(0)] = 0
    batch_size: Count = 128
    eval_batch_size: Count = 256
    validation_fraction: Probability = 0.1
    test_fraction: Probability = 0.1


SOURCES = Family(
    "data",
    {
        "digits": digits,
        "breast_cancer": breast_cancer,
        "diabetes": diabetes,
        "fashion_mnist": fashion_mnist,
        "idx": idx,
        "arrays": arrays,
    },
    supplied=("path",),
    common=Settings,
)


def load(section: Mapping[str, Any], *, standardised: bool = False) -> Dataset:
    """Reads, checks and splits the data of a resolved section; raises DataError naming file and index.

    `standardised` is as in `load_dataset`.
    """
    values = {f"data.{knob}": value for knob, value in section.items()}
    settings: Settings = SOURCES.bind_common(section)(values)
    root = Path(settings.path or os.environ.get("JAXTRAIN_DATA") or "data")
    with reported_as(DataError):
        returned = SOURCES.bind(section)(values, root)
    source = as_source(returned, section["name"])
    return load_dataset(
        source,
        seed=settings.seed,
        validation_fraction=settings.validation_fraction,
        test_fraction=settings.test_fraction,
        standardised=standardised,
    )
