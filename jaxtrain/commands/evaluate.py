"""The command `evaluate`: measures the best state of a run on its validation and test splits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtrain.commands.options import Options
from jaxtrain.commands.summary import format_numbers, select_readable
from jaxtrain.core.steps import train_step
from jaxtrain.data import Source
from jaxtrain.files import demand_writable, write_json
from jaxtrain.parallel.compilation import use_persistent_cache
from jaxtrain.training.bookkeeping import to_numbers
from jaxtrain.training.checks import check_fingerprint, check_preparation
from jaxtrain.training.experiment import build
from jaxtrain.training.runners import make_runner
from jaxtrain.training.trained_run import open_run, restore_best


def run(options: Options) -> int:
    """Evaluates the run in `--workdir`; returns 0."""
    assert options.workdir is not None
    use_persistent_cache()
    evaluation = evaluate(options.workdir, options.trust)
    options.show(evaluation_report(evaluation, Path(options.workdir)))
    options.document.show(evaluation_document(evaluation, options.workdir))
    return 0


def evaluate(workdir: str | Path, trust: Sequence[str] = (), *, data: Source | None = None) -> dict[str, Any]:
    """Evaluates a run's best state on its validation and test splits, and writes `evaluation.json`.

    `trust` lists modules whose functions the config of a run that another user made may name. `data` are those that
    were given in Python to train it.
    Returns {"step": step, split: {name: number}}. Raises DataError if the data differ from the training data.
    """
    workdir = Path(workdir)
    config, bookkeeping, checkpoints = open_run(workdir, trust)
    demand_writable(workdir / "evaluation.json")
    experiment = build(config, data=data, folds=True)
    check_fingerprint(experiment.dataset, bookkeeping.fingerprint)
    check_preparation(experiment.dataset, bookkeeping.info)
    runner = make_runner(experiment, train_step)
    step, saved = restore_best(checkpoints, bookkeeping, runner.shapes())
    state = runner.place(saved)
    splits = [split for split in ("validation", "test") if split in experiment.dataset.sizes]
    names = bookkeeping.names
    evaluation = {"step": step, **{split: to_numbers(runner.evaluate(state, split), names) for split in splits}}
    write_json(workdir / "evaluation.json", evaluation)
    return evaluation


def evaluation_document(evaluation: Mapping[str, Any], workdir: str) -> dict[str, Any]:
    """Returns what `evaluate` tells programs."""
    return {"workdir": workdir, "step": evaluation["step"], "metrics": _splits(evaluation)}


def evaluation_report(evaluation: Mapping[str, Any], workdir: Path) -> list[str]:
    """Formats the output of `evaluate`."""
    lines = [f"step {evaluation['step']:,} of {workdir}"]
    lines += [f"  {name:<11}{format_numbers(select_readable(own))}" for name, own in _splits(evaluation).items()]
    return [*lines, f"wrote {workdir}/evaluation.json"]


def _splits(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    return {name: numbers for name, numbers in evaluation.items() if name != "step"}
