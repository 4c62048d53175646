"""Fields of masks: files that are decoded to a label for each pixel when their rows are read."""

from collections.abc import Sequence

import numpy as np

from jaxtrain.data.checksums import Checksums
from jaxtrain.data.file_list import FileList
from jaxtrain.data.image_fields import ImageField, header_of, read_headers
from jaxtrain.data.images import decode_labels, resize
from jaxtrain.errors import DataError, Words


class MaskField:
    """Mask files as a `Field` (n, height, width) of labels, uint8; several threads may read at once."""

    def __init__(
        self, files: FileList, counts: Sequence[int], images: ImageField, classes: int, void: int | None = None
    ) -> None:
        """Takes the files, how many of them belong to each image, in order, the images, classes and the void label.

        With two classes, 0 is the background, and 1 or 255 the foreground. Several files of one image are its
        instances, which are merged: a pixel is 1 where it is in any of them; without files, all are 0.
        """
        self.files = files
        self.classes = classes
        self.void = void
        self._images = images
        self._ends = np.cumsum(counts)
        self._counts = counts

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole field."""
        return (len(self), *self._images.form.shape[:2])

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the labels: uint8."""
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        """Returns the number of masks."""
        return len(self._counts)

    @property
    def checksums(self) -> Checksums:
        """The checksums of the files that were read."""
        return self.files.checksums

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Reads the masks of these rows; raises DataError naming file and row."""
        labels = np.zeros((len(rows), *self.shape[1:]), np.uint8)
        for place, row in enumerate(rows.tolist()):
            for mask in self.read_each(row):
                np.maximum(labels[place], mask, out=labels[place])
        return labels

    def read_each(self, row: int) -> list[np.ndarray]:
        """Reads the masks of one row apart, as many as it has files; raises DataError naming file and row."""
        return [self._read_file(row, file) for file in range(self._ends[row] - self._counts[row], self._ends[row])]

    def where(self, row: int) -> str:
        """Returns the first mask file of a row, for an error."""
        return self.files.where(self._ends[row] - self._counts[row])

    def check_sizes(self, most: int) -> list[DataError]:
        """Returns the errors of masks of another size than their image, by the headers of at most `most` files."""
        headers, errors = read_headers(self.files, most)
        for file, header in headers.items():
            try:
                self._check_size(int(np.searchsorted(self._ends, file, "right")), file, header[:2])
            except DataError as error:
                errors.append(error)
        return errors

    def fingerprint(self) -> bytes:
        """Returns a hash over the names and sizes of the files, and what their labels depend on."""
        return self.files.fingerprint() + self._form()

    def version(self) -> bytes:
        """Returns the fingerprint with the places and times of the files."""
        return self.files.version() + self._form()

    def _form(self) -> bytes:
        void = "" if self.void is None else f" {self.void}"
        return f"{self.shape} {self.classes}{void}".encode()

    def _read_file(self, row: int, file: int) -> np.ndarray:
        values = decode_labels(self.files.read(file), self.files.where(file))
        self._check_size(row, file, values.shape)
        labels = as_labels(values, self.classes, self.files.where(file), self.void)
        return resize(labels, self._images.form.shape[:2], "nearest")

    def _check_size(self, row: int, file: int, size: tuple[int, ...]) -> None:
        form = self._images.form
        expected = header_of(self._images.files, row)[:2] if form.resampling else form.shape[:2]
        if size != expected:
            image = self._images.files.path(row)
            hint = "Make the mask again from the image as it is: masks are not stretched to fit"
            raise DataError(self.files.where(file), Words(f"the size {size}"), f"{expected}, as of {image}", hint)


def as_labels(values: np.ndarray, classes: int, where: str, void: int | None = None) -> np.ndarray:
    """Converts the values of a mask to labels 0 to classes - 1, uint8; raises DataError on `where` for other values.

    `void` stays as it is.
    """
    if void is not None:
        labels = as_labels(np.where(values == void, values.dtype.type(0), values), classes, where)
        return np.where(values == void, np.uint8(void), labels)
    if values.max() < classes:
        return values.astype(np.uint8)
    if classes == 2 and np.isin(values, (0, 255)).all():
        return (values == 255).astype(np.uint8)
    distinct = np.unique(values)
    shown = ", ".join(map(str, distinct[:10]))
    more = f" and {len(distinct) - 10} more" if len(distinct) > 10 else ""
    expected = "0 and 1, or 0 and 255" if classes == 2 else f"0 to {classes - 1}"
    hint = (
        "Set data.classes to the number of classes, and data.void to a value of pixels that do not count; a JPEG"
        " changes values, so save masks as PNG"
    )
    raise DataError(where, Words(f"the values {shown}{more}"), expected, hint)
