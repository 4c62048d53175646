"""A source of images that a table names, each with its target."""

from pathlib import Path, PurePath
from typing import Literal

import numpy as np

from jaxtrain.config.schema import Name
from jaxtrain.data.file_list import FileList
from jaxtrain.data.image_fields import ImageField, Size, image_form
from jaxtrain.data.images import Resampling
from jaxtrain.data.readers import csv_files, json_lines
from jaxtrain.data.readers.columns import MISSING, ColumnTypes, clean, parse_numbers
from jaxtrain.data.readers.folders import demand_inside, folder_of
from jaxtrain.data.readers.records import Records, Roles, make_targets, rows_of_splits
from jaxtrain.data.source import Source, Split
from jaxtrain.data.source import missing as no_such
from jaxtrain.errors import DataError, Words
from jaxtrain.files import exists, is_file, is_plain_file

JSON_LINES = (".jsonl", ".ndjson")
"""The endings of files with one JSON object a line; others are comma-separated values with a header."""


def image_table(
    path: Path,
    file: Name,
    image: Name,
    target: Name | tuple[str, ...],
    folder: Name | None = None,
    split_column: Name | None = None,
    target_separator: str = "",
    drop: tuple[str, ...] = (),
    numbers: tuple[str, ...] = (),
    categories: tuple[str, ...] = (),
    missing: tuple[str, ...] = MISSING,
    header: bool | None = None,
    names: tuple[str, ...] = (),
    delimiter: csv_files.Delimiter | None = None,
    encoding: Name = "utf-8",
    size: Size | None = None,
    channels: Literal[1, 3, 4] | None = None,
    resampling: Resampling = "bilinear",
) -> Source:
    """Images that a CSV or JSONL file names in the column `image`, with their targets in others.

    Names are relative to `folder`, else to the folder of `file`. One target is a class by its name, an integer or a
    float, as `categories` or `numbers` sets it, or labels by name: a list, or with a `target_separator` between them;
    several columns are a row of numbers. The other knobs of tables are those of `csv` and `jsonl`, and `size`,
    `channels` and `resampling` those of `image_folder`. Any column may group, order or weigh the rows. Inputs (n,
    height, width, channels); targets (n,) or (n, columns): texts, int64 or float64. Raises DataError naming file and
    line.
    """
    table = path / file
    if not exists(table):
        raise no_such("image_table", f"file {file}", path)
    root = table.parent if folder is None else folder_of("image_table", path, folder)
    types = ColumnTypes(missing, numbers, categories)
    roles = Roles(target, drop, split_column, types, target_separator=target_separator)
    if table.suffix in JSON_LINES:
        records = json_lines.read_records(table, roles)
    else:
        records = csv_files.read_records(table, csv_files.CsvForm(header, names, delimiter, encoding), roles)
    roles = roles.name_target(records)
    images = file_names(records, image, root)
    values = make_targets(records, roles, None)
    chosen = {"train": np.arange(len(images))} if split_column is None else rows_of_splits(records, roles)
    files = {
        split: FileList(root, [images[row] for row in rows], records.places.take(rows))
        for split, rows in chosen.items()
    }
    form, damaged = image_form(list(files.values()), root, size, channels, resampling)
    splits = {split: Split(ImageField(files[split], form), values[rows], str(table)) for split, rows in chosen.items()}
    names = roles.target_names if isinstance(target, tuple) else ()
    columns = columns_of(records, chosen["train"])
    return Source(splits, columns=columns, target_names=names, damaged=tuple(damaged))


def columns_of(records: Records, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns these rows of all columns, by which examples may be grouped: numbers, nan where missing, or texts."""
    columns = {}
    for name, values in records.columns.items():
        texts = clean(values[rows], ())
        numbers, strays = parse_numbers(texts)
        columns[name] = np.array(texts.tolist(), str) if strays.any() else numbers
    return columns


def file_names(records: Records, image: str, root: Path) -> list[str]:
    """Returns the image of each row relative to the root; raises DataError if it is missing or leads out of it."""
    inside: set[str] = set()  # folders whose links were followed
    names = []
    for row, given in enumerate(clean(records.column(image, "image"), ()).tolist()):
        name = _relative(given, root, records, row)
        parent = name.rpartition("/")[0]
        if not is_plain_file(f"{root}/{name}"):
            _demand_linked(root, name, records.places(row))
        elif parent not in inside:
            demand_inside(root / name, root, records.places(row))
            inside.add(parent)
        names.append(name)
    return names


def _relative(given: str, root: Path, records: Records, row: int) -> str:
    """Returns a path relative to the root; raises DataError naming the line if its steps lead out of it."""
    if not given:
        raise DataError(records.places(row), Words("no name"), "the name of an image file")
    path = PurePath(given)
    if path.is_absolute() and path.is_relative_to(root):
        path = path.relative_to(root)
    if path.is_absolute() or ".." in path.parts:
        hint = "Set data.folder to the folder of the images"
        got = Words(f"{given!r}, which leads out of {root}")
        raise DataError(records.places(row), got, "a path that stays in it", hint)
    return str(path)


def _demand_linked(root: Path, name: str, where: str) -> None:
    """Raises DataError on `where` unless a path is a link to a file in the root."""
    if not is_file(root / name):
        hint = "Write names with their endings, or set data.folder to the folder of the images"
        raise DataError(where, Words(f"{name!r}, which is no file"), f"an image file in {root}", hint)
    demand_inside(root / name, root, where)
