"""Range test of a config: checks, the run, its files, and the suggestion for the training run that follows."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxtrain.config.defaults import Config, flatten
from jaxtrain.config.hparams import hyperparameters, once_per_run
from jaxtrain.config.identity import changes_numbers, difference
from jaxtrain.config.resolve import accepts, resolve_config
from jaxtrain.config.seeds import check_seeds
from jaxtrain.core.state import TrainState
from jaxtrain.data import Source, with_given
from jaxtrain.errors import ConfigError, StorageError, nearest, one_of, printable
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
from jaxtrain.lr_range.lengths import describe_budget, lane_lengths
from jaxtrain.lr_range.result import LRRangeResult
from jaxtrain.lr_range.run import sweep_rates
from jaxtrain.lr_range.sweep import CAPACITY, Points, Setup
from jaxtrain.parallel.population import Population
from jaxtrain.storage.locks import run_lock
from jaxtrain.storage.seals import read_if_sealed, write_sealed
from jaxtrain.trackers.event_files import write_picture
from jaxtrain.trackers.figures import render
from jaxtrain.trackers.progress import plain_lines
from jaxtrain.training.checks import check_counted, explain_jax_errors
from jaxtrain.training.experiment import Experiment, build
from jaxtrain.training.fine_tuning import load_initial_weights
from jaxtrain.training.shared_frozen import shares_frozen
from jaxtrain.training.size_checks import check_lanes


def lr_range_test(
    config: Config, workdir: str | Path | None = None, *, data: Source | None = None, quiet: bool = False
) -> LRRangeResult:
    """Runs the range test of a resolved config: `suggestions` are the floats to train with, `plot()` is the picture.

    Progress is printed on standard error, as lines; nothing with `quiet`. With a `workdir`, the result, the curve and
    the picture are written to `lr_range/` in it. If every lane diverged, `status` of the result says so. `data` are as
    in `train_and_evaluate`.

    Raises:
        ConfigError: a range or a float that cannot be tested.
        StorageError: a directory in use, or a file that cannot be written.
    """
    config = with_given(config, data)
    check(config)
    lines = plain_lines(quiet)
    if workdir is None:
        with explain_jax_errors(config):
            return run_range_test(build(config, lanes=True, data=data), lines.say)
    workdir = Path(workdir)
    with run_lock(workdir), explain_jax_errors(config):
        experiment = build(config, lanes=True, data=data)
        demand_places(workdir / "lr_range")
        result = run_range_test(experiment, lines.say, workdir.name)
        write(result, config, workdir / "lr_range")
    return result


def apply_suggestion(experiment: Experiment, workdir: Path, say: Callable[[str], None]) -> Experiment:
    """Sets the floats that a range test suggests; the test is read from `workdir`, or run now and stored there.

    With a second float, the best pair is set; a cyclic schedule gets the bounds between which the loss falls. If the
    suggestion is not reliable, the config's own rate stays, and a message says so.
    """
    target = experiment.config["lr_range"]["target"]
    path = workdir / "lr_range" / "result.json"
    is_stored = exists(path) and _is_of_config(path.parent, experiment.config)
    stored = read_if_sealed(path, say, LRRangeResult.KEYS) if is_stored else None
    if stored is not None:
        result = LRRangeResult.from_json(stored)
    else:
        demand_places(path.parent)
        result = run_range_test(experiment, lambda line: say(f"range test: {line}"), workdir.name)
        write(result, experiment.config, path.parent)
    if not result.reliable:
        rate = hyperparameters(experiment.config)[target]
        say(f"range test: the suggestion is not reliable, so {target} stays {rate:.4g}; see {path}")
        return experiment
    suggested = suggested_floats(result, experiment.config)
    say("range test: " + ", ".join(f"{name} = {value:.4g}" for name, value in suggested.items()))
    return replace(experiment, suggested=suggested)


def _is_of_config(folder: Path, config: Config) -> bool:
    """Tells whether the test stored in a folder is of this config; the command may have tested another one there."""
    try:
        stored = read_json(folder / "config.json")
    except StorageError:  # then it cannot be told
        return False
    if not isinstance(stored, dict) or not isinstance(stored.get("lr_range"), dict):
        return False
    section = {"lr_range": {**stored["lr_range"], "before_training": True}}
    return not difference(changes_numbers(config), changes_numbers({**stored, **section}))


def suggested_floats(result: LRRangeResult, config: Config) -> dict[str, float]:
    """Returns the suggested floats, full name -> value: the suggestions, or the bounds of a cyclic schedule."""
    assert result.reading is not None
    low = f"schedule.{result.target}.low"
    cyclic = flatten(config["schedule"]).get(f"{result.target}.name") == "cyclic"
    if cyclic and result.reading.falling:
        bottom, top = result.reading.falling
        return {**result.suggestions, result.target: top, low: bottom / top}
    return result.suggestions


def check(config: Config) -> None:
    """Raises ConfigError, before data are read, for a range or a float that cannot be tested."""
    if config["checkpoint"]["continue_from"] is not None:
        expected = "None in a range test, whose lanes start from new weights"
        raise ConfigError("checkpoint.continue_from", config["checkpoint"]["continue_from"], expected)
    check_counted(config, "in a range test, which finds the rate for a number of steps")
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
        if name is not None and name.startswith(("loss.", "augment.")):
            expected = "a float that leaves the loss as it is"
            raise ConfigError(
                f"lr_range.{key}", name, expected, "Lanes are compared by the loss, which it would change"
            )
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
        for end in ends if section[key] else ():
            try:
                resolve_config(config, {section[key]: float(section[end])})
            except ConfigError as error:
                raise ConfigError(f"lr_range.{end}", section[end], error.expected, error.hint) from error


def run_range_test(experiment: Experiment, say: Callable[[str], None], name: str = "") -> LRRangeResult:
    """Runs the range test of an experiment's config; the experiment stays unchanged.

    `say` gets lines on its progress; `name` is that of the run, for the title of the picture.
    """
    config = experiment.config
    section = config["lr_range"]
    total = experiment.lengths.total
    steps_per_epoch = experiment.dataset.sizes["train"] / config["data"]["batch_size"]
    lengths = lane_lengths(section["steps"], steps_per_epoch=steps_per_epoch, total=total)
    counts = {f"lr_range.{name}": section[name] for name in _axes(section)}
    points = _points(config)
    share = shares_frozen(experiment, points.seeds)
    check_lanes(experiment.mesh, experiment.state_shapes(), counts, share=share)
    if section["method"] == "lanes":
        values, _, seeds = points.shape
        say(describe_budget(lengths, points.rates, values * seeds, total))
    try:
        result = sweep_rates(_setup(experiment), points, lengths, total, method=section["method"], say=say)
    finally:
        experiment.close()
    return replace(result, description=_describe(experiment, lengths, name))


def _points(config: Config) -> Points:
    section = config["lr_range"]
    second = None
    if section["second"] is not None:
        values = np.geomspace(section["second_start"], section["second_stop"], section["second_count"])
        second = (section["second"], values)
    rates = np.geomspace(section["start"], section["stop"], section["rates"])
    seeds = range(config["seed"], config["seed"] + section["seeds"])
    return Points(section["target"], rates, seeds, second, lambda rate: accepts(config, {section["target"]: rate}))


def _setup(experiment: Experiment) -> Setup:
    """Returns what the lanes of an experiment's range test share, the weights of `checkpoint.init_from` among it."""
    config = experiment.config

    def start(states: TrainState, population: Population) -> TrainState:
        section = config["checkpoint"]
        return load_initial_weights(states, section, experiment.rules, population.spread, lanes=population.padded)

    return Setup(
        rules=experiment.rules._replace(skips_spikes=False),  # rates that are too high show themselves by spikes
        hparams=experiment.hparams,
        batches=experiment.batches,
        judge=experiment.eval_batches("validation") if "validation" in experiment.dataset.sizes else None,
        capacity=min(CAPACITY, experiment.capacity),
        mesh=experiment.mesh,
        width=config["parallel"]["width"],
        start=start,
        share_frozen=shares_frozen(experiment, _points(config).seeds),
    )


def _describe(experiment: Experiment, lengths: Sequence[int], name: str) -> str:
    """Says what was tested, for the title of the picture: run, data, task, split, steps."""
    config = experiment.config
    tested = ", ".join(filter(None, (printable(name), config["data"]["name"], config["task"]["name"])))
    if config["lr_range"]["method"] == "ramp":
        return f"{tested}: training loss of a ramp"
    split = "validation" if "validation" in experiment.dataset.sizes else "training"
    steps = ", ".join(f"{length:,}" for length in lengths)
    return f"{tested}: {split} loss after {steps} steps, for a run of {experiment.lengths.total:,}"


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
    write_text(folder / "curve.csv", _table(result, config["seed"]))
    picture = render(result.plot())
    write_bytes(folder / "lr_range.png", picture.png)
    if config["track"]["tensorboard"]:
        write_picture(folder, "lr_range", *picture)
    write_sealed(folder / "result.json", result.to_json())


def _table(result: LRRangeResult, seed: int) -> str:
    """Returns the losses at the best value of the second float as CSV: one row for each length of lanes and rate."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["steps", "rate", "median", *(f"loss_seed_{seed + i}" for i in range(result.losses.shape[1]))])
    for curve in result.curves:
        writer.writerows(
            [curve.steps, rate, median, *losses]
            for rate, median, losses in zip(curve.rates, curve.median, curve.losses, strict=True)
        )
    return text.getvalue()
