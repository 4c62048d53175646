"""Data: sources, and the dataset that a run builds from one.

A source is a function `(path, **knobs)` that returns the splits it has, as a `Source` or as a plain dict
`{"train": (inputs, targets), ...}`; `path`, the data folder, is supplied by the framework.
"""

from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

from jaxtrain.config.own_code import add_frames
from jaxtrain.config.registry import Family, Imported, knobs_of
from jaxtrain.data.dataset import Dataset
from jaxtrain.data.info import DataInfo
from jaxtrain.data.loading import load_dataset
from jaxtrain.data.readers.memory import MEMORY
from jaxtrain.data.settings import Settings, data_folder
from jaxtrain.data.source import Source, Split, as_source
from jaxtrain.errors import DataError, Words, printable
from jaxtrain.files import reported_as

__all__ = ["SOURCES", "DataInfo", "Dataset", "Needs", "Settings", "Source", "Split", "load"]


SOURCES = Family(
    "data",
    Imported(
        {
            "digits": "jaxtrain.data.readers.embedded:digits",
            "breast_cancer": "jaxtrain.data.readers.embedded:breast_cancer",
            "diabetes": "jaxtrain.data.readers.embedded:diabetes",
            "python_source": "jaxtrain.data.readers.embedded:python_source",
            "fashion_mnist": "jaxtrain.data.readers.idx:fashion_mnist",
            "hub": "jaxtrain.data.readers.hub:hub",
            "idx": "jaxtrain.data.readers.idx:idx",
            "arrays": "jaxtrain.data.readers.arrays:arrays",
            "csv": "jaxtrain.data.readers.csv_files:csv",
            "jsonl": "jaxtrain.data.readers.json_lines:jsonl",
            "parquet": "jaxtrain.data.readers.parquet_files:parquet",
            "image_boxes": "jaxtrain.data.readers.image_boxes:image_boxes",
            "image_folder": "jaxtrain.data.readers.image_folders:image_folder",
            "image_masks": "jaxtrain.data.readers.image_masks:image_masks",
            "image_table": "jaxtrain.data.readers.image_tables:image_table",
            "text": "jaxtrain.data.readers.text_files:text",
            "text_folder": "jaxtrain.data.readers.text_folders:text_folder",
            "memory": "jaxtrain.data.readers.memory:memory",
        }
    ),
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
    try:
        with reported_as(DataError):
            return SOURCES.bind(section)(_by_key(section), data_folder(settings.path))
    except OSError as error:  # of a user's own source: our readers raise StorageError
        got = Words(f"{section['name']}, which failed ({type(error).__name__}: {printable(str(error))})")
        explained = DataError("data.name", got, "a source whose files can be read", "Check its paths")
        raise add_frames(explained, error) from error


def _by_key(section: Mapping[str, Any]) -> dict[str, Any]:
    return {f"data.{knob}": value for knob, value in section.items()}


def with_given(config: Mapping[str, Any], given: object | None) -> dict[str, Any]:
    """Returns a resolved config whose data are given in Python: its source is `memory`, and its settings stay."""
    if given is None or config["data"]["name"] == MEMORY:
        return dict(config)
    settings = {knob: config["data"][knob] for knob in knobs_of(Settings)}
    return {**config, "data": {"name": MEMORY, **settings}}
