"""A list of files below a folder, each of which is read as a whole, and must not change while a run reads it."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxtrain.data.checksums import Checksums
from jaxtrain.errors import DataError, StorageError
from jaxtrain.files import file_size, file_time, full_path, read_quickly


class FileList:
    """Files by row; several threads may read at once."""

    def __init__(
        self, folder: Path | None, names: Sequence[str], place: Callable[[int], str] = "row {}".format
    ) -> None:
        """Takes the names of the files relative to `folder`; `place` gives what errors add to a name, by its row."""
        self._start = "" if folder is None else f"{folder}/"
        self._place = place
        self.names = list(names)
        self.checksums = Checksums(len(self.names), self.where)

    def __len__(self) -> int:
        """Returns the number of files."""
        return len(self.names)

    def path(self, row: int) -> str:
        """Returns the path of a file."""
        return self._start + self.names[row]

    def where(self, row: int) -> str:
        """Returns file and place for an error."""
        return f"{self.path(row)} ({self._place(row)})"

    def read(self, row: int) -> bytes:
        """Reads a file; raises DataError if that fails, or if its content is another than when it was first read."""
        content = self.start(row, -1)
        self.checksums.check(row, [content])
        return content

    def start(self, row: int, most: int) -> bytes:
        """Reads the first bytes of a file; raises DataError if that fails."""
        try:
            return read_quickly(self.path(row), most)
        except StorageError as error:
            raise DataError(self.where(row), error.got, error.expected, error.hint) from error

    def fingerprint(self) -> bytes:
        """Returns a hash over names and sizes in their order: the same for a copy of the folder, whatever its times.

        Raises DataError if a file is missing.
        """
        digest = hashlib.sha256()
        for row, name in enumerate(self.names):
            try:
                size = file_size(self.path(row))
            except StorageError as error:
                raise DataError(self.where(row), error.got, error.expected, error.hint) from error
            digest.update(b"%s\0%d\0" % (os.fsencode(name), size))
        return digest.digest()

    def version(self) -> bytes:
        """Returns a hash that also covers the folder and the times of the files; raises DataError as `fingerprint`."""
        digest = hashlib.sha256(self.fingerprint())
        for row in range(len(self)):
            digest.update(b"%s\0%d\0" % (os.fsencode(full_path(self.path(row))), file_time(self.path(row))))
        return digest.digest()
