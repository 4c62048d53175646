"""The check of an export: a fresh process must repeat the predictions of the run."""

import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxtrain.data.dataset import Dataset
from jaxtrain.errors import JaxtrainWarning, StorageError, Words
from jaxtrain.export.fresh_process import BATCH_SIZES
from jaxtrain.export.loading import Outputs, inputs_of
from jaxtrain.export.outputs import head_of
from jaxtrain.export.rows import rows_to_check
from jaxtrain.export.to_onnx.names import MODEL
from jaxtrain.files import remove
from jaxtrain.storage.safetensors_files import read_arrays, write_arrays
from jaxtrain.training.trained_run import Run

TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2}
"""Precision of the run -> largest difference, relative to the spread of an output."""

HINT = "Report it with the config of the run"
HINTS = {MODEL: f"Leave it out by --format=mlflow. {HINT}"}


@dataclass(frozen=True)
class CheckedRows:
    """Rows as arguments of the program, with the outputs that the runs predict; the first rows are `usual` ones."""

    arguments: Mapping[str, np.ndarray]
    outputs: Outputs
    usual: int

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(next(iter(self.arguments.values())))


def predict_rows(runs: Sequence[Run], dataset: Dataset) -> CheckedRows:
    """Predicts rows of the data with each of the runs, whose predictions are joined."""
    rows = rows_to_check(dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JaxtrainWarning)  # of the category that no training row has
        predictions = np.stack([run.predict(rows.inputs) for run in runs])
    arguments = inputs_of(runs[0].info).arguments(rows.inputs)
    return CheckedRows(arguments, _outputs(runs, predictions), rows.usual)


def _outputs(runs: Sequence[Run], predictions: np.ndarray) -> Outputs:
    """Returns the outputs that belong to predictions (runs, n, ...); numbers of a regression are in their units."""
    run = runs[0]
    if run.info.standardised:
        return {"numbers": predictions.mean(axis=0)}
    head = head_of(run.config["task"]["name"], run.info)
    joined = head.join(jnp.asarray(predictions)) if len(runs) > 1 else jnp.asarray(predictions[0])
    return {name: np.asarray(output) for name, output in head.outputs(joined).items()}


def check_export(folder: Path, rows: CheckedRows, precision: str) -> dict[str, Any]:
    """Compares the predictions of a fresh process with those of the run, at several batch sizes, for each program.

    Returns {"tolerance", "worst": {file: {output: largest difference, relative to its spread}}, "rows", "batch_sizes"}.
    Raises StorageError for an export that differs by more, or answers what it must refuse.
    """
    found = _predict_afresh(folder, rows.arguments)
    tolerance = TOLERANCES[precision]
    worst: dict[str, dict[str, float]] = {}
    for file in sorted({key.partition("/")[0] for key in found}):
        worst[file] = {name: _worst(found, file, name, rows, tolerance) for name in rows.outputs}
    return {"tolerance": tolerance, "worst": worst, "rows": len(rows), "batch_sizes": list(BATCH_SIZES)}


def _worst(found: Mapping[str, np.ndarray], file: str, name: str, rows: CheckedRows, tolerance: float) -> float:
    """Returns the largest difference of an output; raises StorageError for one beyond the tolerance."""
    worst = 0.0
    for size in BATCH_SIZES:
        distance = _distance(found[f"{file}/{size}/{name}"], rows.outputs[name], rows)
        worst = max(worst, distance)
        if not distance <= tolerance:
            got = Words(f"{name!r} off by {distance:.2g} of its spread at {size} examples")
            expected = f"at most {tolerance:g}, the predictions of the run"
            raise StorageError(file, got, expected, HINTS.get(file, HINT))
    return worst


def _distance(found: np.ndarray, expected: np.ndarray, rows: CheckedRows) -> float:
    """Returns the largest difference relative to the spread; that of a decision is by how much it misses the best."""
    if found.shape != expected.shape:
        return np.inf
    if expected.dtype.kind == "f":
        return float((np.abs(found.astype(np.float64) - expected) / _scale(expected, rows.usual)).max())
    logits = rows.outputs["logits"]
    scale = _scale(logits, rows.usual)
    if logits.ndim == expected.ndim:
        return float(np.where(found == expected, 0.0, np.abs(logits) / scale).max())
    chosen = np.take_along_axis(logits, found[..., None], axis=-1)
    return float(((logits.max(axis=-1, keepdims=True) - chosen) / scale).max())


def _scale(values: np.ndarray, usual: int) -> np.ndarray:
    """Returns the spread of an output over the usual rows, or the distance from their mean where that is larger.

    Numbers of extreme rows may lie far out, where float32 is coarser.
    """
    rows = values[:usual].astype(np.float64)
    spread = float(rows.max() - rows.min()) or 1.0
    return np.maximum(spread, np.abs(values - rows.mean()))


def _predict_afresh(folder: Path, arguments: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Predicts in another process, which shares nothing with this one but files."""
    given = folder / "check-rows.safetensors"
    results = folder / "check-results.safetensors"
    write_arrays(given, arguments)
    command = [sys.executable, "-m", "jaxtrain.export.fresh_process", str(folder), str(given), str(results)]
    own = str(Path(__file__).parents[2])  # the process must import this package, wherever it starts
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([own, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    if done.returncode:
        reason = next(iter(reversed(done.stderr.strip().splitlines())), f"exit code {done.returncode}")
        raise StorageError("export", Words(f"a fresh process that failed ({reason})"), "one that predicts", HINT)
    found = read_arrays(results)
    remove(given)
    remove(results)
    return found
