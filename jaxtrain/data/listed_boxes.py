"""Fields of boxes that a file lists, moved with their pictures to the size that these are decoded to."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxtrain.data.box_fields import BoxRows
from jaxtrain.data.image_fields import ImageField, header_of, read_headers
from jaxtrain.errors import DataError, Words

CLOSE = 1e-3
"""Pixels by which a box may reach beyond its picture by the rounding of its numbers alone."""


@dataclass(frozen=True, eq=False)
class BoxList:
    """The boxes of n pictures, those of one picture after those of another, in the pixels of the stored pictures.

    `values` (boxes, 5) are (class, y, x, height, width), float64, and `counts` (n,) how many of them each picture has.
    `place` returns file and line of a box. `stated` (n, 2) are the height and width that the file says of each picture,
    0 where it says none.
    """

    values: np.ndarray
    counts: np.ndarray
    place: Callable[[int], str]
    stated: np.ndarray

    @property
    def most(self) -> int:
        """The largest number of boxes in a picture."""
        return int(self.counts.max(initial=0))


class ListedBoxes(BoxRows):
    """Boxes that a file lists, as a `Field`.

    They move with their pictures where these are resized. What of a box lies outside of its picture is cut off.
    """

    def __init__(self, boxes: BoxList, images: ImageField, most: int) -> None:
        """Takes the boxes, their pictures, and the number of rows for the boxes of a picture."""
        super().__init__(len(boxes.counts), most)
        self._boxes = boxes
        self._images = images
        self._starts = np.concatenate([[0], np.cumsum(boxes.counts)])
        known = (0, 0) if images.form.resampling else images.form.shape[:2]
        self._sizes = np.tile(np.array(known, np.int64), (len(boxes.counts), 1))  # 0: not read yet

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the boxes of these rows; raises DataError naming the line of a box that cannot be used."""
        found = self._absent(len(rows))
        for place, row in enumerate(rows.tolist()):
            size = self._size(row)
            if error := self._error(row, size):
                raise error
            boxes = clip(self._of(row), np.array([size]))
            scale = np.divide(self._images.form.shape[:2], size)
            found[place, : len(boxes), 0] = boxes[:, 0]
            found[place, : len(boxes), 1:] = boxes[:, 1:] * np.tile(scale, 2)
        return found

    def check(self, most_headers: int) -> tuple[list[DataError], list[str]]:
        """Returns the errors of pictures, one each, and the places of boxes that are cut off at the border.

        Of pictures that are resized, the sizes of at most `most_headers` are read for this, evenly spaced.
        """
        if self._images.form.resampling:
            headers, _ = read_headers(self._images.files, most_headers)
            for row, header in headers.items():
                self._sizes[row] = header[:2]
        values = self._boxes.values
        owners = np.repeat(np.arange(len(self)), self._boxes.counts)
        is_known = self._sizes[:, 0] > 0
        sizes = np.where(is_known[:, None], self._sizes, np.iinfo(np.int64).max // 2)[owners]
        wrong = (values[:, 3:] <= 0).any(axis=1) | (is_known[owners] & _is_outside(values, sizes))
        is_wrong = (self._boxes.counts > self._most) | (is_known & self._is_other_size(self._sizes))
        is_wrong[owners[wrong]] = True
        found = [self._error(row, self._known_size(row)) for row in np.flatnonzero(is_wrong).tolist()]
        beyond = is_known[owners] & _reaches_beyond(values, sizes) & ~is_wrong[owners]
        return [error for error in found if error], [self._boxes.place(box) for box in np.flatnonzero(beyond).tolist()]

    def fingerprint(self) -> bytes:
        """Returns a hash over the boxes, and what they are moved to."""
        digest = hashlib.sha256(f"{self.shape} {self._images.form.shape}".encode())
        for array in (self._boxes.values, self._boxes.counts, self._boxes.stated):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.digest()

    def version(self) -> bytes:
        """Returns the fingerprint with that of the pictures, by whose sizes boxes move."""
        return self.fingerprint() + self._images.version()

    def _of(self, row: int) -> np.ndarray:
        return self._boxes.values[self._starts[row] : self._starts[row + 1]]

    def _size(self, row: int) -> tuple[int, int]:
        """Returns height and width of a picture as it is stored; raises DataError for one that cannot be read."""
        if not self._sizes[row, 0]:
            self._sizes[row] = header_of(self._images.files, row)[:2]
        height, width = self._sizes[row].tolist()
        return height, width

    def _known_size(self, row: int) -> tuple[int, int] | None:
        return self._size(row) if self._sizes[row, 0] else None

    def _is_other_size(self, sizes: np.ndarray) -> np.ndarray:
        stated = self._boxes.stated
        return ((stated > 0) & (stated != sizes)).any(axis=1)

    def _error(self, row: int, size: tuple[int, int] | None) -> DataError | None:
        """Returns what is wrong with the boxes of a picture of a size, None for one that is not read."""
        where = self._images.files.where(row)
        stated = tuple(self._boxes.stated[row].tolist())
        if size and any(stated) and stated != size:
            turned = ": pictures are shown turned as their EXIF tag says" if stated == size[::-1] else ""
            hint = f"List the boxes in pixels of the picture as it is shown{turned}"
            return DataError(where, Words(f"the size {size}"), f"{stated}, as the file of boxes says", hint)
        if error := self._too_many(where, int(self._boxes.counts[row])):
            return error
        own = self._of(row)
        flat = np.flatnonzero((own[:, 3:] <= 0).any(axis=1))
        if len(flat):
            place = self._boxes.place(int(self._starts[row] + flat[0]))
            height, width = own[flat[0], 3:].tolist()
            hint = "Correct it, or leave it out; a box ends where its last pixel ends"
            return DataError(place, Words(f"a box of height {height:g} and width {width:g}"), "sides above 0", hint)
        if size is None:
            return None
        outside = np.flatnonzero(_is_outside(own, np.array([size])))
        if len(outside):
            place = self._boxes.place(int(self._starts[row] + outside[0]))
            y, x, height, width = own[outside[0], 1:].tolist()
            got = Words(f"a box with y {y:g} to {y + height:g} and x {x:g} to {x + width:g}, outside of its picture")
            path = self._images.files.path(row)
            return DataError(place, got, f"y up to {size[0]} and x up to {size[1]}, the size of {path}")
        return None


def clip(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Cuts (class, y, x, height, width), (n, 5), off at the borders of pictures of sizes (n or 1, 2); others stay."""
    begins = boxes[:, 1:3]
    ends = begins + boxes[:, 3:]
    is_beyond = (begins < 0) | (ends > sizes)
    inner = np.clip(begins, 0, sizes)
    clipped = boxes.copy()
    clipped[:, 1:3] = np.where(is_beyond, inner, begins)
    clipped[:, 3:] = np.where(is_beyond, np.clip(ends, 0, sizes) - inner, boxes[:, 3:])
    return clipped


def _is_outside(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Tells which boxes (n,) have nothing within their pictures."""
    return np.any(clip(boxes, sizes)[:, 3:] <= 0, axis=1)


def _reaches_beyond(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Tells which boxes (n,) are cut off by more than rounding."""
    ends = boxes[:, 1:3] + boxes[:, 3:]
    return np.any((boxes[:, 1:3] < -CLOSE) | (ends > sizes + CLOSE), axis=1)
