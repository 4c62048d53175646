"""The command `evaluate`: the best state of a run, measured on its validation and test splits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtrain.commands.options import Options
from jaxtrain.commands.summary import readable, shown
from jaxtrain.core.steps import train_step
from jaxtrain.errors import UsageError
from jaxtrain.parallel.compilation import use_persistent_cache
from jaxtrain.storage.files import write_json
from jaxtrain.training.bookkeeping import to_numbers
from jaxtrain.training.checks import check_fingerprint
from jaxtrain.training.experiment import build
from jaxtrain.training.runners import make_runner
from jaxtrain.training.trained_run import open_run, restore_best


def run(options: Options) -> int:
    """Evaluates the run in `--workdir`."""
    if options.workdir is None:
        raise UsageError("--workdir: given nothing; allowed: evaluate --workdir=DIR, the directory of a run")
    if options.overrides or options.config:
        raise UsageError("evaluate: given a config; allowed: evaluate --workdir=DIR, whose own config.json is used")
    use_persistent_cache()
    options.show(evaluation_report(evaluate(options.workdir), Path(options.workdir)))
    return 0


def evaluate(workdir: str | Path) -> dict[str, Any]:
    """Evaluates a run's best state on its validation and test splits, and writes `evaluation.json`.

    Returns {"step": step, split: {name: number}}. Raises DataError where the data are not those of the training.
    """
    workdir = Path(workdir)
    config, bookkeeping, checkpoints = open_run(workdir)
    experiment = build(config)
    check_fingerprint(experiment.dataset, bookkeeping.fingerprint)
    runner = make_runner(experiment, train_step)
    step, saved = restore_best(checkpoints, bookkeeping, runner.shapes())
    state = runner.place(saved)
    splits = [split for split in ("validation", "test") if split in experiment.dataset.sizes]
    found = {"step": step, **{split: to_numbers(runner.evaluate(state, split)) for split in splits}}
    write_json(workdir / "evaluation.json", found)
    return found


def evaluation_report(found: Mapping[str, Any], workdir: Path) -> list[str]:
    """Returns what `evaluate` prints."""
    lines = [f"step {found['step']:,} of {workdir}"]
    lines += [f"  {split:<11}{shown(readable(numbers))}" for split, numbers in found.items() if split != "step"]
    return [*lines, f"wrote {workdir}/evaluation.json"]
