"""Writes an export: weights, programs, examples, description and card, checked before they take their place."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtrain.core.trees import leaf_digests
from jaxtrain.data import Dataset, Source, load
from jaxtrain.errors import JaxtrainWarning, StorageError, UsageError, Words
from jaxtrain.export.card import model_card
from jaxtrain.export.check import CheckedRows, check_export, predict_rows
from jaxtrain.export.description import describe_export, describe_files, describe_onnx
from jaxtrain.export.formats import Formats, choose_formats
from jaxtrain.export.loading import MANIFEST, PROGRAM
from jaxtrain.export.mlflow_files import mlflow_files
from jaxtrain.export.program import Member, export_program, member_of
from jaxtrain.export.to_onnx.names import MODEL as ONNX
from jaxtrain.files import (
    exists,
    list_directory,
    make_directory,
    read_bytes,
    remove_tree,
    rename,
    write_bytes,
    write_text,
)
from jaxtrain.storage.ownership import read_owner
from jaxtrain.storage.result import Result, read_result
from jaxtrain.storage.safetensors_files import read_arrays, write_arrays
from jaxtrain.storage.seals import write_sealed
from jaxtrain.tasks import needs_of
from jaxtrain.training.checks import check_fingerprint, check_preparation
from jaxtrain.training.trained_run import Run, load_run, open_run

WEIGHTS = "weights.safetensors"
EXAMPLES = "examples.safetensors"
CARD = "README.md"

EXAMPLE_ROWS = 3
"""Rows that are kept with their outputs."""


def export_run(
    workdir: str | Path,
    output: str | Path | None = None,
    *,
    seed: int | None = None,
    ensemble: bool = False,
    formats: Sequence[str] | None = None,
    trust: Sequence[str] = (),
    data: Source | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Exports a finished run to `output` (None: `export` in its directory), and returns it with its description.

    `seed` selects one seed of a run of several (None: the first), and `ensemble` joins all of them. `formats` name what
    is written beside program and weights, "onnx" and "mlflow" (None: what is installed, without "onnx" for a model that
    ONNX cannot express, which is a warning). `data` are those that were given in Python to train it. An export that
    fails its check is not left behind, and an earlier one stays.

    Raises UsageError for a directory without a finished run, a model that cannot be exported, and an output that holds
    something else; StorageError for an export that fails its check; DataError if the data differ from those of
    training.
    """
    workdir = Path(workdir)
    target = workdir / "export" if output is None else Path(output)
    chosen = choose_formats(formats)
    result = _finished(workdir)
    _demand_free(target)
    runs = _load_runs(workdir, seed, ensemble, trust)
    rows = predict_rows([*runs.values()], _dataset(workdir, trust, data))
    unfinished = target.with_name(f".{target.name}.unfinished")
    remove_tree(unfinished)
    make_directory(unfinished)
    try:
        description = _write_files(unfinished, runs, result, rows, chosen)
        _replace(target, unfinished)
    finally:
        remove_tree(unfinished)
    return target, description


def _finished(workdir: Path) -> Result:
    """Returns the result of a run; raises UsageError for one that has none, or another end."""
    if not (owned := read_owner(workdir)):
        raise UsageError(str(workdir), Words("a directory without config.json"), "the directory of a run")
    result = read_result(workdir, sealed=owned.seals)
    if result is None or result.status != "done":
        got = Words("a run that has not ended" if result is None else f"a run that was {result.status}")
        raise UsageError(str(workdir), got, "a finished run", "Train it to its end first")
    return result


def _demand_free(target: Path) -> None:
    """Raises UsageError for a directory of files that are no export."""
    names = list_directory(target)
    if names and MANIFEST not in names:
        got = Words(f"a directory that holds {names[0]!r}")
        raise UsageError(str(target), got, "a new directory, or that of an export", "Give another --output")


def _load_runs(workdir: Path, seed: int | None, ensemble: bool, trust: Sequence[str]) -> dict[int, Run]:
    first = load_run(workdir, seed, trust)
    if first.info.vocabulary is not None:
        got = Words("a run on texts, whose models continue sequences")
        raise UsageError(str(workdir), got, "a run whose examples are independent", "Use it by Run.generate")
    start = first.config["seed"]
    count = first.config["train"]["seeds"]
    if not ensemble:
        return {start if seed is None else seed: first}
    if seed is not None or count == 1:
        got = Words("it with --seed" if seed is not None else "it for a run of one seed")
        raise UsageError("--ensemble", got, "a run of several seeds, all of which are joined")
    return {start: first} | {number: load_run(workdir, number, trust) for number in range(start + 1, start + count)}


def _dataset(workdir: Path, trust: Sequence[str], data: Source | None) -> Dataset:
    config, bookkeeping, _ = open_run(workdir, trust)
    if bookkeeping.folds:
        hint = "Train a run without folds and export that: models of folds are for estimates"
        raise UsageError(str(workdir), Words("a run of folds"), "a run of one model", hint)
    dataset = load(config["data"], data, **needs_of(config))
    check_fingerprint(dataset, bookkeeping.fingerprint)
    check_preparation(dataset, bookkeeping.info)
    return dataset


def _write_files(
    folder: Path, runs: Mapping[int, Run], result: Result, rows: CheckedRows, formats: Formats
) -> dict[str, Any]:
    """Writes all files of an export into a new directory, checks them, and returns the description."""
    members = {seed: member_of(run) for seed, run in runs.items()}
    first = next(iter(runs.values()))
    description = describe_export(runs, result, rows.outputs)
    contents = {PROGRAM: export_program(first, [*members.values()])}
    if "onnx" in formats.names and (model := _convert(first, members, demanded=formats.demanded)):
        contents[ONNX] = model
        description["onnx"] = describe_onnx(first.info, rows.outputs)
    if "mlflow" in formats.names:
        contents |= mlflow_files(description)
    for name, content in contents.items():
        make_directory((folder / name).parent)
        write_bytes(folder / name, content)
    _write_weights(folder / WEIGHTS, members, first)
    _write_examples(folder / EXAMPLES, rows)
    written = {name: read_bytes(folder / name) for name in (*contents, WEIGHTS, EXAMPLES)}
    description["files"] = describe_files(written)
    write_sealed(folder / MANIFEST, description)
    description["check"] = check_export(folder, rows, first.config["train"]["precision"])
    write_text(folder / CARD, model_card(description))
    write_sealed(folder / MANIFEST, description)
    return description


def _convert(run: Run, members: Mapping[int, Member], *, demanded: bool) -> bytes | None:
    """Returns the model of ONNX; None, with a warning, for one without a form there, unless that was asked for."""
    from jaxtrain.export.to_onnx.program import onnx_program
    from jaxtrain.export.to_onnx.running import open_model

    try:
        model = onnx_program(run, members)
        open_model(model)  # raises where onnxruntime lacks an operation for these types
        return model
    except (UsageError, StorageError) as error:
        if demanded:
            raise
        warnings.warn(JaxtrainWarning(ONNX, error.got, error.expected, "It is left out"), stacklevel=2)
    return None


def _write_weights(path: Path, members: Mapping[int, Member], run: Run) -> None:
    """Writes the weights by their paths, those of several seeds under "seed_N/"; raises if they read otherwise."""
    if len(members) == 1:
        (member,) = members.values()
        arrays = member.arrays
    else:
        arrays = {f"seed_{seed}/{k}": a for seed, member in members.items() for k, a in member.arrays.items()}
    write_arrays(path, arrays, {"model": run.config["model"]["name"], "task": run.config["task"]["name"]})
    if leaf_digests(read_arrays(path)) != leaf_digests(arrays):
        raise StorageError(str(path), Words("other numbers"), "the weights that were written")


def _write_examples(path: Path, rows: CheckedRows) -> None:
    parts = {"inputs": rows.arguments, "outputs": rows.outputs}
    write_arrays(path, {f"{part}/{k}": a[:EXAMPLE_ROWS] for part, arrays in parts.items() for k, a in arrays.items()})


def _replace(target: Path, finished: Path) -> None:
    """Gives a finished directory its name; an earlier one there is removed when it has."""
    earlier = target.with_name(f".{target.name}.earlier")
    remove_tree(earlier)
    if exists(target):
        rename(target, earlier)
    rename(finished, target)
    remove_tree(earlier)
