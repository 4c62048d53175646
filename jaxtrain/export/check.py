"""The check of an export: a fresh process must repeat the predictions of the run."""

import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.data.dataset import Dataset
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import JaxtrainWarning, StorageError, Words
from jaxtrain.export.box_distance import box_distance, overlap_of
from jaxtrain.export.fresh_process import BATCH_SIZES
from jaxtrain.export.loading import CONTINUATION, inputs_of
from jaxtrain.export.mlflow_files import MODEL as MLFLOW
from jaxtrain.export.outputs import head_of
from jaxtrain.export.padded import Outputs
from jaxtrain.export.program import Member
from jaxtrain.export.rows import rows_to_check
from jaxtrain.export.stored_weights import Storage
from jaxtrain.export.to_onnx.names import MODEL as ONNX
from jaxtrain.files import remove
from jaxtrain.storage.safetensors_files import read_arrays, write_arrays
from jaxtrain.training.trained_run import Run

TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2}
"""Precision of the run or of its stored weights -> largest difference, relative to the spread of an output."""

HINT = "Report it with the config of the run"
HINTS = {
    ONNX: f"Leave it out by --format=mlflow. {HINT}",
    MLFLOW: f"Leave it out by --format=onnx. {HINT}",
}


@dataclass(frozen=True)
class CheckedRows:
    """Rows as arguments of the program, with the outputs that the runs predict; the first rows are `usual` ones.

    `overlap` is that above which boxes suppress each other, where the outputs are boxes.
    """

    arguments: Mapping[str, np.ndarray]
    outputs: Outputs
    usual: int
    overlap: float | None = None

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(next(iter(self.arguments.values())))


def predict_rows(runs: Sequence[Run], dataset: Dataset, rounded: Sequence[Member] = ()) -> CheckedRows:
    """Predicts rows of the data with each of the runs, whose predictions are joined.

    Where the weights are `rounded`, to float32 numbers, the predictions are by these in the place of the runs' own.
    """
    rows = rows_to_check(dataset)
    run = runs[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JaxtrainWarning)  # of the category that no training row has
        if rounded:
            prepared = run.info.prepare(rows.inputs if run.info.table is None else run.info.encode(rows.inputs))
            predictions = np.stack([_predict_prepared(member, prepared, run.info) for member in rounded])
        else:
            predictions = np.stack([run.predict(rows.inputs, allow_nan=True) for run in runs])
    arguments = inputs_of(run.info).arguments(rows.inputs, allow_nan=True)
    return CheckedRows(arguments, joined_outputs(runs, predictions), rows.usual, overlap_of(run.config["task"]))


def _predict_prepared(member: Member, prepared: np.ndarray, info: DataInfo) -> np.ndarray:
    """Predicts as `Run.predict`, with the weights of a member, by one program."""
    program = jax.jit(member.predict)
    size = BATCH_SIZES[-1]
    filled = np.resize(prepared, (-(-len(prepared) // size) * size, *prepared.shape[1:]))
    pieces = [np.asarray(program(filled[begin : begin + size])) for begin in range(0, len(filled), size)]
    predictions = np.concatenate(pieces)[: len(prepared)]
    return info.restore_targets(predictions) if info.standardised else predictions


def joined_outputs(runs: Sequence[Run], predictions: np.ndarray) -> Outputs:
    """Returns the outputs that belong to predictions (runs, n, ...); numbers of a regression are in their units."""
    run = runs[0]
    if run.info.standardised:
        return {"numbers": predictions.mean(axis=0)}
    head = head_of(run.config["task"]["name"], run.info)
    joined = head.join(jnp.asarray(predictions)) if len(runs) > 1 else jnp.asarray(predictions[0])
    return {name: np.asarray(output) for name, output in head.outputs(joined).items()}


def tolerance_of(precision: str, storage: Storage) -> float:
    """Returns the tolerance for a run of a precision with weights of a storage; int8 is compared as it is rounded."""
    return max(TOLERANCES[precision], TOLERANCES.get(storage, 0.0))


def check_export(folder: Path, rows: CheckedRows, tolerance: float) -> dict[str, Any]:
    """Compares the predictions of a fresh process with those of the run, at several batch sizes, for each program.

    Returns {"tolerance", "worst": {file: {output: largest difference, relative to its spread}}, "rows", "batch_sizes"}.
    Raises StorageError for an export that differs by more, or answers what it must refuse.
    """
    found = _predict_afresh(folder, rows.arguments)
    worst: dict[str, dict[str, float]] = {}
    if (distance := found.pop(CONTINUATION, None)) is not None:
        worst[CONTINUATION] = {"tokens": _demand_near(CONTINUATION, "tokens", distance.item(), tolerance, "of a text")}
    for file in sorted({key.partition("/")[0] for key in found}):
        worst[file] = {name: _worst(found, file, name, rows, tolerance) for name in rows.outputs}
    return {"tolerance": tolerance, "worst": worst, "rows": len(rows), "batch_sizes": list(BATCH_SIZES)}


def _worst(found: Mapping[str, np.ndarray], file: str, name: str, rows: CheckedRows, tolerance: float) -> float:
    """Returns the largest difference of an output; raises StorageError for one beyond the tolerance."""
    worst = 0.0
    for size in BATCH_SIZES:
        distance = _distance(found[f"{file}/{size}/{name}"], rows.outputs[name], rows, tolerance)
        worst = max(worst, _demand_near(file, name, distance, tolerance, f"at {size} examples"))
    return worst


def _demand_near(file: str, name: str, distance: float, tolerance: float, where: str) -> float:
    if not distance <= tolerance:
        got = Words(f"{name!r} off by {distance:.2g} of its spread {where}")
        raise StorageError(file, got, f"at most {tolerance:g}, the predictions of the run", HINTS.get(file, HINT))
    return distance


def _distance(found: np.ndarray, expected: np.ndarray, rows: CheckedRows, tolerance: float) -> float:
    """Returns the largest difference relative to the spread; that of a decision is by how much it misses the best."""
    if found.shape != expected.shape:
        return np.inf
    if rows.overlap is not None:
        return box_distance(found, expected, rows.usual, tolerance, rows.overlap)
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
    # Without bytecode, which would lie beside the code of the export.
    command = [sys.executable, "-B", "-m", "jaxtrain.export.fresh_process", str(folder), str(given), str(results)]
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
