"""Names that the model of ONNX shares with those who write, describe and check it."""

from collections.abc import Iterable
from typing import Any

from jaxtrain.export.loading import Inputs

MODEL = "model.onnx"

REMAINDER = "_remainder"
"""The end of the name of an argument that holds what float32 does not hold of another; ONNX takes both as float64."""

PREDICTED = "predicted_"
"""The beginning of the name of an output that would have the name of an input: names in a graph are unique."""


def name_outputs(names: Iterable[str], inputs: Iterable[str]) -> dict[str, str]:
    """Returns {name of an output of the program: its name in the model of ONNX}."""
    taken = set(inputs)
    return {name: PREDICTED + name if name in taken else name for name in names}


def describe_inputs(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """Returns {name: shape and type} of the inputs of the model of ONNX."""
    specs = inputs.specs
    return {
        name: {"shape": ["n", *spec.shape], "dtype": "float64" if name + REMAINDER in specs else spec.dtype.name}
        for name, spec in specs.items()
        if not name.endswith(REMAINDER)
    }
