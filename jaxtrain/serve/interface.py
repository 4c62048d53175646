"""Inputs and outputs of a served model as clients see them: raw inputs, as `ExportedModel.predict` takes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxtrain.config.schema import LARGEST
from jaxtrain.data.table_encoding import ColumnEncoding
from jaxtrain.errors import DataError
from jaxtrain.export.array_inputs import Specs
from jaxtrain.export.loading import ExportedModel, Inputs, inputs_of
from jaxtrain.export.table_inputs import TableInputs
from jaxtrain.serve.refusal import bad_request
from jaxtrain.serve.tensors import TensorSpec, datatype_of

Tensors = Mapping[str, np.ndarray]
"""Name -> (n, ...)."""


@dataclass(frozen=True)
class Interface:
    """Inputs and outputs of a model by name.

    An array is one input, as are tokens; a table has an input for each of its columns, (n,): numbers, or texts for
    categories.
    """

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    of_program: Inputs

    def arguments(self, tensors: Tensors) -> dict[str, np.ndarray]:
        """Returns the arguments of the program for all inputs; raises Refusal for numbers that no model takes."""
        for name, tensor in tensors.items():
            self._demand_finite(name, tensor)
        given = tensors if isinstance(self.of_program, TableInputs) else next(iter(tensors.values()))
        try:
            return self.of_program.arguments(given)
        except DataError as error:  # whose line may hold a value of the client
            raise bad_request("inputs", "values that differ in kind", "values like those of training") from error

    def _demand_finite(self, name: str, tensor: np.ndarray) -> None:
        if tensor.dtype.kind != "f":
            return
        absent = np.isnan(tensor)
        if (np.abs(tensor) > LARGEST).any() or (absent.any() and not self.inputs[name].may_miss):
            raise bad_request(f"data of {name!r}", "a number that is not finite", "numbers that float32 can hold")


def interface_of(model: ExportedModel) -> Interface:
    """Returns the interface of an exported model."""
    inputs = inputs_of(model.info)
    outputs = {
        name: TensorSpec(name, _output_type(output), tuple(output["shape"][1:]))
        for name, output in model.description["outputs"].items()
    }
    return Interface(of_inputs(inputs), outputs, inputs)


def of_inputs(inputs: Inputs) -> dict[str, TensorSpec]:
    """Returns what clients send for the inputs of a program."""
    specs = _of_table(inputs) if isinstance(inputs, TableInputs) else [_of_array(inputs.specs)]
    return {spec.name: spec for spec in specs}


def _of_table(inputs: TableInputs) -> list[TensorSpec]:
    """Returns the columns in their order in the table."""
    return [
        TensorSpec(column.name, "FP64" if column.kind == "number" else "BYTES", (), _may_miss(column))
        for column in inputs.encoding.columns
    ]


def _may_miss(column: ColumnEncoding) -> bool:
    """Tells whether a value may be missing: a category always, a number where training rows missed some."""
    return column.kind == "category" or column.missing


def _of_array(specs: Specs) -> TensorSpec:
    name, spec = next(iter(specs.items()))
    # Two float32 in the program, a value and its remainder, are one number for a client.
    dtype = spec.dtype if len(specs) == 1 else np.dtype(np.float64)
    return TensorSpec(name, datatype_of(dtype), tuple(spec.shape))


def _output_type(output: Mapping[str, Any]) -> str:
    """Returns the type in which an output leaves the server; what is brought to its own units is float64."""
    return "FP64" if "offset" in output else datatype_of(np.dtype(output["dtype"]))
