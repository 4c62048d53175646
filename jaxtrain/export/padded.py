"""Programs of an exported model for a few sizes of a batch: padded to one, any batch needs no further compilation."""

import functools
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import export

Outputs = dict[str, np.ndarray]


class PaddedProgram:
    """An exported program that is compiled for a few `sizes` of a batch, at most once for each.

    A batch is padded with zeros to the smallest size that holds it, and one above the largest size is split. An example
    gives the same bits with any neighbours in a batch of one size; between sizes the last bits differ.
    """

    def __init__(self, program: export.Exported, sizes: Sequence[int], *weights: Any) -> None:
        """Takes a program, and its `weights` where these are an argument before those by name."""
        self.sizes = tuple(sorted(sizes))
        self._program = program
        self._weights = jax.device_put(weights)
        self._compiled: dict[int, jax.stages.Compiled] = {}
        self._compiling = threading.Lock()

    def __call__(self, arguments: Mapping[str, np.ndarray]) -> Outputs:
        """Returns {name of an output: (n, ...)} for arguments (n, ...) by name, whatever n.

        Raises TypeError for arguments of other names, shapes or dtypes than those of the program.
        """
        count = len(next(iter(arguments.values())))
        pieces = [self._call_piece(arguments, begin) for begin in range(0, max(1, count), self.sizes[-1])]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    @functools.cached_property
    def specs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Name of an argument -> shape and dtype of one example."""
        _, by_name = jax.tree.unflatten(self._program.in_tree, self._program.in_avals)
        return {name: jax.ShapeDtypeStruct(aval.shape[1:], aval.dtype) for name, aval in by_name.items()}

    def compile_all(self) -> None:
        """Compiles what is not compiled yet, ahead of the first call."""
        for size in self.sizes:
            self._compile(size)

    @property
    def compilations(self) -> int:
        """The number of compilations so far."""
        return len(self._compiled)

    def _call_piece(self, arguments: Mapping[str, np.ndarray], begin: int) -> Outputs:
        """Calls the program on at most as many examples as the largest size holds."""
        rows = {name: array[begin : begin + self.sizes[-1]] for name, array in arguments.items()}
        count = len(next(iter(rows.values())))
        size = next(size for size in self.sizes if count <= size)
        found = self._compile(size)(*self._weights, **{name: _pad(array, size) for name, array in rows.items()})
        return {name: np.asarray(output)[:count] for name, output in found.items()}

    def _compile(self, size: int) -> Any:
        with self._compiling:
            if size not in self._compiled:
                specs = {n: jax.ShapeDtypeStruct((size, *spec.shape), spec.dtype) for n, spec in self.specs.items()}
                self._compiled[size] = jax.jit(self._program.call).lower(*self._weights, **specs).compile()
            return self._compiled[size]


def _pad(array: np.ndarray, size: int) -> np.ndarray:
    """Returns (n, ...) with zeros behind, up to (size, ...)."""
    missing = size - len(array)
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)]) if missing else array
