"""Reads the inputs of new files, to predict from, as those of training were read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.data.image_fields import read_images
from jaxtrain.data.images import SUFFIXES
from jaxtrain.data.info import DataInfo
from jaxtrain.data.new_inputs import check_numbers
from jaxtrain.data.readers.csv_files import read_csv_table
from jaxtrain.data.readers.json_lines import read_jsonl_table
from jaxtrain.data.readers.parquet_files import read_parquet_images, read_parquet_table
from jaxtrain.data.readers.text_files import read_windows
from jaxtrain.data.readers.text_folders import read_texts
from jaxtrain.errors import UsageError, one_of


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
        one_of([*dict.fromkeys([*TABLES, *IMAGES, "text", "text_folder"])]),
        "Read the arrays, and call predict with them",
    )


TABLES = {"csv": read_csv_table, "jsonl": read_jsonl_table, "parquet": read_parquet_table}
"""Readers of the inputs of a new table, by the source that a run was trained with."""

IMAGES = ("image_boxes", "image_folder", "image_masks", "image_table", "parquet", "hub")
"""Sources whose inputs may be pictures."""
