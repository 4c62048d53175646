"""Pictures and their boxes as a file lists them, in whatever form: their classes become numbers."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxtrain.data.file_list import FileList
from jaxtrain.data.image_fields import ImageField
from jaxtrain.data.listed_boxes import BoxList, ListedBoxes
from jaxtrain.data.readers.image_tables import file_names
from jaxtrain.data.readers.records import Records
from jaxtrain.data.tables import names_of, shown
from jaxtrain.errors import DataError, JaxtrainWarning, Words, nearest

MOST_PIXELS = 1e9
"""Pixels beyond which a number is no place in a picture."""


@dataclass(frozen=True, eq=False)
class ListedPictures:
    """Pictures, one a row of `pictures`, whose column `image` holds their files, and the boxes in them.

    `owners` (boxes,) are the rows of the pictures, `labels` (boxes,) names of classes, `sides` (boxes, 4) y, x, height
    and width in pixels, `place` file and line of a box, and `sizes` (n, 2) stated heights and widths, 0 for none.
    `classes` are the names that the file states, None where only its boxes name them, and () where boxes have no
    classes. `splits` are the rows of the splits that it names.
    """

    pictures: Records
    image: str
    owners: np.ndarray
    labels: list[str]
    sides: np.ndarray
    place: Callable[[int], str]
    sizes: np.ndarray
    classes: tuple[str, ...] | None
    splits: Mapping[str, np.ndarray] | None = None

    @property
    def file(self) -> str:
        """The file that lists them."""
        return self.pictures.file

    def find_files(self, root: Path) -> list[str]:
        """Returns the file of each picture below `root`; raises DataError for one that is missing or listed twice."""
        names = file_names(self.pictures, self.image, root)
        seen: set[str] = set()
        for row, name in enumerate(names):
            if name in seen:
                got = Words(f"the picture {name!r} a second time")
                raise DataError(self.pictures.places(row), got, "one name for each picture, with all its boxes")
            seen.add(name)
        return names

    def take_boxes(self, rows: np.ndarray, classes: Sequence[str]) -> BoxList:
        """Returns the boxes of these pictures, with their classes by number; raises DataError for another class."""
        new_rows = np.full(len(self.pictures), -1)
        new_rows[rows] = np.arange(len(rows))
        owners = new_rows[self.owners]
        chosen = np.argsort(owners, kind="stable")[int(np.sum(owners < 0)) :]
        of_names = {name: number for number, name in enumerate(classes)}
        numbers = [of_names.get(self.labels[box], 0 if not classes else -1) for box in chosen.tolist()]
        if -1 in numbers:
            raise self._unknown(int(chosen[numbers.index(-1)]), classes)
        values = np.concatenate([np.reshape(numbers, (-1, 1)), self.sides[chosen]], axis=1).astype(np.float64)
        counts = np.bincount(owners[chosen], minlength=len(rows))
        return BoxList(values, counts, lambda box: self.place(int(chosen[box])), self.sizes[rows])

    def _unknown(self, box: int, classes: Sequence[str]) -> DataError:
        name = self.labels[box]
        hint = nearest(name, classes) or "Leave that box out, or add one of its class to the training split"
        return DataError(
            self.place(box), Words(f"the class {shown(name)}"), f"a class of training: {names_of(classes)}", hint
        )

    def name_classes(self, rows: np.ndarray) -> tuple[str, ...]:
        """Returns the names of the classes for training on these pictures, () where boxes have none.

        Raises DataError without any box, and for boxes that all lie within one pixel.
        """
        own = np.isin(self.owners, rows)
        if not own.any():
            raise DataError(self.file, Words("no box in the training split"), "at least one")
        ends = self.sides[own, :2] + self.sides[own, 2:]
        if ends.max() <= 1:
            hint = "Multiply them by the height and width of their pictures"
            raise DataError(self.file, Words("boxes that all lie within the first pixel"), "numbers of pixels", hint)
        if self.classes is not None:
            return self.classes
        return tuple(sorted({self.labels[box] for box in np.flatnonzero(own).tolist()}, key=_in_order))


def _in_order(name: str) -> tuple[bool, int, str]:
    """Returns by what names are sorted: whole numbers by their value, before others."""
    is_number = name.isdecimal()
    return not is_number, int(name) if is_number else 0, name


def make_field(
    file: str, boxes: BoxList, images: ImageField, most: int, headers: int
) -> tuple[ListedBoxes, list[DataError]]:
    """Returns the field of boxes, and the errors of pictures; warns of boxes that are cut off at the border.

    `headers` limits the sizes of pictures that are read for this.
    """
    field = ListedBoxes(boxes, images, most)
    errors, beyond = field.check(headers)
    if beyond:
        got = Words(f"{len(beyond):,} boxes that reach beyond their pictures, the first in {beyond[0]}")
        warning = JaxtrainWarning(file, got, "boxes within them", "They are cut off at the border")
        warnings.warn(warning, stacklevel=3)
    return field, errors


def list_files(pictures: ListedPictures, names: list[str], rows: np.ndarray, root: Path) -> FileList:
    """Returns the files of these pictures, of whose `names` there is one for each picture."""
    return FileList(root, [names[row] for row in rows.tolist()], pictures.pictures.places.take(rows))
