"""An equation of a jaxpr, as functions of primitives see it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxtrain.export.to_onnx.graph import Graph, Spec
from jaxtrain.export.to_onnx.values import Shape, Value

Inline = Callable[[Graph, Any, Sequence[Value]], list[Value]]
"""Converts a closed jaxpr of these values into a graph; returns its results."""


@dataclass(frozen=True)
class Equation:
    """The parameters of a primitive, and shapes and types of its results."""

    params: Mapping[str, Any]
    shapes: Sequence[Shape]
    dtypes: Sequence[np.dtype]
    inline: Inline

    @property
    def spec(self) -> Spec:
        """Shape and type of the first result."""
        return Spec(tuple(self.shapes[0]), self.dtypes[0])
