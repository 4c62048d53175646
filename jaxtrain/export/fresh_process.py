"""A fresh process that loads an export and predicts: `python -m jaxtrain.export.fresh_process EXPORT ROWS RESULTS`."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jaxtrain.errors import JaxtrainError, StorageError, Words
from jaxtrain.export.generation import greedy_distance
from jaxtrain.export.loading import CONTINUATION, PROGRAM, ExportedModel, load_export
from jaxtrain.export.mlflow_files import MODEL as MLFLOW
from jaxtrain.export.mlflow_loading import open_as_mlflow
from jaxtrain.export.to_onnx.names import MODEL as ONNX
from jaxtrain.files import read_bytes
from jaxtrain.storage.safetensors_files import read_arrays, write_arrays

BATCH_SIZES = (1, 2, 7, 64)

Arguments = Mapping[str, np.ndarray]

Predict = Callable[[Arguments], dict[str, np.ndarray]]


def main(folder: Path, rows: Path, results: Path) -> None:
    """Writes the outputs of all rows at each batch size as "FILE/SIZE/NAME"; raises what refuses the export."""
    arguments = read_arrays(rows)
    model = load_export(folder)
    found = {}
    for file, predict in _programs(model).items():
        for fault, spoil in FAULTS.items():
            _demand_refusal(file, predict, fault, {name: spoil(array) for name, array in arguments.items()})
        for size in BATCH_SIZES:
            outputs = _predict_in_batches(predict, arguments, size)
            found |= {f"{file}/{size}/{name}": output for name, output in outputs.items()}
    if model.continuation is not None:
        program = model.continuation_in(BATCH_SIZES[-1:])
        found[CONTINUATION] = np.float64(greedy_distance(program, model.call, arguments["inputs"]))
    write_arrays(results, found)


def _programs(model: ExportedModel) -> dict[str, Predict]:
    """Returns the function of each program of an export, by the name of its file."""
    programs: dict[str, Predict] = {PROGRAM: model.call}
    if ONNX in model.description["files"]:
        from jaxtrain.export.to_onnx.running import open_model

        programs[ONNX] = open_model(read_bytes(model.folder / ONNX))
    if MLFLOW in model.description["files"]:
        programs[MLFLOW] = open_as_mlflow(model.folder)
    return programs


def _predict_in_batches(predict: Predict, arguments: Arguments, size: int) -> dict[str, np.ndarray]:
    """Predicts all rows in batches of one size; the last batch is filled up with the first rows."""
    count = len(next(iter(arguments.values())))
    places = np.arange(-(-count // size) * size) % count
    batches = [
        predict({name: array[places[begin : begin + size]] for name, array in arguments.items()})
        for begin in range(0, len(places), size)
    ]
    return {name: np.concatenate([batch[name] for batch in batches])[:count] for name in batches[0]}


FAULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "no examples": lambda array: array[:0],
    "examples of another shape": lambda array: array[..., None],
    "numbers of another type": lambda array: array.astype(np.float16),
}
"""Kind of input that a program must refuse -> a function that makes it of good rows."""

ANSWERED = {ONNX: ("no examples",), MLFLOW: ("no examples", "numbers of another type")}
"""Program -> the kinds that it answers all the same: with no outputs, or because it converts numbers."""


def _demand_refusal(file: str, predict: Predict, fault: str, arguments: Arguments) -> None:
    if fault in ANSWERED.get(file, ()):
        return
    try:
        predict(arguments)
    except (TypeError, ValueError):
        return
    raise StorageError(file, Words(f"an answer to {fault}"), "an error")


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:]))
    except JaxtrainError as error:
        sys.exit(str(error))
