"""Inputs that a model is to predict from: what does not fit them is one line, before anything is computed."""

from typing import Any

import numpy as np

from jaxtrain.config.schema import LARGEST
from jaxtrain.data.checks import check_inputs
from jaxtrain.data.info import DataInfo
from jaxtrain.data.plain_arrays import plain_array
from jaxtrain.data.sequences import Sequences
from jaxtrain.data.source import as_inputs
from jaxtrain.data.tables import Table
from jaxtrain.errors import DataError, Words

ALLOW = "Fill it in, leave the example out, or pass allow_nan=True"


def as_new_inputs(inputs: Any, info: DataInfo, *, allow_nan: bool) -> Table | np.ndarray:
    """Returns columns by name, and sequences, as a `Table`, and other inputs as a plain array (n, *input_shape).

    Raises DataError for examples of another shape than those of training. Unless `allow_nan`, it also raises for
    numbers that are not finite; a number that is missing in a column that misses some in training is none of these.
    """
    given = as_inputs(inputs, "inputs")
    if info.sequences is not None and getattr(given, "shape", ())[1:] != info.input_shape:
        given = given if isinstance(given, Table) else Sequences(given, name="inputs")
    if isinstance(given, Table):
        if not allow_nan:
            check_numbers(given, info)
        return given
    plain = plain_array(given, "inputs", "inputs")
    info.check_shape(plain)
    if not allow_nan:
        try:
            check_inputs("inputs", plain, np.arange(len(plain)))
        except DataError as error:
            raise DataError(error.key, error.got, error.expected, ALLOW) from error
    return plain


def check_numbers(table: Table, info: DataInfo, hint: str = ALLOW) -> None:
    """Raises DataError for a number that is infinite, or missing in a column that misses none in training.

    Raises it, too, for columns that are not those of training.
    """
    if info.encoding is None:
        return
    columns = info.encoding.columns_of(table)
    for column in info.table.columns if info.table else ():
        if column.kind != "number":
            continue
        values = columns[column.name]
        absent = np.isnan(values)
        wrong = np.flatnonzero((np.abs(values) > LARGEST) | (absent & (not column.missing)))
        if len(wrong):
            row = int(wrong[0])
            value = "no value" if absent[row] else str(values[row])
            got = Words(f"{value} in the column {column.name!r}")
            raise DataError(table.place(row), got, "a finite number in each row, as in training", hint)


def as_stored_integers(plain: np.ndarray, info: DataInfo) -> np.ndarray:
    """Returns whole numbers in the dtype of raw integers where that holds them, as the model reads such alone.

    So pixels give the same predictions, by the same programs, whatever dtype they come in.
    """
    if not info.is_raw or plain.dtype.name == info.input_dtype:
        return plain
    with np.errstate(invalid="ignore"):
        converted = plain.astype(info.input_dtype)
    return converted if np.array_equal(converted, plain) else plain
