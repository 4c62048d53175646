"""Lists of numbers in the rows of a file, each list a sequence."""

from itertools import chain
from typing import Any

import numpy as np

from jaxtrain.data.tables import shown
from jaxtrain.errors import DataError, Words

NO_NUMBERS = (str, bool, type(None), list, dict)
"""Types of values in a list that are no numbers; a number that is kept as it is written is a subclass of str."""


def as_sequence(value: Any, name: str, where: str) -> np.ndarray | None:
    """Returns a list of numbers, or of rows of numbers, as float64 (length, features); None for None.

    Raises DataError, naming the place in the file, for anything else.
    """
    if value is None:
        return None
    expected = "a list of numbers, or of rows of numbers"
    hint = "Leave the row out"
    if not isinstance(value, list):
        raise DataError(where, Words(f"{shown(value)} in the column {name!r}"), expected, hint)
    rows = [row if isinstance(row, list) else [row] for row in value]
    for cell in chain.from_iterable(rows):
        if type(cell) in NO_NUMBERS:
            raise DataError(where, Words(f"{shown(cell)} in a list of the column {name!r}"), expected, hint)
    if len({len(row) for row in rows}) > 1:
        raise DataError(where, Words(f"rows of unlike length in the column {name!r}"), expected, hint)
    return np.array(rows, np.float64)
