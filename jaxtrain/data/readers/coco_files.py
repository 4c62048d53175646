"""Reads a file of boxes in the form of COCO: a JSON object of images, annotations and categories."""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.data.readers.box_lists import MOST_PIXELS, ListedPictures
from jaxtrain.data.readers.columns import as_texts
from jaxtrain.data.readers.records import Records
from jaxtrain.data.tables import Places, names_of, shown
from jaxtrain.errors import DataError, JaxtrainWarning, Words
from jaxtrain.files import read_bytes

PARTS = ("images", "annotations", "categories")
NAME = "file_name"
COCO = "a COCO file: an object with the lists images, annotations and categories"


def read_coco(file: Path) -> ListedPictures:
    """Reads the pictures and boxes of a file, whose classes are its categories, in the order in which it lists them.

    Crowds (`iscrowd`), which are drawn around many objects at once, are left out, and said. Raises DataError naming
    the entry that cannot be used: an id that is unknown or there twice, a missing class or box, numbers that are not
    finite.
    """
    images, annotations, categories = _read_parts(file)
    names = _categories(categories)
    rows = {key: row for row, key in enumerate(_unique_ids(images, "pictures"))}
    kept = [i for i, entry in enumerate(annotations.entries) if not entry.get("iscrowd")]
    if crowds := len(annotations) - len(kept):
        got = Words(f"{crowds:,} annotations of crowds (iscrowd=1)")
        warnings.warn(JaxtrainWarning(str(file), got, "boxes around single objects", "They are left out"), stacklevel=3)
    known_images = f"the id of one of the {len(rows):,} images"
    known_names = f"the id of a category: {names_of(f'{key} ({name})' for key, name in names.items())}"
    owners = np.array([annotations.look_up(i, "image_id", rows, known_images) for i in kept], np.int64)
    labels = [annotations.look_up(i, "category_id", names, known_names) for i in kept]
    boxes = np.reshape([_box(annotations, i) for i in kept], (-1, 4))
    places = annotations.places.take(np.array(kept, np.int64))
    pictures = Records(_columns(images), images.places)
    sizes = np.reshape([_size(images, i) for i in range(len(images))], (-1, 2))
    return ListedPictures(pictures, NAME, owners, labels, boxes, places, sizes, tuple(names.values()))


class _Entries:
    """One of the lists of a file; errors name its entries by their ids, by their numbers where they have none."""

    def __init__(self, file: Path, name: str, entries: Sequence[dict[str, Any]]) -> None:
        self.entries = entries
        ids = [entry.get("id") for entry in entries]
        by_id = all(type(key) is int and 0 <= key < 2**63 for key in ids) and len(set(ids)) == len(ids)
        numbers = ids if by_id else list(range(len(entries)))
        self.places = Places([str(file)], np.array(numbers, np.int64), f"{name} of id" if by_id else name)

    def __len__(self) -> int:
        return len(self.entries)

    def where(self, row: int) -> str:
        return self.places(row)

    def look_up(self, row: int, key: str, known: Mapping[Any, Any], expected: str) -> Any:
        """Returns what an id stands for; raises DataError if it is missing or unknown."""
        given = self.entries[row].get(key)
        if not isinstance(given, int | float | str) or given not in known:
            got = Words(f"no {key}" if given is None else f"{key} {shown(given) if isinstance(given, str) else given}")
            raise DataError(self.where(row), got, expected)
        return known[given]


def _read_parts(file: Path) -> tuple[_Entries, _Entries, _Entries]:
    """Returns images, annotations and categories; raises DataError for a file that is no COCO."""
    try:
        whole = json.loads(read_bytes(file))
    except (ValueError, RecursionError) as error:
        raise DataError(str(file), Words(f"a file that is no JSON ({error})"), COCO) from error
    if not isinstance(whole, dict):
        hint = "Set data.file to the annotations, not to detections" if isinstance(whole, list) else ""
        raise DataError(str(file), Words("a JSON that is no object"), COCO, hint)
    for part in PARTS:
        entries = whole.get(part)
        if not isinstance(entries, list):
            raise DataError(str(file), Words(f"no list {part!r}"), COCO)
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise DataError(f"{file}, {part}[{i}]", entry, "an object")
    if not whole["images"]:
        raise DataError(str(file), Words("no images"), "at least one")
    named = {"image": "images", "annotation": "annotations", "category": "categories"}
    images, annotations, categories = (_Entries(file, name, whole[part]) for name, part in named.items())
    return images, annotations, categories


def _categories(categories: _Entries) -> dict[Any, str]:
    """Returns {id: name}; raises DataError for a category that is there twice, or has no name."""
    ids = _unique_ids(categories, "categories")
    names: dict[Any, str] = {}
    for row, (key, entry) in enumerate(zip(ids, categories.entries, strict=True)):
        name = entry.get("name")
        if not isinstance(name, str) or not name.strip():
            raise DataError(categories.where(row), Words("no name"), "a name for each category")
        if name in names.values():
            got = Words(f"the name {shown(name)} a second time")
            raise DataError(categories.where(row), got, "a name of its own for each category", "Join the two")
        names[key] = name
    if not names:
        raise DataError(categories.places.files[0], Words("no categories"), "at least one")
    return names


def _unique_ids(entries: _Entries, what: str) -> list[Any]:
    ids: dict[Any, int] = {}
    for row, entry in enumerate(entries.entries):
        key = entry.get("id")
        if not isinstance(key, int | float | str):
            raise DataError(entries.where(row), Words("no id"), f"an id for each of the {what}")
        if key in ids:
            got = Words(f"the id {shown(key) if isinstance(key, str) else key} a second time")
            raise DataError(entries.where(row), got, f"an id of its own for each of the {what}")
        ids[key] = row
    return list(ids)


def _box(annotations: _Entries, row: int) -> tuple[float, ...]:
    """Returns (y, x, height, width) of an annotation."""
    given = annotations.entries[row].get("bbox")
    if not isinstance(given, list) or len(given) != 4 or not all(map(_is_pixels, given)):
        got = Words("no bbox" if given is None else f"the bbox {given}")
        raise DataError(annotations.where(row), got, "[x, y, width, height], finite numbers of pixels")
    x, y, width, height = map(float, given)
    return y, x, height, width


def _is_pixels(given: Any) -> bool:
    return type(given) in (int, float) and math.isfinite(given) and abs(given) < MOST_PIXELS


def _size(images: _Entries, row: int) -> tuple[int, int]:
    """Returns the height and width that the file states of a picture, 0 for those that it does not."""
    height, width = (images.entries[row].get(side) for side in ("height", "width"))
    return (height, width) if type(height) is int and type(width) is int else (0, 0)


def _columns(images: _Entries) -> dict[str, np.ndarray]:
    """Returns the fields that are texts or numbers of all images, as texts, by which pictures may be grouped."""
    for row, entry in enumerate(images.entries):
        if not isinstance(entry.get(NAME), str):
            raise DataError(images.where(row), Words(f"no {NAME}"), "the name of an image file")
    names = [name for name in images.entries[0] if all(_is_value(entry.get(name)) for entry in images.entries)]
    return {name: as_texts([str(entry[name]) for entry in images.entries], images.places) for name in names}


def _is_value(given: Any) -> bool:
    return isinstance(given, str | int | float) and not isinstance(given, bool)
