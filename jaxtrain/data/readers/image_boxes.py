"""A source of images with boxes around objects, which a file lists."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxtrain.config.schema import Count, Name
from jaxtrain.data.file_list import FileList
from jaxtrain.data.image_fields import MOST_HEADERS, ImageField, Size, image_form
from jaxtrain.data.images import Resampling
from jaxtrain.data.listed_boxes import BoxList
from jaxtrain.data.readers.box_lists import ListedPictures, list_files, make_field
from jaxtrain.data.readers.box_tables import CORNERS, SIDES, BoxColumns, read_box_table
from jaxtrain.data.readers.coco_files import read_coco
from jaxtrain.data.readers.columns import MISSING
from jaxtrain.data.readers.csv_files import CsvForm, Delimiter
from jaxtrain.data.readers.folders import folder_of
from jaxtrain.data.readers.image_tables import columns_of
from jaxtrain.data.readers.records import find_files
from jaxtrain.data.source import Source, Split
from jaxtrain.errors import ConfigError

COCO = ".json"
"""The ending of files in the form of COCO; others are comma-separated values with a row for each box."""


def image_boxes(
    path: Path,
    file: Name,
    folder: Name | None = None,
    validation_file: Name | None = None,
    test_file: Name | None = None,
    validation_folder: Name | None = None,
    test_folder: Name | None = None,
    image: Name = "filename",
    label: Name | None = "class",
    corners: tuple[str, ...] = CORNERS,
    sides: tuple[str, ...] = SIDES,
    split_column: Name | None = None,
    drop: tuple[str, ...] = (),
    missing: tuple[str, ...] = MISSING,
    header: bool | None = None,
    names: tuple[str, ...] = (),
    delimiter: Delimiter | None = None,
    encoding: Name = "utf-8",
    size: Size | None = None,
    channels: Literal[1, 3, 4] | None = None,
    resampling: Resampling = "bilinear",
    most_boxes: Count | None = None,
) -> Source:
    """Images, and boxes of classes that a COCO file (.json) or a CSV with a row for each box lists, for a detection.

    Names of images are relative to `folder`, else to the folder of their file; `validation_file` and `test_file` may
    have folders of their own. In a CSV, `image` and `label` are the columns of images and classes (None: one class),
    and those of `corners`, else of `sides`, the box in pixels; a row without these numbers is an image without that
    box. `split_column` says train, validation or test, alike in all rows of an image. Classes are the categories of
    COCO in their order, or the sorted names in the training split. Crowds of COCO are left out; what lies outside of
    an image is cut off. Inputs, `size`, `channels` and `resampling` are as of `image_folder`, and boxes are moved with
    their images; the other knobs of tables are those of `csv`. Targets (n, most_boxes, 5) float32; `most_boxes` None:
    as many as the image with most boxes has. Raises DataError naming file and line, or the id in a COCO file.
    """
    columns = BoxColumns(image, label, corners, sides, split_column, drop, missing)
    form = CsvForm(header, names, delimiter, encoding)
    files = find_files("image_boxes", path, {"train": file, "validation": validation_file, "test": test_file})
    if split_column is not None and (len(files) > 1 or files["train"].suffix.lower() == COCO):
        raise ConfigError("data.split_column", split_column, "None, or one CSV for all splits")
    listed = {split: read_listed(place, form, columns) for split, place in files.items()}
    folders = {"train": folder, "validation": validation_folder or folder, "test": test_folder or folder}
    roots = {
        split: place.parent if (own := folders[split]) is None else folder_of("image_boxes", path, own)
        for split, place in files.items()
    }
    return _make_source(listed, roots, most_boxes, size=size, channels=channels, resampling=resampling)


def read_listed(file: Path, form: CsvForm, columns: BoxColumns) -> ListedPictures:
    """Reads the pictures and boxes of a file by its ending; raises DataError as `read_coco` and `read_box_table`."""
    return read_coco(file) if file.suffix.lower() == COCO else read_box_table(file, form, columns)


def columns_of_knobs(knobs: Mapping[str, Any]) -> BoxColumns:
    """Returns the columns by which a run was trained, for new files; they need not name splits."""
    names = ("image", "label", "corners", "sides")
    return BoxColumns(*(knobs[name] for name in names), drop=knobs["drop"], missing=knobs["missing"])


def _make_source(
    listed: Mapping[str, ListedPictures], roots: Mapping[str, Path], most_boxes: int | None, **of_images: Any
) -> Source:
    """Returns the source of files of splits, or of one file that names them; `of_images` are knobs of images."""
    train = listed["train"]
    named = train.splits or {split: np.arange(len(own.pictures)) for split, own in listed.items()}
    classes = train.name_classes(named["train"])
    names = {split: own.find_files(roots[split]) for split, own in listed.items()}
    lists: dict[str, BoxList] = {}
    files: dict[str, FileList] = {}
    for split, rows in named.items():
        source = split if split in listed else "train"
        lists[split] = listed[source].take_boxes(rows, classes)
        files[split] = list_files(listed[source], names[source], rows, roots[source])
    form, damaged = image_form(list(files.values()), roots["train"], **of_images)
    most = most_boxes or max(boxes.most for boxes in lists.values())
    splits = {}
    for split, boxes in lists.items():
        file = listed.get(split, train).file
        inputs = ImageField(files[split], form)
        targets, errors = make_field(file, boxes, inputs, most, MOST_HEADERS // len(lists))
        damaged += errors
        splits[split] = Split(inputs, targets, file)
    columns = columns_of(train.pictures, named["train"])
    return Source(splits, columns=columns, damaged=tuple(damaged), box_classes=len(classes) or 1, class_names=classes)
