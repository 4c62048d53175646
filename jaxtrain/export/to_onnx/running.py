"""Runs `model.onnx` in onnxruntime, to check it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime

from jaxtrain.errors import StorageError, Words, first_line
from jaxtrain.export.to_onnx.names import MODEL, PREDICTED, REMAINDER

Arrays = Mapping[str, np.ndarray]


def open_model(content: bytes) -> Callable[[Arrays], dict[str, np.ndarray]]:
    """Returns the function of a model from the arguments of `model.jaxexp` to outputs by name.

    Raises StorageError for a model that ONNX's full check or onnxruntime refuses; the function ValueError for inputs
    that are not of the model's types and shapes.
    """
    try:
        onnx.checker.check_model(content, full_check=True)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; warnings are of its own optimiser
        session = onnxruntime.InferenceSession(content, options)
    except Exception as error:  # of several libraries, which have no class in common
        got = Words(f"a model that is refused ({first_line(error)})")
        raise StorageError(MODEL, got, "one that passes ONNX's full check and runs in onnxruntime") from error
    names = [output.name for output in session.get_outputs()]
    of_program = [name.removeprefix(PREDICTED) for name in names]

    def predict(arguments: Arrays) -> dict[str, np.ndarray]:
        try:
            found: Any = session.run(names, _joined(arguments))
            return dict(zip(of_program, found, strict=True))
        except Exception as error:  # InvalidArgument of onnxruntime is no subclass of anything more telling
            raise ValueError(str(error)) from error

    return predict


def _joined(arguments: Arrays) -> dict[str, np.ndarray]:
    """Returns the inputs of the model: a value and its remainder become one float64."""
    joined = {}
    for name, array in arguments.items():
        if name.endswith(REMAINDER):
            continue
        rest = arguments.get(name + REMAINDER)
        if rest is not None and array.dtype == np.float32:
            array = array.astype(np.float64) + rest
        joined[name] = array
    return joined
