"""Reads a table with one row for each box: the file of its picture, its class and its sides."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxtrain.data.readers import csv_files
from jaxtrain.data.readers.box_lists import MOST_PIXELS, ListedPictures
from jaxtrain.data.readers.columns import MISSING, ColumnTypes, clean, parse_numbers
from jaxtrain.data.readers.records import Records, Roles, rows_of_splits
from jaxtrain.data.tables import names_of, shown
from jaxtrain.errors import ConfigError, DataError, Words

CORNERS = ("xmin", "ymin", "xmax", "ymax")
SIDES = ("x", "y", "width", "height")


@dataclass(frozen=True)
class BoxColumns:
    """The names of the columns: of pictures, classes (None: one class without a name), corners or sides, and splits."""

    image: str
    label: str | None
    corners: tuple[str, ...] = CORNERS
    sides: tuple[str, ...] = SIDES
    split: str | None = None
    drop: tuple[str, ...] = ()
    missing: tuple[str, ...] = MISSING

    def __post_init__(self) -> None:
        """Raises ConfigError unless four columns are named for a box."""
        for knob, names, usual in (("corners", self.corners, CORNERS), ("sides", self.sides, SIDES)):
            if len(set(names)) != 4:
                raise ConfigError(f"data.{knob}", names, f"the names of four columns, such as {usual}")

    @property
    def roles(self) -> Roles:
        """The roles of the columns, for the readers of tables."""
        return Roles(self.label or self.image, self.drop, self.split, ColumnTypes(self.missing))


def read_box_table(file: Path, form: csv_files.CsvForm, columns: BoxColumns) -> ListedPictures:
    """Reads the pictures of a table in the order in which it first names them, and their boxes.

    A row whose four numbers are missing is a picture without that box; its class is not read. Raises DataError naming
    file and line.
    """
    records = csv_files.read_records(file, form, columns.roles)
    names = clean(records.column(columns.image, "image"), ()).tolist()
    first: dict[str, int] = {}
    pictures = np.array([first.setdefault(name, row) for row, name in enumerate(names)])  # the first row of each
    rows = np.array(list(first.values()))
    numbers = _numbers(records, columns)
    boxes = np.flatnonzero(~np.isnan(numbers[:, 0]))
    labels = _labels(records, columns, boxes)
    places = records.places.take(boxes)
    owners = np.searchsorted(rows, pictures[boxes])
    sizes = np.zeros((len(rows), 2), np.int64)
    known = () if columns.label is None else None
    splits = None if columns.split is None else _splits(records, columns, rows, pictures)
    kept = records.take(rows)
    return ListedPictures(kept, columns.image, owners, labels, numbers[boxes], places, sizes, known, splits)


def _splits(records: Records, columns: BoxColumns, rows: np.ndarray, first: np.ndarray) -> dict[str, np.ndarray]:
    """Returns {split: its pictures}, of which `rows` are the first rows, and `first` (n,) those of each row.

    Raises DataError for a picture in two splits, and as `rows_of_splits`.
    """
    records.column(str(columns.split), "split_column")
    found = rows_of_splits(records, columns.roles)
    named = np.empty(len(records), object)
    for split, own in found.items():
        named[own] = split
    torn = np.flatnonzero(named != named[first])
    if len(torn):
        row = int(torn[0])
        got = Words(f"a box in {named[row]} of a picture in {named[first[row]]}")
        raise DataError(records.places(row), got, f"one split for all boxes of a picture, in {columns.split!r}")
    return {split: np.flatnonzero(named[rows] == split) for split in found}


def _numbers(records: Records, columns: BoxColumns) -> np.ndarray:
    """Returns (y, x, height, width) of each row (n, 4), nan where it has no box."""
    names = next((own for own in (columns.corners, columns.sides) if set(own) <= set(records.columns)), None)
    if names is None:
        got = Words(f"the columns {names_of(records.columns)}")
        expected = f"{', '.join(columns.corners)}, or {', '.join(columns.sides)}, among them"
        hint = "Name those of the boxes by data.corners (first two, then their opposites) or data.sides"
        raise DataError(records.file, got, expected, hint)
    parsed = [_column(records, name, columns) for name in names]
    values = np.stack(parsed, axis=1)
    absent = np.isnan(values)
    broken = np.flatnonzero(absent.any(axis=1) & ~absent.all(axis=1))
    if len(broken):
        row = int(broken[0])
        lacking = names[int(np.flatnonzero(absent[row])[0])]
        got = Words(f"no value in the column {lacking!r}")
        raise DataError(records.places(row), got, "four numbers, or none for a picture without a box")
    x, y, third, fourth = values.T
    return np.stack([y, x, fourth - y, third - x] if names is columns.corners else [y, x, fourth, third], axis=1)


def _column(records: Records, name: str, columns: BoxColumns) -> np.ndarray:
    texts = clean(records.columns[name], columns.missing)
    numbers, strays = parse_numbers(texts)
    strays |= np.abs(numbers) >= MOST_PIXELS
    if strays.any():
        row = int(np.flatnonzero(strays)[0])
        got = Words(f"{shown(texts[row])} in the column {name!r}")
        raise DataError(records.places(row), got, "a finite number of pixels")
    return numbers


def _labels(records: Records, columns: BoxColumns, boxes: np.ndarray) -> list[str]:
    """Returns the class of each box; raises DataError for one that is missing."""
    if columns.label is None:
        return [""] * len(boxes)
    texts = clean(records.column(columns.label, "label"), columns.missing)[boxes].tolist()
    for box, text in zip(boxes.tolist(), texts, strict=True):
        if not text:
            got = Words(f"no class in the column {columns.label!r}")
            raise DataError(records.places(box), got, "a class for each box")
    return texts
