"""Arrays as inputs of an exported program: raw integers, or numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxtrain.data.info import DataInfo
from jaxtrain.data.new_inputs import as_new_inputs
from jaxtrain.data.tables import Table
from jaxtrain.errors import DataError, Words
from jaxtrain.export.two_floats import fits_one_float, split, standardise

Specs = dict[str, jax.ShapeDtypeStruct]
"""Name -> shape and dtype of one example."""

Arrays = Mapping[str, Any]
"""Name -> (n, ...), the arguments of an exported program."""


@dataclass(frozen=True)
class ArrayInputs:
    """Inputs (n, ...) as files hold them: raw integers, or float32 with their remainders where these matter."""

    info: DataInfo

    @property
    def specs(self) -> Specs:
        """The arguments of the program."""
        specs = {"inputs": jax.ShapeDtypeStruct(self.info.input_shape, self.info.input_dtype)}
        return specs if self._fits else specs | {"inputs_remainder": specs["inputs"]}

    def arguments(self, inputs: Any, *, allow_nan: bool = False) -> dict[str, np.ndarray]:
        """Returns the arguments for raw inputs (n, ...); raises DataError for what is none."""
        plain = as_new_inputs(inputs, self.info, allow_nan=allow_nan or self.info.is_raw)  # no integer is nan
        if isinstance(plain, Table) and self.info.sequences is not None:
            plain = self.info.encode(plain)
        if isinstance(plain, Table):
            raise DataError("inputs", Words("columns by name"), "an array, since this run was not trained on a table")
        if self.info.is_raw:
            return {"inputs": _as_integers(plain, np.dtype(self.info.input_dtype))}
        numbers = split(plain)
        return {"inputs": numbers.value} | ({} if self._fits else {"inputs_remainder": numbers.remainder})

    def prepare(self, arguments: Arrays) -> Any:
        """Returns the inputs of the task inside the program: raw integers, or normalised numbers."""
        if self.info.is_raw:
            return arguments["inputs"]
        statistics = (self.info.input_mean, self.info.input_std)
        return standardise(arguments["inputs"], arguments.get("inputs_remainder"), *statistics)

    @property
    def _fits(self) -> bool:
        return self.info.is_raw or fits_one_float(self.info.input_mean, self.info.input_std)


def _as_integers(plain: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns the same numbers in the dtype of the program; raises DataError for those that it cannot hold."""
    if plain.dtype == dtype:
        return plain.astype(dtype, copy=False)  # in the byte order of this machine
    with np.errstate(invalid="ignore"):
        converted = plain.astype(dtype)
    wrong = np.flatnonzero(converted != plain)
    if len(wrong):
        raise DataError("inputs", plain.flat[wrong[0]].item(), f"numbers of the type {dtype}, as in training")
    return converted
