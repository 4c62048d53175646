"""Fields of boxes: those around the parts of masks, which are decoded when their rows are read."""

import numpy as np

from jaxtrain.data.mask_fields import MaskField
from jaxtrain.errors import DataError, Words


class BoxRows:
    """Boxes of n images as (n, most, 5) of (class, y, x, height, width) in pixels, float32, with -1 for absent ones.

    y and x are those of the top left corner. A field of boxes inherits this form and says how its rows are read.
    """

    def __init__(self, images: int, most: int) -> None:
        """Takes the number of images, and that of rows for the boxes of one."""
        self._count = images
        self._most = most

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole field."""
        return (self._count, self._most, 5)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the boxes: float32."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        """Returns the number of images."""
        return self._count

    def _absent(self, images: int) -> np.ndarray:
        """Returns the rows of images without a box, to write boxes to."""
        return np.full((images, self._most, 5), -1.0, np.float32)

    def _too_many(self, where: str, boxes: int) -> DataError | None:
        """Returns the error for an image with so many boxes, None if it has rows for them."""
        if boxes <= self._most:
            return None
        return DataError(where, Words(f"{boxes} boxes"), f"at most {self._most} in an image", "Raise data.most_boxes")


class BoxField(BoxRows):
    """Boxes around the parts of masks, as a `Field`.

    Where an image has one mask, each connected part of a label is a box, of
    the class before that label, since 0 is the background; pixels are connected along diagonals, too. Where an image
    has a file for each instance, each file is a box.
    """

    def __init__(self, masks: MaskField, most: int) -> None:
        """Takes the masks, and the number of rows for the boxes of an image."""
        super().__init__(len(masks), most)
        self._masks = masks

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Reads the boxes of these rows; raises DataError naming the mask of an image that has too many."""
        found = self._absent(len(rows))
        for place, row in enumerate(rows.tolist()):
            masks = self._masks.read_each(row)
            boxes = (
                part_boxes(masks[0], self._masks.classes)
                if len(masks) == 1
                else [box_around(mask == 1) for mask in masks if (mask == 1).any()]
            )
            if error := self._too_many(self._masks.where(row), len(boxes)):
                raise error
            found[place, : len(boxes)] = np.reshape(boxes, (-1, 5))
        return found

    def fingerprint(self) -> bytes:
        """Returns that of the masks with the number of rows."""
        return self._masks.fingerprint() + f" boxes {self._most}".encode()

    def version(self) -> bytes:
        """Returns the fingerprint with the places and times of the files."""
        return self._masks.version() + f" boxes {self._most}".encode()


def part_boxes(mask: np.ndarray, classes: int) -> list[tuple[int, ...]]:
    """Returns (class, y, x, height, width) around each connected part of the labels 1 to classes - 1."""
    from scipy import ndimage  # its import takes a tenth of a second

    boxes = []
    for label in range(1, classes):
        parts = np.zeros(mask.shape, np.int32)
        ndimage.label(mask == label, np.ones((3, 3)), output=parts)
        boxes += [_box(label, rows, columns) for rows, columns in ndimage.find_objects(parts)]
    return boxes


def box_around(mask: np.ndarray) -> tuple[int, ...]:
    """Returns (0, y, x, height, width) around a mask (height, width) of bools that holds some pixel."""
    rows, columns = np.nonzero(mask)
    spans = (slice(int(places.min()), int(places.max()) + 1) for places in (rows, columns))
    return _box(1, *spans)


def _box(label: int, rows: slice, columns: slice) -> tuple[int, ...]:
    return (label - 1, rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
