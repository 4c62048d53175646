"""Settings of every source: the folder, the splits, the order of the batches, and where they are gathered."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from jaxtrain.config.schema import Bounds, Count, Name, Probability


@dataclass(frozen=True)
class Settings:
    """Settings of every source: the data folder (None: $JAXTRAIN_DATA, else data/), splits, batch sizes and feeding.

    `seed` determines the splits and the order of the batches. A fraction applies only if the source has no such split.
    With `quantiles`, each number of a table is followed by its normal rank, learnt from that number of quantiles.
    Rows are assigned to splits at random; with `stratify` each split gets its share of every class, with `group_by` all
    rows with one value of a column lie in one split, and with `order_by` the last rows by a column, such as a time, are
    the test split, and those before them the validation split. `folds` is the number of parts into which all rows but
    those of the test split are cut: each fold validates on one part and trains on the others. Folds are trained as
    lanes of one program, or one of them, numbered from 0, by `fold`. `sample` draws training examples with replacement:
    "balanced" all classes alike, or by the weights in a column (None: each example once an epoch).
    With `per_example` each picture is brought to mean 0 and deviation 1 by itself in each channel, in place of all of
    them by the statistics of the training split: for pictures of uneven brightness.
    Up to `skip_bad` examples that cannot be read are passed over: the next one of their split stands for each.
    `feed` says where batches are gathered: "device" keeps the data on the devices, "host" sends each call its batches,
    and "stream" also decodes files while training, by `workers` threads (None: one for each processor; 0: none, the
    steps wait). With `processes` as many processes read the examples of Python objects, whose code threads run one at a
    time. All give the same numbers; None chooses by the sizes and the free memory. `cache` is a folder to which decoded
    examples are written once, from where later runs read them.
    """

    path: Name | None = None
    seed: Annotated[int, Bounds(0)] = 0
    batch_size: Count = 128
    eval_batch_size: Count = 256
    validation_fraction: Probability = 0.1
    test_fraction: Probability = 0.1
    quantiles: Annotated[int, Bounds(2, 10_000)] | None = None
    stratify: bool = False
    group_by: Name | None = None
    order_by: Name | None = None
    folds: Annotated[int, Bounds(2)] | None = None
    fold: Annotated[int, Bounds(0)] | None = None
    sample: Name | None = None
    per_example: bool = False
    skip_bad: Annotated[int, Bounds(0)] = 0
    feed: Literal["device", "host", "stream"] | None = None
    cache: Name | None = None
    workers: Annotated[int, Bounds(0, 256)] | None = None
    processes: bool = False


def data_folder(path: str | None) -> Path:
    """Returns the folder of the data: `data.path`, else $JAXTRAIN_DATA, else data/."""
    return Path(path or os.environ.get("JAXTRAIN_DATA") or "data")
