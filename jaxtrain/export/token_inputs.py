"""Tokens of a text as the input of an exported program."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxtrain.data.info import DataInfo, check_tokens
from jaxtrain.data.new_inputs import as_new_inputs
from jaxtrain.data.tables import Table
from jaxtrain.errors import DataError, Words
from jaxtrain.export.array_inputs import Arrays, Specs


@dataclass(frozen=True)
class TokenInputs:
    """Rows of tokens (n, context), numbers of the vocabulary in `model.json`: windows, or texts with padding."""

    info: DataInfo

    @property
    def specs(self) -> Specs:
        """The argument of the program."""
        return {"inputs": jax.ShapeDtypeStruct(self.info.input_shape, self.info.input_dtype)}

    def arguments(self, inputs: Any, *, allow_nan: bool = False) -> dict[str, np.ndarray]:
        """Returns the argument for tokens (n, context), or texts; raises DataError for what are none."""
        tokens = as_new_inputs(inputs, self.info, allow_nan=True)  # no token is nan
        if isinstance(tokens, Table):
            if self.info.texts is None:
                raise DataError("inputs", Words("columns by name"), "tokens, since this run was trained on a text")
            tokens = self.info.encode(tokens)
        assert self.info.tokens is not None
        check_tokens(tokens, self.info.tokens)
        return {"inputs": tokens.astype(self.info.input_dtype, copy=False)}

    def prepare(self, arguments: Arrays) -> Any:
        """Returns the inputs of the task inside the program."""
        return arguments["inputs"]
