"""Data: sources, and the dataset that a run builds from one.

A source is a function `(path, **knobs)` that returns the splits it has, as a `Source` or as a plain dict
`{"train": (inputs, targets), ...}`; `path`, the data folder, is supplied by the framework.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from jaxtrain.config.own_code import add_frames
from jaxtrain.config.registry import Family, knobs_of
from jaxtrain.data.dataset import Dataset
from jaxtrain.data.image_fields import read_images
from jaxtrain.data.images import SUFFIXES
from jaxtrain.data.info import DataInfo
from jaxtrain.data.loading import load_dataset
from jaxtrain.data.new_inputs import check_numbers
from jaxtrain.data.readers.arrays import arrays
from jaxtrain.data.readers.csv_files import csv, read_csv_table
from jaxtrain.data.readers.embedded import breast_cancer, diabetes, digits, python_source
from jaxtrain.data.readers.hub import hub
from jaxtrain.data.readers.idx import fashion_mnist, idx
from jaxtrain.data.readers.image_folders import image_folder
from jaxtrain.data.readers.image_masks import image_masks
from jaxtrain.data.readers.image_tables import image_table
from jaxtrain.data.readers.json_lines import jsonl, read_jsonl_table
from jaxtrain.data.readers.parquet_files import parquet, read_parquet_images, read_parquet_table
from jaxtrain.data.readers.text_files import read_windows, text
from jaxtrain.data.readers.text_folders import read_texts, text_folder
from jaxtrain.data.settings import Settings
from jaxtrain.data.source import Source, Split, as_source
from jaxtrain.errors import DataError, UsageError, Words, one_of, printable
from jaxtrain.files import reported_as

__all__ = ["SOURCES", "DataInfo", "Dataset", "Needs", "Settings", "Source", "Split", "load"]


MEMORY = "memory"
"""The name of the source of data that are given in Python."""


def memory(path: Path) -> Source:
    """Data given in Python, as `train_and_evaluate(config, workdir, data=Source(...))`: the command has none."""
    hint = "Call the function in Python again, with data=Source(...)"
    raise DataError(
        "data.name", MEMORY, "a source that reads files, since this run was trained on data in Python", hint
    )


SOURCES = Family(
    "data",
    {
        "digits": digits,
        "breast_cancer": breast_cancer,
        "diabetes": diabetes,
        "python_source": python_source,
        "fashion_mnist": fashion_mnist,
        "hub": hub,
        "idx": idx,
        "arrays": arrays,
        "csv": csv,
        "jsonl": jsonl,
        "parquet": parquet,
        "image_folder": image_folder,
        "image_masks": image_masks,
        "image_table": image_table,
        "text": text,
        "text_folder": text_folder,
        MEMORY: memory,
    },
    supplied=("path",),
    common=Settings,
)


class Needs(TypedDict, total=False):
    """The form of inputs and targets that a model and a task need, as in `load_dataset`."""

    standardised: bool
    coded: bool


def load(section: Mapping[str, Any], given: Source | None = None, **needs: Unpack[Needs]) -> Dataset:
    """Reads, checks and splits the data of a resolved section, or a given source; raises DataError naming file and row.

    `needs` are those of `load_dataset`.
    """
    settings: Settings = SOURCES.bind_common(section)(_by_key(section))
    source = as_source(read(section), section["name"]) if given is None else as_source(given, MEMORY)
    return load_dataset(source, settings, **needs)


def read(section: Mapping[str, Any]) -> object:
    """Returns what the source of a resolved section returns, as it is; raises DataError naming file and row."""
    settings: Settings = SOURCES.bind_common(section)(_by_key(section))
    root = Path(settings.path or os.environ.get("JAXTRAIN_DATA") or "data")
    try:
        with reported_as(DataError):
            return SOURCES.bind(section)(_by_key(section), root)
    except OSError as error:  # of a user's own source: our readers raise StorageError
        got = Words(f"{section['name']}, which failed ({type(error).__name__}: {printable(str(error))})")
        explained = DataError("data.name", got, "a source whose files can be read", "Check its paths")
        raise add_frames(explained, error) from error


def _by_key(section: Mapping[str, Any]) -> dict[str, Any]:
    return {f"data.{knob}": value for knob, value in section.items()}


def read_inputs(
    section: Mapping[str, Any], info: DataInfo, files: Sequence[str | Path], *, allow_nan: bool = False
) -> np.ndarray:
    """Reads the inputs of new files, to predict from, as the source of a resolved section read those of training.

    Files are pictures, one an example, or tables, or Parquet files of pictures; a target in them may be absent. A long
    text is read in a row, as windows; where each text is an example, a file holds one. Raises DataError naming file and
    row, unless `allow_nan` also for a number that is missing in a column that misses none in training, and UsageError
    for a source whose files hold no inputs alone.
    """
    name = section["name"]
    if info.vocabulary is not None:
        return read_windows(files, info, section.get("encoding", "utf-8"))
    if name == "text_folder" and info.texts is not None:
        places = list(map(Path, files))
        return info.encode(read_texts(places[0].parent, places, section["encoding"]))
    if name in TABLES and info.encoding is not None:
        kinds = info.encoding.kinds
        tables = [TABLES[name](Path(file), section, kinds) for file in files]
        for table in () if allow_nan else tables:
            check_numbers(table, info)
        return np.concatenate([info.encode(table) for table in tables])
    if name == "parquet" and not all(str(file).lower().endswith(SUFFIXES) for file in files):
        form = (info.input_shape, info.input_dtype)
        return np.concatenate([read_parquet_images(Path(file), section, *form) for file in files])
    if len(info.input_shape) == 3 and name in IMAGES:
        given = {knob: section[knob] for knob in ("size", "channels", "resampling") if knob in section}
        return read_images(files, info.input_shape, info.input_dtype, **given)
    raise UsageError(
        "data.name",
        name,
        one_of([*TABLES, *IMAGES, "text", "text_folder"]),
        "Read the arrays, and call predict with them",
    )


TABLES = {"csv": read_csv_table, "jsonl": read_jsonl_table, "parquet": read_parquet_table}
"""Readers of the inputs of a new table, by the source that a run was trained with."""

IMAGES = ("image_folder", "image_masks", "image_table", "parquet")
"""Sources whose inputs may be pictures."""


def with_given(config: Mapping[str, Any], given: object | None) -> dict[str, Any]:
    """Returns a resolved config whose data are given in Python: its source is `memory`, and its settings stay."""
    if given is None or config["data"]["name"] == MEMORY:
        return dict(config)
    settings = {knob: config["data"][knob] for knob in knobs_of(Settings)}
    return {**config, "data": {"name": MEMORY, **settings}}
