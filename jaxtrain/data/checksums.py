"""Checksums of compressed records, such as image files, taken when they are first read.

A flipped bit decodes without an error in most JPEGs, so a record is compared before it is decoded again, also in a
later session of the same run.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from jaxtrain.errors import DataError, Words


class ChangedRecordError(DataError):
    """A record that is another than when it was first read; it is never passed over."""


class Checksums:
    """The CRC-32 of each record of a field, which finds every flipped bit; several threads may check at once.

    `values` are uint32 (records,), 0 for a record that was not read yet.
    """

    def __init__(self, records: int, where: Callable[[int], str]) -> None:
        """Takes the number of records, and what errors name, by the number of a record."""
        self.values = np.zeros(records, np.uint32)
        self._where = where

    def check(self, record: int, pieces: Iterable[Any]) -> None:
        """Notes the content of a record, in pieces of bytes; raises ChangedRecordError if it was another before."""
        checksum = 0
        for piece in pieces:
            checksum = zlib.crc32(piece, checksum)
        checksum = checksum or 1
        if self.values[record] not in (0, checksum):
            raise self.changed(record)
        self.values[record] = checksum

    def compare(self, saved: np.ndarray) -> None:
        """Takes those that an earlier session noted; raises ChangedRecordError if a record has changed since."""
        both = (self.values != 0) & (saved != 0)
        changed = np.flatnonzero(both & (self.values != saved))
        if len(changed):
            raise self.changed(int(changed[0]))
        self.values[~both] |= saved[~both]

    def changed(self, record: int) -> ChangedRecordError:
        """Returns the error of a record that is another than at its first reading."""
        hint = "Restore it, and keep the files as they are until the run is done; then start it again"
        got = Words("another content than at its first reading")
        return ChangedRecordError(self._where(record), got, "the same", hint)


def checksums_of(splits: Mapping[str, Any]) -> dict[str, Checksums]:
    """Returns the checksums of the fields of splits that have them, by names such as "train_inputs"."""
    found = {}
    for name, split in splits.items():
        for kind, field in (("inputs", split.inputs), ("targets", split.targets)):
            if isinstance(own := getattr(field, "checksums", None), Checksums):
                found[f"{name}_{kind}"] = own
    return found
