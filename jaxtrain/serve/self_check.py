"""The check of a server before it is ready: the program repeats the examples that `model.json` describes."""

from collections.abc import Callable

import jax
import numpy as np

from jaxtrain.errors import StorageError, Words
from jaxtrain.export.box_distance import box_distance
from jaxtrain.export.generation import greedy_distance
from jaxtrain.export.loading import ExportedModel
from jaxtrain.export.padded import PaddedProgram

SLACK = 4.0
"""Largest difference from the examples, in tolerances of the export's check: other machines round otherwise."""

ACCELERATOR_TOLERANCE = 2e-2
"""The same for GPUs and TPUs, which multiply float32 in fewer bits by default."""


def check_examples(model: ExportedModel, program: PaddedProgram, is_stopped: Callable[[], bool]) -> None:
    """Compiles the program for each of its sizes, and compares it there with the examples of the export.

    `is_stopped` is asked between the compilations. Raises StorageError where the program predicts something else.
    """
    inputs, expected = model.read_examples()
    tolerance = _tolerance(model)
    for size in program.sizes:
        if is_stopped():
            return
        found = model.in_units(program({name: _repeat(array, size) for name, array in inputs.items()}))
        for name, output in found.items():
            distance = _distance(model, name, output, _repeat(expected[name], size), tolerance)
            _demand_near(model, name, distance, tolerance, size)


def check_continuation(
    model: ExportedModel, program: PaddedProgram, continuation: PaddedProgram, is_stopped: Callable[[], bool]
) -> None:
    """Compiles the program that continues texts for each of its sizes, and compares its tokens with `program` there.

    `is_stopped` is asked between the compilations. Raises StorageError where it draws others than the most probable.
    """
    inputs, _ = model.read_examples()
    for size in continuation.sizes:
        if is_stopped():
            return
        distance = greedy_distance(continuation, program, _repeat(inputs["inputs"], size))
        _demand_near(model, "tokens", distance, _tolerance(model), size)


def _tolerance(model: ExportedModel) -> float:
    tolerance = SLACK * model.description["check"]["tolerance"]
    return tolerance if jax.default_backend() == "cpu" else max(tolerance, ACCELERATOR_TOLERANCE)


def _demand_near(model: ExportedModel, name: str, distance: float, tolerance: float, size: int) -> None:
    if not distance <= tolerance:
        got = Words(f"{name!r} off by {distance:.2g} of its scale in a batch of {size}")
        hint = "Export the run again on this machine, or report it"
        raise StorageError(str(model.folder), got, f"at most {tolerance:g}, the examples of the export", hint)


def _repeat(array: np.ndarray, size: int) -> np.ndarray:
    """Returns `size` rows, the first ones again where there are fewer."""
    return array[np.arange(size) % len(array)]


def _distance(model: ExportedModel, name: str, found: np.ndarray, expected: np.ndarray, tolerance: float) -> float:
    """Returns the largest difference of an output relative to its scale; that of decisions follows from others."""
    if found.dtype.kind != "f":
        return 0.0
    if model.description["task"] == "detection":
        overlap = model.description["config"]["task"]["overlap"]
        return box_distance(found, expected, len(expected), tolerance, overlap)
    is_number = name == "numbers" and model.info.standardised
    scale = np.reshape(model.info.target_std, model.info.target_shape) if is_number else np.abs(expected).max()
    return float((np.abs(found.astype(np.float64) - expected) / np.maximum(scale, 1e-30)).max())
