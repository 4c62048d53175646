"""Names that the model of ONNX shares with those who write, describe and check it."""

from typing import Any

from jaxtrain.export.loading import Inputs

MODEL = "model.onnx"

REMAINDER = "_remainder"
"""The end of the name of an argument that holds what float32 does not hold of another; ONNX takes both as float64."""


def describe_inputs(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """Returns {name: shape and type} of the inputs of the model of ONNX."""
    specs = inputs.specs
    return {
        name: {"shape": ["n", *spec.shape], "dtype": "float64" if name + REMAINDER in specs else spec.dtype.name}
        for name, spec in specs.items()
        if not name.endswith(REMAINDER)
    }
