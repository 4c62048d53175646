"""A fresh process that loads an export and predicts: `python -m jaxtrain.export.fresh_process EXPORT ROWS RESULTS`."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jaxtrain.errors import JaxtrainError, StorageError, Words
from jaxtrain.export.loading import PROGRAM, ExportedModel, load_export
from jaxtrain.storage.safetensors_files import read_arrays, write_arrays

BATCH_SIZES = (1, 2, 7, 64)

Arguments = Mapping[str, np.ndarray]


def main(folder: Path, rows: Path, results: Path) -> None:
    """Writes the outputs of all rows at each batch size as "SIZE/NAME"; raises what refuses the export."""
    model = load_export(folder)
    arguments = read_arrays(rows)
    for fault, spoil in FAULTS.items():
        _demand_refusal(model, fault, {name: spoil(array) for name, array in arguments.items()})
    found = {
        f"{size}/{name}": output
        for size in BATCH_SIZES
        for name, output in _predict_in_batches(model, arguments, size).items()
    }
    write_arrays(results, found)


def _predict_in_batches(model: ExportedModel, arguments: Arguments, size: int) -> dict[str, np.ndarray]:
    """Predicts all rows in batches of one size; the last batch is filled up with the first rows."""
    count = len(next(iter(arguments.values())))
    places = np.arange(-(-count // size) * size) % count
    batches = [
        model.call({name: array[places[begin : begin + size]] for name, array in arguments.items()})
        for begin in range(0, len(places), size)
    ]
    return {name: np.concatenate([batch[name] for batch in batches])[:count] for name in batches[0]}


FAULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "no examples": lambda array: array[:0],
    "examples of another shape": lambda array: array[..., None],
    "numbers of another type": lambda array: array.astype(np.float16),
}
"""Kind of input that a program must refuse -> a function that makes it of good rows."""


def _demand_refusal(model: ExportedModel, fault: str, arguments: Arguments) -> None:
    try:
        model.call(arguments)
    except (TypeError, ValueError):
        return
    raise StorageError(PROGRAM, Words(f"an answer to {fault}"), "an error")


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:]))
    except JaxtrainError as error:
        sys.exit(str(error))
