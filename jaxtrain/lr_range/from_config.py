"""The verb `lr_range`: a range test of a config, with its picture, table and files."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.config.defaults import Config, family, flatten
from jaxtrain.config.durations import steps_of
from jaxtrain.config.hparams import PROGRAM, hyperparameters, once_per_run
from jaxtrain.config.identity import changes_numbers, difference
from jaxtrain.errors import ConfigError, nearest
from jaxtrain.lr_range.sweep import LRRangeResult, lr_range_test
from jaxtrain.storage.files import make_directory, read_json, storage_error, write_json
from jaxtrain.trackers.event_files import write_picture
from jaxtrain.trackers.figures import drawn
from jaxtrain.training.experiment import Experiment


def tested(experiment: Experiment, workdir: Path, say: Callable[[str], None]) -> Experiment:
    """Puts the answer of a range test in place: a stored one, else one that is run now and stored.

    For a cyclic schedule the bounds are those between which the loss falls. Where the rules do not agree, the config's
    own rate stays, and that is said.
    """
    section, place = experiment.config["lr_range"], workdir / "lr_range" / "result.json"
    if place.exists() and _is_of(experiment.config, place.parent):
        result = LRRangeResult.from_json(read_json(place))
    else:
        say("range test: trains lanes before the run")
        result = measure(experiment)
        write(result, experiment.config, place.parent)
    target = section["target"]
    if not result.agreed or result.suggestion is None:
        say(f"range test: not agreed, so {target} stays {hyperparameters(experiment.config)[target]:.4g}; see {place}")
        return experiment
    found = answer(result, experiment.config)
    say("range test: " + ", ".join(f"{name} = {value:.4g}" for name, value in found.items()))
    return replace(experiment, suggested=found)


def _is_of(config: Config, folder: Path) -> bool:
    """Tells whether a stored test is one of this config: the verb may have tested another in the same directory."""
    stored = read_json(folder / "config.json")
    asked = {"lr_range": {**stored["lr_range"], "before_training": True}}
    return not difference(changes_numbers(config), changes_numbers({**stored, **asked}))


def answer(result: LRRangeResult, config: Config) -> dict[str, float]:
    """Returns the floats that a result puts in place of the config's: the suggestion, or the bounds of a cycle."""
    assert result.reading is not None
    assert result.suggestion is not None
    low = f"schedule.{result.target}.low"
    cyclic = flatten(config["schedule"]).get(f"{result.target}.name") == "cyclic"
    if cyclic and result.reading.falling:
        bottom, top = result.reading.falling
        return {result.target: top, low: bottom / top}
    return {result.target: result.suggestion}


def check(config: Config) -> None:
    """Refuses, before data are read, a range or a float that cannot be tested."""
    section = config["lr_range"]
    for low, high in (("start", "stop"), ("second_start", "second_stop")):
        if section[low] >= section[high]:
            raise ConfigError(f"lr_range.{high}", section[high], f"a number above lr_range.{low}, {section[low]:g}")
    floats = hyperparameters(config)
    for key in ("target", "second"):
        name = section[key]
        if name is not None and name not in floats:
            raise ConfigError(
                f"lr_range.{key}", name, f"a float of this config: {', '.join(floats)}", nearest(name, floats)
            )
    _check_bounds(config)
    if section["second"] == section["target"]:
        raise ConfigError("lr_range.second", section["second"], "another float than lr_range.target")
    if section["method"] == "ramp":
        _check_ramp(section, config)


def _check_ramp(section: Config, config: Config) -> None:
    """Refuses what a ramp cannot vary: under it every other float stays as it is, and no schedule moves any."""
    if once_per_run(section["target"], config):
        hint = f"{section['target']} is one number for the whole run, which no ramp can move"
        raise ConfigError("lr_range.method", "ramp", "lanes", hint)
    for name in filter(None, (section["target"], section["second"])):
        if name.startswith("schedule."):
            hint = f"a ramp takes the schedule's place, so {name} changes nothing"
            raise ConfigError("lr_range.method", "ramp", "lanes", hint)


def _check_bounds(config: Config) -> None:
    """Refuses an end of a range that the knob itself does not accept."""
    section = config["lr_range"]
    for key, ends in (("target", ("start", "stop")), ("second", ("second_start", "second_stop"))):
        owner, _, knob = (section[key] or "").partition(".")
        if owner not in PROGRAM:
            continue
        accepts = family(owner).knobs(config[owner]["name"])[knob]
        for end in ends:
            accepts.check(f"lr_range.{end}", section[end])


def measure(experiment: Experiment) -> LRRangeResult:
    """Runs the range test of an experiment's config; nothing of the experiment changes."""
    config, section = experiment.config, experiment.config["lr_range"]
    lengths, epoch = experiment.lengths, experiment.dataset.sizes["train"] / config["data"]["batch_size"]
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
        steps=steps_of(section["steps"], steps_per_epoch=epoch, total=lengths.total),
        judge=experiment.eval_batches("validation") if "validation" in experiment.dataset.sizes else None,
        target=section["target"],
        second=second,
        mesh=experiment.mesh,
        width=config["parallel"]["width"],
    )


def write(result: LRRangeResult, config: Config, folder: Path) -> None:
    """Writes config.json, curve.csv, lr_range.png, the picture for TensorBoard, and at last result.json.

    So a result that is there is whole, and that of the config beside it.
    """
    make_directory(folder)
    try:
        (folder / "result.json").unlink(missing_ok=True)
        write_json(folder / "config.json", config)
        with (folder / "curve.csv").open("w", newline="", encoding="utf-8") as file:
            seeds = [f"loss_seed_{config['seed'] + place}" for place in range(result.losses.shape[1])]
            csv.writer(file).writerows([["rate", "median", *seeds], *_rows(result)])
        picture = drawn(result.plot())
        (folder / "lr_range.png").write_bytes(picture.png)
        if config["track"]["tensorboard"]:
            write_picture(folder, "lr_range", *picture)
    except OSError as error:
        raise storage_error(folder, "written", error) from error
    write_json(folder / "result.json", result.to_json())


def _rows(result: LRRangeResult) -> list[list[Any]]:
    return [
        [rate, middle, *losses]
        for rate, middle, losses in zip(result.rates, result.band[1], result.losses, strict=True)
    ]
