"""Range test of a config: checks, the run, its files, and the suggestion for the training run that follows."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.config.defaults import Config, family, flatten
from jaxtrain.config.durations import MOST_STEPS, steps_of
from jaxtrain.config.hparams import hyperparameters, once_per_run
from jaxtrain.config.identity import changes_numbers, difference
from jaxtrain.config.section_traits import PROGRAM
from jaxtrain.config.seeds import check_seeds
from jaxtrain.errors import ConfigError, nearest, one_of
from jaxtrain.files import (
    demand_writable,
    exists,
    make_directory,
    read_json,
    remove,
    write_bytes,
    write_json,
    write_text,
)
from jaxtrain.lr_range.sweep import LRRangeResult, lr_range_test
from jaxtrain.storage.seals import read_if_sealed, write_sealed
from jaxtrain.trackers.event_files import write_picture
from jaxtrain.trackers.figures import render
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.size_checks import check_lanes


def apply_suggestion(experiment: Experiment, workdir: Path, say: Callable[[str], None]) -> Experiment:
    """Sets the floats that a range test suggests; the test is read from `workdir`, or run now and stored there.

    A cyclic schedule gets the bounds between which the loss falls. If the rules do not agree, the config's own rate
    stays, and a message says so.
    """
    target = experiment.config["lr_range"]["target"]
    path = workdir / "lr_range" / "result.json"
    stored = read_if_sealed(path, say) if exists(path) and _is_of_config(path.parent, experiment.config) else None
    if stored is not None:
        result = LRRangeResult.from_json(stored)
    else:
        say("range test: trains lanes before the run")
        demand_places(path.parent)
        result = run_range_test(experiment)
        write(result, experiment.config, path.parent)
    if not result.agreed or result.suggestion is None:
        rate = hyperparameters(experiment.config)[target]
        say(f"range test: the rules disagree, so {target} stays {rate:.4g}; see {path}")
        return experiment
    suggested = suggested_floats(result, experiment.config)
    say("range test: " + ", ".join(f"{name} = {value:.4g}" for name, value in suggested.items()))
    return replace(experiment, suggested=suggested)


def _is_of_config(folder: Path, config: Config) -> bool:
    """Tells whether the test stored in a folder is of this config; the command may have tested another one there."""
    stored = read_json(folder / "config.json")
    section = {"lr_range": {**stored["lr_range"], "before_training": True}}
    return not difference(changes_numbers(config), changes_numbers({**stored, **section}))


def suggested_floats(result: LRRangeResult, config: Config) -> dict[str, float]:
    """Returns the suggested floats, full name -> value: the suggestion, or the bounds of a cyclic schedule."""
    assert result.reading is not None
    assert result.suggestion is not None
    low = f"schedule.{result.target}.low"
    cyclic = flatten(config["schedule"]).get(f"{result.target}.name") == "cyclic"
    if cyclic and result.reading.falling:
        bottom, top = result.reading.falling
        return {result.target: top, low: bottom / top}
    return {result.target: result.suggestion}


def check(config: Config) -> None:
    """Raises ConfigError, before data are read, for a range or a float that cannot be tested."""
    if config["checkpoint"]["continue_from"] is not None:
        expected = "None in a range test, whose lanes start from new weights"
        raise ConfigError("checkpoint.continue_from", config["checkpoint"]["continue_from"], expected)
    section = config["lr_range"]
    for low, high in (("start", "stop"), ("second_start", "second_stop")):
        if section[low] >= section[high]:
            raise ConfigError(f"lr_range.{high}", section[high], f"a number above lr_range.{low}, {section[low]:g}")
    check_seeds(config, "lr_range.seeds")
    floats = hyperparameters(config)
    for key in ("target", "second"):
        name = section[key]
        if name is not None and name not in floats:
            raise ConfigError(f"lr_range.{key}", name, one_of(floats), nearest(name, floats))
    _check_bounds(config)
    if section["second"] == section["target"]:
        raise ConfigError("lr_range.second", section["second"], "another float than lr_range.target")
    if section["method"] == "ramp":
        _check_ramp(section, config)


def _check_ramp(section: Config, config: Config) -> None:
    """Raises ConfigError for a float that a ramp cannot vary: it replaces the schedule within a single run."""
    if once_per_run(section["target"], config):
        hint = f"Take lanes: {section['target']} is one number for the whole run, which no ramp can change"
        raise ConfigError("lr_range.method", "ramp", "'lanes'", hint)
    for name in filter(None, (section["target"], section["second"])):
        if name.startswith("schedule."):
            hint = f"Take lanes: a ramp replaces the schedule, so {name} changes nothing"
            raise ConfigError("lr_range.method", "ramp", "'lanes'", hint)


def _check_bounds(config: Config) -> None:
    """Raises ConfigError for an end of a range outside of the bounds of the knob itself."""
    section = config["lr_range"]
    for key, ends in (("target", ("start", "stop")), ("second", ("second_start", "second_stop"))):
        owner, _, knob = (section[key] or "").partition(".")
        if owner not in PROGRAM:
            continue
        schema = family(owner).knobs(config[owner]["name"])[knob]
        for end in ends:
            schema.check(f"lr_range.{end}", section[end])


def run_range_test(experiment: Experiment) -> LRRangeResult:
    """Runs the range test of an experiment's config; the experiment stays unchanged."""
    config = experiment.config
    section = config["lr_range"]
    steps_per_epoch = experiment.dataset.sizes["train"] / config["data"]["batch_size"]
    steps = steps_of(section["steps"], steps_per_epoch=steps_per_epoch, total=experiment.lengths.total)
    if steps >= MOST_STEPS:
        raise ConfigError("lr_range.steps", section["steps"], f"fewer than {int(MOST_STEPS):,} steps", "Shorten it")
    counts = {f"lr_range.{name}": section[name] for name in _axes(section)}
    check_lanes(experiment.mesh, experiment.state_shapes(), counts)
    second = None
    if section["second"] is not None:
        values = np.geomspace(section["second_start"], section["second_stop"], section["second_count"])
        second = (section["second"], values)
    return lr_range_test(
        experiment.rules,
        experiment.hparams,
        experiment.batches,
        np.geomspace(section["start"], section["stop"], section["rates"]),
        range(config["seed"], config["seed"] + section["seeds"]),
        method=section["method"],
        steps=steps,
        judge=experiment.eval_batches("validation") if "validation" in experiment.dataset.sizes else None,
        target=section["target"],
        second=second,
        mesh=experiment.mesh,
        width=config["parallel"]["width"],
    )


def _axes(section: Config) -> list[str]:
    """Returns the knobs whose product is the number of lanes; a ramp takes one lane through all rates."""
    return ["rates"] * (section["method"] == "lanes") + ["seeds"] + ["second_count"] * (section["second"] is not None)


def demand_places(folder: Path) -> None:
    """Raises StorageError if a file of the test could not be written, before any rate is trained."""
    demand_writable(*(folder / name for name in ("config.json", "curve.csv", "lr_range.png", "result.json")))


def write(result: LRRangeResult, config: Config, folder: Path) -> None:
    """Writes config.json, curve.csv, lr_range.png, the image for TensorBoard and, last, result.json.

    So where result.json exists, all files are complete and belong to the config.json beside it.
    """
    make_directory(folder)
    remove(folder / "result.json")
    write_json(folder / "config.json", config)
    curve = io.StringIO()
    seeds = [f"loss_seed_{config['seed'] + i}" for i in range(result.losses.shape[1])]
    csv.writer(curve).writerows([["rate", "median", *seeds], *_rows(result)])
    write_text(folder / "curve.csv", curve.getvalue())
    picture = render(result.plot())
    write_bytes(folder / "lr_range.png", picture.png)
    if config["track"]["tensorboard"]:
        write_picture(folder, "lr_range", *picture)
    write_sealed(folder / "result.json", result.to_json())


def _rows(result: LRRangeResult) -> list[list[Any]]:
    return [
        [rate, median, *losses]
        for rate, median, losses in zip(result.rates, result.band[1], result.losses, strict=True)
    ]
