"""The checksums of the records that a run has read, in a file of the run, to compare them in its next session."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.data.checksums import Checksums
from jaxtrain.errors import StorageError, Words
from jaxtrain.files import exists, guarded, open_file, write_bytes


class ChecksumFile:
    """A file of 4 bytes for each record, which is written where records were read since the last time."""

    def __init__(self, path: Path, checksums: Mapping[str, Checksums]) -> None:
        """Takes the checksums of the session."""
        self._path = path
        self._checksums = checksums
        self._written = 0

    def compare(self) -> None:
        """Takes the checksums of earlier sessions; raises ChangedRecordError for a record that has changed since."""
        if not self._checksums or not exists(self._path):
            return
        with open_file(self._path) as file, guarded(self._path, "read"):
            try:
                saved = dict(np.load(file, allow_pickle=False))
            except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
                hint = "Restore it from a copy, or remove it to do without the comparison"
                raise StorageError(str(self._path), Words("a damaged file"), "checksums", hint) from error
        for name, own in self._checksums.items():
            if name in saved and saved[name].shape == own.values.shape:
                own.compare(saved[name])

    def write(self) -> None:
        """Writes the checksums, if records were read since the last time."""
        read = sum(int(np.count_nonzero(own.values)) for own in self._checksums.values())
        if read > self._written:
            content = io.BytesIO()
            arrays: dict[str, Any] = {name: own.values for name, own in self._checksums.items()}
            np.savez(content, **arrays)
            write_bytes(self._path, content.getvalue())
            self._written = read
