"""Loads an export and predicts with it, by JAX, NumPy and flatbuffers alone; MLflow calls `_load_pyfunc`.

    python -c "import exported_model; print(exported_model.ExportedModel('..').description['inputs'])"

An export holds this file, as `code/exported_model.py`, so it uses nothing of the package in which it lies there.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

PROGRAM = "model.jaxexp"
MANIFEST = "model.json"

SIZES = (1, 8, 64, 512)
"""Sizes to which examples are padded: at most four programs are compiled."""

UNKNOWN = 0
"""The code of a category that no training row has."""

REMAINDER = "_remainder"

Arrays = dict[str, np.ndarray]


class ExportedModel:
    """An exported model: its description, as `model.json` holds it, and its program."""

    def __init__(self, folder: str | Path) -> None:
        """Loads the export in a folder; raises ValueError for files that were changed since they were written."""
        folder = Path(folder)
        self.description = _unsealed((folder / MANIFEST).read_text(encoding="utf-8"))
        content = (folder / PROGRAM).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.description["files"][PROGRAM]["sha256"]:
            raise _changed(PROGRAM)
        self._call = jax.jit(export.deserialize(bytearray(content)).call)

    def predict(self, model_input: Any, params: Any = None) -> Arrays:
        """Predicts from columns by name, or from one array (n, ...), by itself or by its name.

        Returns {name of an output: (n, ...)}. Raises ValueError for inputs that are not like those of training.
        MLflow gives `params`, of which this model has none.
        """
        arguments = self._arguments(model_input)
        count = len(next(iter(arguments.values())))
        pieces = [self._predict_piece(arguments, begin) for begin in range(0, max(1, count), SIZES[-1])]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def _predict_piece(self, arguments: Arrays, begin: int) -> Arrays:
        """Predicts at most the largest of the sizes, padded with zeros to one of them."""
        rows = {name: array[begin : begin + SIZES[-1]] for name, array in arguments.items()}
        count = len(next(iter(rows.values())))
        size = next(size for size in SIZES if count <= size)
        padded = {
            name: np.concatenate([array, np.zeros((size - count, *array.shape[1:]), array.dtype)])
            for name, array in rows.items()
        }
        outputs = {name: np.asarray(output)[:count] for name, output in self._call(**padded).items()}
        return {name: self._in_own_units(name, output) for name, output in outputs.items()}

    def _in_own_units(self, name: str, output: np.ndarray) -> np.ndarray:
        """Returns an output; one that leaves the program standardised is multiplied and moved in float64."""
        described = self.description["outputs"][name]
        if "offset" not in described:
            return output
        scale, offset = (np.reshape(described[key], output.shape[1:]) for key in ("scale", "offset"))
        return output.astype(np.float64) * scale + offset

    def _arguments(self, model_input: Any) -> Arrays:
        """Returns the arguments of the program."""
        inputs = self.description["inputs"]
        if any("columns" in array for array in inputs.values()):
            return self._of_table(model_input)
        name = next(iter(inputs))
        given = model_input[name] if isinstance(model_input, Mapping) else model_input
        if name + REMAINDER in inputs:
            return _split(name, np.asarray(given, np.float64))
        return {name: _exactly(np.asarray(given), np.dtype(inputs[name]["dtype"]))}

    def _of_table(self, columns: Any) -> Arrays:
        """Returns numbers, in two parts, and the codes of categories."""
        inputs = self.description["inputs"]
        arguments = {}
        if "numbers" in inputs:
            numbers = [_numbers(name, _column(columns, name)) for name in inputs["numbers"]["columns"]]
            arguments |= _split("numbers", np.stack(numbers, axis=1))
        if "codes" in inputs:
            of_columns = inputs["codes"]["columns"].items()
            codes = [_codes(names, _column(columns, name)) for name, names in of_columns]
            arguments["codes"] = np.stack(codes, axis=1)
        return arguments


def _unsealed(text: str) -> dict[str, Any]:
    """Returns the description without its seal, the checksum of all else: statistics there are part of the model."""
    content = json.loads(text)
    seal = content.pop("seal", None)
    if hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16] != seal:
        raise _changed(MANIFEST)
    return content


def _changed(name: str) -> ValueError:
    return ValueError(f"{name}: got content that fails its checksum; expected what the export wrote")


def _column(columns: Any, name: str) -> np.ndarray:
    """Returns a column of a data frame, or of another mapping of columns."""
    try:
        column = np.asarray(columns[name])
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"inputs: got no column {name!r}; expected the columns of training, by name") from error
    if column.ndim != 1:
        raise ValueError(f"inputs: got a column {name!r} of shape {column.shape}; expected one value for each example")
    return column


def _numbers(name: str, column: np.ndarray) -> np.ndarray:
    """Returns float64 numbers, nan where one is missing."""
    if column.dtype.kind in "biuf":
        return column.astype(np.float64)
    if any(isinstance(value, str) for value in column):
        raise ValueError(f"inputs: got a text in the column {name!r}; expected numbers, as in training")
    return np.array([np.nan if _is_missing(value) else float(value) for value in column], np.float64)


def _codes(names: list[str], column: np.ndarray) -> np.ndarray:
    """Returns the code of each category (n,): names are those of "(unknown)", of the categories, of "(missing)"."""
    places = {name: place for place, name in enumerate(names[1:-1], start=1)}
    missing = len(names) - 1
    codes = [missing if _is_missing(value) else places.get(str(value), UNKNOWN) for value in column.tolist()]
    return np.array(codes, np.int32)


def _is_missing(value: Any) -> bool:
    """Tells whether an object stands for a missing value: None, nan, an empty text, or the NA of pandas."""
    is_nan = isinstance(value, float | np.floating) and value != value
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType") or value == ""


def _split(name: str, exact: np.ndarray) -> Arrays:
    """Returns float64 numbers as two float32, the value and its remainder."""
    with np.errstate(over="ignore", invalid="ignore"):
        value = exact.astype(np.float32)
        remainder = np.where(np.isfinite(value), exact - value, 0.0).astype(np.float32)
    return {name: value, name + REMAINDER: remainder}


def _exactly(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Converts to the type of the program; raises ValueError for integers that it cannot hold."""
    with np.errstate(invalid="ignore"):
        converted = array.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(converted, array):
        raise ValueError(f"inputs: got numbers of the type {array.dtype}; expected {dtype} numbers, as in training")
    return converted


def _load_pyfunc(path: str) -> ExportedModel:
    """Loads the export in a folder for MLflow."""
    return ExportedModel(path)
