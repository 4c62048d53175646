"""Writes an export: weights, program, examples, description and card, checked before they take their place."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtrain.core.trees import leaf_digests
from jaxtrain.data import Dataset, Source, load
from jaxtrain.errors import JaxtrainWarning, StorageError, UsageError, Words, one_of
from jaxtrain.export.card import intended_use_of, model_card
from jaxtrain.export.check import CheckedRows, check_export, predict_rows, tolerance_of
from jaxtrain.export.container import DOCKERFILE, KUBERNETES, dockerfile, kubernetes
from jaxtrain.export.continuation import export_continuation
from jaxtrain.export.description import describe_export, describe_files, describe_onnx
from jaxtrain.export.formats import Formats, choose_formats
from jaxtrain.export.loading import CONTINUATION, EXAMPLES, MANIFEST, PROGRAM, WEIGHTS
from jaxtrain.export.mlflow_files import NAMES as MLFLOW_NAMES
from jaxtrain.export.mlflow_files import mlflow_files
from jaxtrain.export.program import Member, export_program, member_of, weights_of
from jaxtrain.export.quality import demand_quality, measure_quality
from jaxtrain.export.stored_weights import Storage
from jaxtrain.export.to_onnx.names import MODEL as ONNX
from jaxtrain.files import (
    exists,
    list_directory,
    make_directory,
    read_bytes,
    read_text,
    remove_tree,
    rename,
    write_bytes,
    write_text,
)
from jaxtrain.storage.ownership import read_owner
from jaxtrain.storage.result import Result, read_result
from jaxtrain.storage.safetensors_files import read_arrays, write_arrays
from jaxtrain.storage.seals import write_sealed
from jaxtrain.storage.work_folder import work_beside
from jaxtrain.tasks import needs_of
from jaxtrain.training.checks import check_fingerprint, check_preparation
from jaxtrain.training.trained_run import Run, load_run, open_run

CARD = "README.md"

OWN_NAMES = {MANIFEST, PROGRAM, CONTINUATION, ONNX, WEIGHTS, EXAMPLES, CARD, DOCKERFILE, KUBERNETES, *MLFLOW_NAMES}
"""Files and folders that an export consists of."""

EXAMPLE_ROWS = 3
"""Rows that are kept with their outputs."""


def export_run(
    workdir: str | Path,
    output: str | Path | None = None,
    *,
    seed: int | None = None,
    fold: int | None = None,
    ensemble: bool = False,
    precision: str = "float32",
    quantize: str | None = None,
    formats: Sequence[str] | None = None,
    trust: Sequence[str] = (),
    data: Source | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Exports a finished run to `output` (None: `export` in its directory), and returns it with its description.

    `seed` selects one seed of a run of several (None: the first), `fold` one fold, and `ensemble` joins all seeds.
    `data` are those that were given in Python to train it. An export that fails its check is not left behind, and an
    earlier one stays. What a person wrote on the intended use in the card of an earlier one is kept.

    `formats` name what is written beside program and weights, "onnx" and "mlflow" (None: what is installed, without
    "onnx" for a model that ONNX cannot express, which is a warning).

    `precision` "bfloat16" rounds weights of several axes to it, and `quantize` "int8" to 255 levels in each output
    channel; the program computes as before. Such an export is measured beside the run, and must not be worse by much
    (`export/quality.py`).

    Raises UsageError for a directory without a finished run, a model that cannot be exported, an output that holds
    something else, and rounded weights that cost too much; StorageError for an export that fails its check; DataError
    if the data differ from those of training.
    """
    workdir = Path(workdir)
    storage = _storage(precision, quantize)
    chosen = choose_formats(formats)
    target = workdir / "export" if output is None else Path(output)
    result = _finished(workdir)
    _demand_free(target)
    runs = _load_runs(workdir, seed, fold, ensemble, trust)
    _demand_float32(runs)
    dataset = _dataset(workdir, fold, trust, data)
    with work_beside(target) as work:
        _restore_earlier(target)
        intended_use = intended_use_of(read_text(target / CARD) if exists(target / CARD) else "")
        description = _write_files(work, runs, result, dataset, storage, fold, chosen, intended_use)
        _replace(target, work)
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


def _demand_float32(runs: Mapping[int, Run]) -> None:
    """Raises UsageError for runs in float64, of which others could load no program."""
    if any(run.config["train"]["precision"] == "float64" for run in runs.values()):
        got = Words("a run of train.precision=float64")
        raise UsageError("export", got, "a run in float32 or bfloat16", "Train it again in one of these")


def _demand_free(target: Path) -> None:
    """Raises UsageError for a directory with files that are of no export, as an export takes its whole place."""
    names = list_directory(target)
    foreign = [name for name in names if MANIFEST not in names or name not in OWN_NAMES]
    if foreign:
        got = Words(f"a directory that holds {foreign[0]!r}")
        raise UsageError(str(target), got, "a new directory, or that of an export", "Give another --output")


def _load_runs(
    workdir: Path, seed: int | None, fold: int | None, ensemble: bool, trust: Sequence[str]
) -> dict[int, Run]:
    first = load_run(workdir, seed, trust, fold=fold)
    start = first.config["seed"]
    count = first.config["train"]["seeds"]
    if not ensemble:
        return {start if seed is None else seed: first}
    if seed is not None or count == 1:
        got = Words("it with --seed" if seed is not None else "it for a run of one seed")
        raise UsageError("--ensemble", got, "a run of several seeds, all of which are joined")
    return {start: first} | {number: load_run(workdir, number, trust) for number in range(start + 1, start + count)}


def _dataset(workdir: Path, fold: int | None, trust: Sequence[str], data: Source | None) -> Dataset:
    """Returns the dataset of a run, or of a fold of it."""
    config, bookkeeping, _ = open_run(workdir, trust)
    if bookkeeping.folds and fold is None:
        hint = f"Give --fold=0 to --fold={len(bookkeeping.folds) - 1}, or train a run on all of the data"
        raise UsageError(str(workdir), Words("a run of folds"), "one of its models", hint)
    dataset = load(config["data"], data, **needs_of(config))
    check_fingerprint(dataset, bookkeeping.fingerprint)
    if not bookkeeping.folds or fold is None:
        check_preparation(dataset, bookkeeping.info)
        return dataset
    check_preparation(dataset.folds[fold], bookkeeping.folds[fold])
    return dataset.folds[fold]


def _storage(precision: str, quantize: str | None) -> Storage:
    """Returns the type of stored weights; raises UsageError for one that there is not, and for both at once."""
    for option, given, known in (
        ("--precision", precision, ("float32", "bfloat16")),
        ("--quantize", quantize, ("int8",)),
    ):
        if given is not None and given not in known:
            raise UsageError(option, given, one_of(known))
    if quantize is not None and precision != "float32":
        raise UsageError("--quantize", Words(f"it with --precision={precision}"), "one of the two")
    return "int8" if quantize else "bfloat16" if precision == "bfloat16" else "float32"


def _write_files(
    folder: Path,
    runs: Mapping[int, Run],
    result: Result,
    dataset: Dataset,
    storage: Storage,
    fold: int | None,
    formats: Formats,
    intended_use: str,
) -> dict[str, Any]:
    """Writes all files of an export into a new directory, checks them, and returns the description."""
    members = {seed: member_of(run).stored(storage) for seed, run in runs.items()}
    all_runs = [*runs.values()]
    first = all_runs[0]
    rounded = [member.plain() for member in members.values()] if storage == "int8" else []
    rows = predict_rows(all_runs, dataset, rounded)
    description = describe_export(runs, result, rows.outputs) | {"weights": storage, "quality": None}
    description["run"]["fold"] = fold
    programs = {PROGRAM: export_program(first, [*members.values()])}
    if first.info.vocabulary is not None and (continuation := export_continuation(first, members)):
        programs[CONTINUATION] = continuation
    if "onnx" in formats.names and (model := _convert(first, members, demanded=formats.demanded)):
        programs[ONNX] = model
        description["onnx"] = describe_onnx(first.info, rows.outputs)
    texts = mlflow_files(description) if "mlflow" in formats.names else {}
    for name, content in (programs | texts).items():
        make_directory((folder / name).parent)
        write_bytes(folder / name, content)
    _write_weights(folder / WEIGHTS, members, first)
    _write_examples(folder / EXAMPLES, rows)
    contents = {name: read_bytes(folder / name) for name in (*programs, WEIGHTS, EXAMPLES, *texts)}
    description["files"] = describe_files(contents)
    write_sealed(folder / MANIFEST, description)
    tolerance = tolerance_of(first.config["train"]["precision"], storage)
    description["check"] = check_export(folder, rows, tolerance)
    if storage != "float32" and (quality := measure_quality(folder, all_runs, dataset)):
        demand_quality(quality, "--quantize" if storage == "int8" else "--precision")
        description["quality"] = quality._asdict()
    write_text(folder / CARD, model_card(description, intended_use))
    write_text(folder / DOCKERFILE, dockerfile(description, [MANIFEST, *contents]))
    write_text(folder / KUBERNETES, kubernetes(description))
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
    arrays = weights_of(members)
    write_arrays(path, arrays, f"{run.config['model']['name']} of {run.config['task']['name']}")
    if leaf_digests(read_arrays(path)) != leaf_digests(arrays):
        raise StorageError(str(path), Words("other numbers"), "the weights that were written")


def _write_examples(path: Path, rows: CheckedRows) -> None:
    parts = {"inputs": rows.arguments, "outputs": rows.outputs}
    write_arrays(path, {f"{part}/{k}": a[:EXAMPLE_ROWS] for part, arrays in parts.items() for k, a in arrays.items()})


def _place_of_earlier(target: Path) -> Path:
    """Returns where an earlier export lies while another takes its name."""
    return target.with_name(f".{target.name}.earlier")


def _restore_earlier(target: Path) -> None:
    """Gives an earlier export its name again, after a kill between the two renames; removes one that is not needed."""
    earlier = _place_of_earlier(target)
    if exists(earlier) and not exists(target):
        rename(earlier, target)
    remove_tree(earlier)


def _replace(target: Path, finished: Path) -> None:
    """Gives a finished directory its name; an earlier one there is removed when it has."""
    earlier = _place_of_earlier(target)
    if exists(target):
        rename(target, earlier)
    rename(finished, target)
    remove_tree(earlier)
