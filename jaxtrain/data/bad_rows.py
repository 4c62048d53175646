"""Examples that cannot be decoded: up to a number of them are passed over, and remembered."""

import threading
from collections.abc import Mapping

import numpy as np

from jaxtrain.data.checksums import ChangedRecordError
from jaxtrain.data.fields import Field, FieldAround
from jaxtrain.data.source import Split
from jaxtrain.errors import DataError, Words


class BadRows:
    """The rows of each split of a source that could not be read, with the errors; at most `most` of them."""

    def __init__(self, most: int) -> None:
        """Takes the most rows that may be passed over, `data.skip_bad`."""
        self._most = most
        self._errors: dict[tuple[str, int], DataError] = {}
        self._lock = threading.Lock()

    @property
    def messages(self) -> list[str]:
        """The error of each row, sorted by split and row."""
        with self._lock:
            return [str(self._errors[key]) for key in sorted(self._errors)]

    def note(self, split: str, row: int, error: DataError) -> None:
        """Remembers a row; raises DataError once there are too many."""
        with self._lock:
            self._errors.setdefault((split, row), error)
            if len(self._errors) <= self._most:
                return
        raise used_up(error, self._most) from error

    def among(self, split: str, rows: np.ndarray) -> np.ndarray:
        """Returns which of these rows are known to be bad, bool (n,)."""
        with self._lock:
            bad = [row for name, row in self._errors if name == split]
        return np.isin(rows, bad) if bad else np.zeros(len(rows), bool)


def used_up(error: DataError, most: int) -> DataError:
    """Returns the error of an example that is one too many; of the first one as it is."""
    if not most:
        return error
    got = Words(f"{error.got if isinstance(error.got, Words) else repr(error.got)}, after {most:,} others")
    return DataError(error.key, got, error.expected, f"Mend the data, or raise data.skip_bad, which is {most}")


def none_left(where: str) -> DataError:
    """Returns the error of a split whose examples are all bad."""
    return DataError(where, Words("no example that can be read"), "at least one", "Lower data.skip_bad to see why")


def tolerate(splits: Mapping[str, Split], bad: BadRows) -> dict[str, Split]:
    """Returns the splits with fields that pass over rows which cannot be read."""
    return {
        name: split.change_fields(lambda field, name=name: TolerantField(field, name, bad))
        for name, split in splits.items()
    }


class TolerantField(FieldAround):
    """A field that gives the next readable row for one that cannot be read, and notes that."""

    def __init__(self, field: Field, split: str, bad: BadRows) -> None:
        """Takes the field, the name of its split, and where bad rows are noted."""
        super().__init__(field)
        self._split = split
        self._bad = bad

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the values of these rows; raises DataError once too many are bad."""
        if not self._bad.among(self._split, rows).any():
            try:
                return self._field.read(rows)
            except ChangedRecordError:
                raise
            except DataError:
                pass  # read one by one, which tells the bad ones
        return np.concatenate([self._read_from(int(row)) for row in rows])

    def _read_from(self, row: int) -> np.ndarray:
        """Reads the first readable row from this one on, around the end."""
        for _ in range(len(self)):
            place = np.array([row])
            if not self._bad.among(self._split, place)[0]:
                try:
                    return self._field.read(place)
                except ChangedRecordError:
                    raise
                except DataError as error:
                    self._bad.note(self._split, row, error)
            row = (row + 1) % len(self)
        raise none_left(f"the {self._split} split")
