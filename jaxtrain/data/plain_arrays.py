"""Makes a plain array of numbers of what a source returns: every array of every source passes here."""

from typing import Any

import numpy as np

from jaxtrain.errors import DataError, Words

NUMBERS = "integers, floats or booleans"

REMEDIES = {
    "c": "Give the real and the imaginary part as features of their own",
    "O": "Convert it, as by array.astype(float): Python objects are no numbers, and missing values none either",
    "U": "Number the strings, as by numpy.unique(strings, return_inverse=True)[1], or convert digits by .astype(float)",
    "T": "Take task.name=classification for classes; for numbers with zeros in front, name the column in data.numbers",
    "M": "Count from a moment, as by (times - times.min()) / numpy.timedelta64(1, 's')",
    "m": "Count in a unit, as by durations / numpy.timedelta64(1, 's')",
    "V": "Convert it to a plain dtype, as by array.astype('float32'); take the fields of a structured one apart",
}
"""Remedies for an array that holds no numbers, by the kind of its dtype; readers of files give texts as "T"."""

RAGGED = "Convert them to a NumPy array in the source; give sequences of unlike length as a list of arrays"

REMEDIES["S"] = REMEDIES["U"]


def plain_array(values: Any, where: str, field: str) -> np.ndarray:
    """Returns a NumPy array (no subclass) of integers, booleans or floats of at most 64 bits, with the same numbers.

    Args:
        values: what a source returned: an array of any library that NumPy can read, or nested lists of numbers.
        where: the file or the source, which errors name.
        field: "inputs" or "targets".

    Raises:
        DataError: a mask that hides elements, a sparse matrix, or anything else that is no array of numbers.
    """
    if _hides_elements(values):
        got = Words(f"{_described(values, field)} with masked elements")
        hint = "Fill them, as by array.filled(0), or leave those examples out: a mask is never dropped"
        raise DataError(where, got, "an array without a mask", hint)
    if hasattr(values, "toarray") or hasattr(values, "todense"):
        got = Words(f"{_described(values, field)} in the sparse format {type(values).__name__}")
        method = "toarray" if hasattr(values, "toarray") else "todense"
        raise DataError(where, got, "a dense array", f"Convert it by .{method}()")
    try:
        array = np.asarray(values)
    except Exception as error:  # of the library that made them
        got = Words(f"{field} that make no array ({type(error).__name__}: {error})")
        raise DataError(where, got, "an array of numbers", RAGGED) from error
    return _as_numbers(array, where, field)


def _as_numbers(array: np.ndarray, where: str, field: str) -> np.ndarray:
    if array.dtype.name == "bfloat16":  # not a NumPy dtype, so its kind is not "f"
        return array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        got = Words(f"{field} of dtype {array.dtype} and shape {array.shape}")
        raise DataError(where, got, NUMBERS, REMEDIES.get(array.dtype.kind, REMEDIES["V"]))
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        # A long double has bytes of padding, at random, which the fingerprint of the data would include.
        with np.errstate(over="ignore"):  # beyond float64 is beyond float32, which is rejected later
            return array.astype(np.float64)
    return array


def _hides_elements(values: Any) -> bool:
    """Returns whether a masked array, alone or in lists, has a masked element; NumPy would return what lies below."""
    if isinstance(values, np.ma.MaskedArray):
        return bool(np.any(np.ma.getmaskarray(values)))
    # The rows of a list are of one kind, so plain numbers and arrays in it are recognised by the first.
    if not isinstance(values, list | tuple):
        return False
    kinds = set(map(type, values))
    if not any(issubclass(kind, np.ma.MaskedArray | list | tuple) for kind in kinds):
        return False
    try:
        return any(map(_hides_elements, values))
    except RecursionError:  # NumPy takes 64 axes at most, and says so
        return False


def _described(values: Any, field: str) -> str:
    shape = getattr(values, "shape", None)
    return field if shape is None else f"{field} of shape {tuple(shape)}"
