"""Lists of labels as targets: from cells with a separator between names, and from lists in JSON Lines."""

from collections.abc import Sequence

import numpy as np

from jaxtrain.data.readers.columns import Place
from jaxtrain.data.tables import shown
from jaxtrain.errors import DataError, Words

LIST = "\x02"
"""A control character that no text holds and that is no space: before each label of a list that was read as a text."""


def as_text(labels: Sequence[object], name: str, where: str) -> str:
    """Writes a list of names as one text; raises DataError for what is no name, such as a number as it is written."""
    for label in labels:
        if type(label) is not str or not label.strip() or LIST in label:
            got = Words(f"{shown(label) if type(label) is str else label} in the list {name!r}")
            raise DataError(where, got, "names of labels", "Leave it out: an empty list stands for no label")
    return LIST + LIST.join(map(str, labels))


def are_lists(values: np.ndarray) -> bool:
    """Tells whether clean values (n,) of a column are lists of labels."""
    return values.dtype.kind == "T" and bool(np.strings.startswith(values, LIST).any())


def read_label_lists(name: str, values: np.ndarray, separator: str, place: Place) -> np.ndarray:
    """Returns clean texts (n,) as objects (n,), each a tuple of the names between separators; () for one alone.

    Raises DataError, with its line, for a value that is missing, which is no empty list.
    """
    lists = np.empty(len(values), object)
    for row, text in enumerate(map(str, values.tolist())):
        if not text or (separator == LIST and not text.startswith(LIST)):
            got = Words(f"{shown(text)} in the column {name!r}" if text else f"no value in the column {name!r}")
            none = "[]" if separator == LIST else repr(separator)
            raise DataError(place(row), got, "a list of labels in each row", f"Write {none} for none of them")
        lists[row] = tuple(label for part in text.split(separator) if (label := part.strip()))
    return lists
