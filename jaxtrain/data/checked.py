"""Fields whose values are checked as they are read, as those of arrays are checked before a run."""

from collections.abc import Callable, Mapping

import numpy as np

from jaxtrain.data.checks import check_inputs, check_targets, is_integer
from jaxtrain.data.fields import Field, FieldAround
from jaxtrain.data.source import Split

Check = Callable[[np.ndarray, np.ndarray], None]
"""Takes values and their rows; raises DataError naming the row of one that cannot be used."""


def checked(
    splits: Mapping[str, Split], classes: int | None, void: int | None = None, *, labels: bool
) -> dict[str, Split]:
    """Returns the splits with fields that raise DataError for what `check_source` would refuse in an array."""

    def inputs(split: Split, name: str) -> object:
        field = split.inputs
        where = split.where("inputs", name)
        if not isinstance(field, Field) or field.dtype.kind != "f":
            return field
        return CheckedField(field, lambda values, rows: check_inputs(where, values, rows))

    def targets(split: Split, name: str) -> object:
        field = split.targets
        where = split.where("targets", name)
        if not isinstance(field, Field) or not (field.dtype.kind == "f" or (labels and is_integer(field))):
            return field
        allowed = (classes, void)
        return CheckedField(field, lambda values, rows: check_targets(where, values, rows, *allowed, labels=labels))

    return {
        name: split._replace(inputs=inputs(split, name), targets=targets(split, name)) for name, split in splits.items()
    }


class CheckedField(FieldAround):
    """A field whose values are checked whenever they are read."""

    def __init__(self, field: Field, check: Check) -> None:
        """Takes the field and the check of its rows."""
        super().__init__(field)
        self._check = check

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the values of these rows; raises DataError naming the row of one that cannot be used."""
        values = self._field.read(rows)
        self._check(values, rows)
        return values
