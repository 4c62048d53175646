"""Loads an export as `mlflow.pyfunc` does, by what `MLmodel` names, without MLflow."""

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.export.mlflow_files import MODEL
from jaxtrain.export.rows import NEVER_SEEN
from jaxtrain.export.to_onnx.names import REMAINDER
from jaxtrain.files import read_text


def open_as_mlflow(folder: Path) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Returns the function by which MLflow predicts, for arguments of the program, which are made raw inputs again.

    The code of the export becomes a module of this process.
    """
    text = read_text(folder / MODEL)
    sys.path.insert(0, str(folder / _value_of("code", text)))
    model = importlib.import_module(_value_of("loader_module", text))._load_pyfunc(str(folder))
    return lambda arguments: model.predict(_raw_inputs(arguments, model.description["inputs"]))


def _value_of(key: str, text: str) -> str:
    """Returns the value of a key of the flavor in the text of `MLmodel`."""
    found = re.search(rf"^ +{key}: (\S+)$", text, re.MULTILINE)
    assert found is not None
    return found[1]


def _raw_inputs(arguments: Mapping[str, np.ndarray], described: Mapping[str, Any]) -> Any:
    """Returns one array, or columns by name, of which the arguments of the program were made."""
    if not any("columns" in array for array in described.values()):
        return _joined(arguments, next(iter(described)))
    columns: dict[str, np.ndarray] = {}
    if "numbers" in described:
        numbers = _joined(arguments, "numbers")
        columns |= {name: numbers[:, place] for place, name in enumerate(described["numbers"]["columns"])}
    if "codes" in described:
        for place, (name, (_, *categories, _)) in enumerate(described["codes"]["columns"].items()):
            texts = np.array([NEVER_SEEN, *categories, None], object)
            columns[name] = texts[arguments["codes"][:, place]]
    return columns


def _joined(arguments: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Returns an argument; value and remainder are added to one number of float64."""
    value = arguments[name]
    remainder = arguments.get(name + REMAINDER)
    return value if remainder is None else value.astype(np.float64) + remainder
