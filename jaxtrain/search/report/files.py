"""Writes the files of a search: report, pictures, best config, TensorBoard's hyperparameter table, summary."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jaxtrain.config.defaults import Config
from jaxtrain.config.trial_value import last_evaluations
from jaxtrain.files import demand_writable, make_directory, write_json
from jaxtrain.search.identity import without_storage
from jaxtrain.search.results import Findings

TENSORBOARD_TRIALS = 100
"""Number of trials in TensorBoard's table, which reads a file for each."""


def demand_places(folder: Path) -> None:
    """Raises StorageError if a file of the report could not be written, before any trial is trained."""
    names = ("report.html", "comparison.json", "best_config.json", "result.json", "pictures/history.png")
    demand_writable(*(folder / name for name in names))


def write_findings(findings: Findings, folder: Path, say: Callable[[str], None]) -> None:
    """Writes all files of a search into its folder; raises StorageError when one cannot be written."""
    from jaxtrain.search.report.page import write_page, write_pictures

    make_directory(folder / "pictures")
    write_page(findings, folder / "report.html")
    write_pictures(findings, folder / "pictures")
    if findings.space.config["track"]["tensorboard"]:
        _write_table(findings, folder / "tensorboard", say)
    best = findings.best
    if best is not None:
        config = findings.space.trial(best.trial, best.point).config
        write_json(folder / "best_config.json", without_storage(_with_result(config)))
    write_json(folder / "result.json", summarise(findings))


def _with_result(config: Config) -> Config:
    """Returns a trial's config whose run ends with the state that the trial's value assumed."""
    result = "best" if last_evaluations(config["search"]["value"]) is None else "last"
    return {**config, "checkpoint": {**config["checkpoint"], "result": result}}


def summarise(findings: Findings) -> dict[str, Any]:
    """Returns the content of `result.json`: the best trial, those tied with it, the comparison."""
    return {
        "metric": findings.metric,
        "higher_is_better": findings.higher_is_better,
        "trials": findings.counts,
        "best": asdict(findings.best) if findings.best else None,
        "ties": sorted(findings.ties),
        "behind": {trial: asdict(difference) for trial, difference in findings.differences_from_best.items()},
        "comparison": findings.comparison.to_json() if findings.comparison else None,
        "seconds": findings.seconds,
    }


def _write_table(findings: Findings, folder: Path, say: Callable[[str], None]) -> None:
    """Writes the best trials for TensorBoard, each in its own directory."""
    from jaxtrain.trackers.event_files import write_hparams

    valued = [outcome for outcome in findings.order if outcome.value is not None]
    if len(valued) > TENSORBOARD_TRIALS:
        say(f"TensorBoard shows only the best {TENSORBOARD_TRIALS} of {len(valued)} trials: it reads a file for each")
    for outcome in valued[:TENSORBOARD_TRIALS]:
        metrics = {findings.metric: outcome.value or 0.0}
        write_hparams(folder / f"trial_{outcome.trial:04}", outcome.point, metrics)
