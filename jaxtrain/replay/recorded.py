"""A run as its directory holds it, and what recomputes it: its config, data, program, checkpoints and rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax

from jaxtrain.config.defaults import Config
from jaxtrain.config.durations import seconds_of
from jaxtrain.core.steps import StepFunction, train_step
from jaxtrain.data import Source
from jaxtrain.data.dataset import Dataset
from jaxtrain.errors import StorageError, UsageError, Words, one_of
from jaxtrain.files import exists, read_json
from jaxtrain.lr_range.from_config import apply_suggestion
from jaxtrain.search.space import read_space
from jaxtrain.search.study import read_appended_outcomes
from jaxtrain.search.trials import Outcome
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.storage.environment import describe_environment
from jaxtrain.storage.ownership import Owner, read_owner, saved_config
from jaxtrain.storage.result import Result, read_result
from jaxtrain.trackers.base import Row
from jaxtrain.trackers.jsonl import read_record
from jaxtrain.training.bookkeeping import Bookkeeping
from jaxtrain.training.checks import check_fingerprint, check_preparation
from jaxtrain.training.experiment import Experiment, build
from jaxtrain.training.lengths import lengths_of
from jaxtrain.training.runners import Runner, make_runner
from jaxtrain.training.trained_run import open_checkpoints


@dataclass(frozen=True)
class Recorded:
    """A run of a directory, or a trial of a search, and what recomputes it.

    Attributes:
        workdir: the directory.
        name: the run in words, such as "runs/first" or "trial 3 of runs/study".
        saved: its config.
        experiment: the experiment, on as many devices as the run had where this machine has them.
        runner: its runner.
        step: its training step.
        lane: the index of the seed or fold that is looked at.
        lane_name: "seed 3" or "fold 0" of a run that has several; else empty.
        checkpoints: those of the run; None for a trial.
        rows: (step, split) -> row of metrics.jsonl.
        curve: step -> the value of `eval.metric` on validation, of a trial of one seed.
        result: how the run ended; None if it did not.
        environment: that of the run, empty where the run did not end.
        memory: the bookkeeping of the newest checkpoint.
    """

    workdir: Path
    name: str
    saved: Config
    experiment: Experiment
    runner: Runner
    step: StepFunction = train_step
    lane: int = 0
    lane_name: str = ""
    checkpoints: Checkpoints | None = None
    rows: Mapping[tuple[int, str], Row] = field(default_factory=dict)
    curve: Mapping[int, float] = field(default_factory=dict)
    result: Result | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    memory: Bookkeeping | None = None

    @property
    def config(self) -> Config:
        """The config by which it is recomputed."""
        return self.experiment.config

    @property
    def dataset(self) -> Dataset:
        """The data of the lane that is looked at."""
        folds = self.experiment.dataset.folds
        return folds[self.lane] if folds else self.experiment.dataset

    @property
    def saved_steps(self) -> list[int]:
        """The steps whose states are saved, ascending."""
        return self.checkpoints.steps() if self.checkpoints else []

    @property
    def began(self) -> int:
        """The step at which the run began: 0, or that of the run which it continues."""
        return self.memory.began if self.memory else 0

    @property
    def last(self) -> int:
        """The last step that the run is known to have begun: one that diverged counts, too."""
        if self.checkpoints is None:
            return self.experiment.lengths.total - 1
        if self.result is not None and self.result.status != "interrupted":
            return self.result.step - (self.result.status == "done")
        return max([*self.saved_steps, *(step for step, _ in self.rows), 0])

    @property
    def steps(self) -> int:
        """The number of steps that it is known to have taken."""
        if self.checkpoints is None:
            return self.experiment.lengths.total
        return self.result.step if self.result else self.last

    @property
    def state_steps(self) -> list[int]:
        """The steps of whose states at least the digest is known, ascending."""
        return sorted({*self.saved_steps, *([self.result.step] if self.result else [])})

    @property
    def diverged_at(self) -> int | None:
        """The step that diverged and ended the run."""
        return self.result.step if self.result is not None and self.result.status == "diverged" else None

    @property
    def step_seconds(self) -> float | None:
        """The seconds of a step as the run measured them; None where it did not end."""
        return 1e-3 * self.result.throughput["milliseconds_per_step"] if self.result else None

    @property
    def changes_of_environment(self) -> dict[str, tuple[Any, Any]]:
        """Name -> (value in the run, value now) of versions, devices and commits that are not the same."""
        return differing(self.environment, describe_environment()) if self.environment else {}

    def close(self) -> None:
        """Ends the threads that read ahead."""
        self.experiment.close()


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns name -> (value of one, value of the other) where two environments differ, the data aside."""
    flat = [{**own, **own.get("packages", {})} for own in (one, other)]
    names = [name for name in flat[0] if name not in ("packages", "data_fingerprint", "host")]
    return {name: (flat[0][name], flat[1].get(name)) for name in names if flat[0][name] != flat[1].get(name)}


def open_recorded(
    workdir: str | Path,
    *,
    trial: int | None = None,
    seed: int | None = None,
    fold: int | None = None,
    trust: Sequence[str] = (),
    data: Source | None = None,
    step: StepFunction = train_step,
    say: Callable[[str], None] = lambda line: None,
) -> Recorded:
    """Opens the run of a directory, or a trial of its search.

    Args:
        workdir: the directory.
        trial: the number of a trial; None: the run.
        seed: of a run or a trial of several seeds, the one to look at; None: the first.
        fold: of a run of folds, the one to look at.
        trust: modules whose functions the config of a run that another user made may name.
        data: data that were given in Python.
        step: the training step, if it is one of the user's own.
        say: prints a line.

    Raises:
        UsageError: there is no such run, trial, seed or fold.
        DataError: the data are not those that the run was trained on.
        StorageError: a file of the run cannot be read.
    """
    workdir = Path(workdir)
    if trial is not None:
        return _open_trial(workdir, trial, seed, trust, data, say)
    owner = read_owner(workdir)
    if owner is None:
        hint = "Give a trial of its search by --trial=N" if exists(workdir / "search") else ""
        raise UsageError(str(workdir), Words("a directory without config.json"), "the directory of a run", hint)
    return _open_run(workdir, owner, seed, fold, trust, data, step, say)


def _open_run(
    workdir: Path,
    owner: Owner,
    seed: int | None,
    fold: int | None,
    trust: Sequence[str],
    data: Source | None,
    step: StepFunction,
    say: Callable[[str], None],
) -> Recorded:
    environment = _read_environment(workdir)
    saved = saved_config(workdir, owner, trust)
    config = _on_recorded_devices(saved, environment, say)
    checkpoints = open_checkpoints(workdir, owner)
    newest = checkpoints.newest_memory()
    memory = Bookkeeping(**newest) if newest else None
    result = read_result(workdir, sealed=owner.seals)
    experiment = _with_total(build(config, data=data, folds=True), memory, result)
    if config["lr_range"]["before_training"] and exists(workdir / "lr_range" / "result.json"):
        experiment = apply_suggestion(experiment, workdir, lambda line: None)
    experiment = experiment.tracked
    trained_on = memory.fingerprint if memory else environment.get("data_fingerprint")
    if trained_on is not None:
        check_fingerprint(experiment.dataset, trained_on)
    if memory is not None:
        check_preparation(experiment.dataset, memory.info)
    record = read_record(workdir / "metrics.jsonl", sealed=owner.seals)
    rows = {(line.row["step"], line.row["split"]): line.row for line in record if line.row and line.trusted}
    lane, lane_name = _lane(experiment, seed, fold, workdir)
    return Recorded(
        workdir=workdir,
        name=str(workdir),
        saved=saved,
        experiment=experiment,
        runner=make_runner(experiment, step),
        step=step,
        lane=lane,
        lane_name=lane_name,
        checkpoints=checkpoints,
        rows=rows,
        result=result,
        environment=environment,
        memory=memory,
    )


def _read_environment(workdir: Path) -> dict[str, Any]:
    path = workdir / "environment.json"
    return read_json(path) if exists(path) else {}


def _on_recorded_devices(config: Config, environment: Mapping[str, Any], say: Callable[[str], None]) -> Config:
    """Returns the config on as many devices as the run had; on those that there are, and says it, where they are fewer.

    How rows are split over devices decides in which order they are summed, and so the last digits.
    """
    had = config["parallel"]["mesh"] or len(environment.get("devices", ())) or None
    have = jax.local_device_count()
    if had is not None and had > have:
        say(f"the run had {had} devices, here are {have}: sums over a batch differ in their last digits")
        had = have
    return {**config, "parallel": {**config["parallel"], "mesh": had}}


def _with_total(experiment: Experiment, memory: Bookkeeping | None, result: Result | None) -> Experiment:
    """Returns the experiment of a run whose duration is a time with the number of steps that was fixed for it."""
    if seconds_of(experiment.config["train"]["duration"]) is None:
        return experiment
    total = (memory and memory.total) or (result and result.step)
    if not total:
        got = Words("a duration that is a time, and no checkpoint that says how many steps it was")
        raise StorageError("train.duration", got, "a number of steps", "Restore a checkpoint")
    return replace(experiment, lengths=lengths_of(experiment.config, experiment.dataset, total))


def _lane(experiment: Experiment, seed: int | None, fold: int | None, workdir: Path) -> tuple[int, str]:
    """Returns the index of the lane to look at, and its name; raises UsageError for one that there is not."""
    config = experiment.config
    folds = range(len(experiment.dataset.folds))
    seeds = range(config["seed"], config["seed"] + config["train"]["seeds"])
    for key, number, numbers in (("seed", seed, seeds), ("fold", fold, folds or range(1))):
        if number is not None and number not in numbers:
            raise UsageError(f"--{key}", number, f"{one_of(map(str, numbers))}, the {key}s of {workdir}")
    if folds:
        return fold or 0, f"fold {fold or 0}"
    chosen = seeds.start if seed is None else seed
    return chosen - seeds.start, f"seed {chosen}" if len(seeds) > 1 else ""


def _open_trial(
    workdir: Path,
    number: int,
    seed: int | None,
    trust: Sequence[str],
    data: Source | None,
    say: Callable[[str], None],
) -> Recorded:
    """Opens a trial of a search as the run that it equals: one seed of its config, on one device."""
    config, outcomes = read_search(workdir, trust)
    if number not in outcomes:
        raise UsageError("--trial", number, f"one of the {len(outcomes)} trials of {workdir}")
    outcome = outcomes[number]
    chosen = min(outcome.seeds) if seed is None else seed
    if chosen not in outcome.seeds:
        raise UsageError("--seed", chosen, f"{one_of(map(str, sorted(outcome.seeds)))}, the seeds of the trial")
    trained = {**read_space(config).trial(number, outcome.point).config, "seed": chosen}
    experiment = build({**trained, "parallel": {**trained["parallel"], "mesh": 1}}, data=data)
    if len(outcome.seeds) > 1:
        say(f"the search keeps means over {len(outcome.seeds)} seeds of a trial: nothing is there to compare one with")
    return Recorded(
        workdir=workdir,
        name=f"trial {number} of {workdir}",
        saved=trained,
        experiment=experiment,
        runner=make_runner(experiment, train_step),
        curve={int(at): value for at, value in outcome.curve} if len(outcome.seeds) == 1 else {},
    )


def read_search(workdir: Path, trust: Sequence[str] = ()) -> tuple[Config, dict[int, Outcome]]:
    """Returns the config of a search and the outcomes of its trials, also of one that workers share.

    Raises UsageError where there is none.
    """
    top = workdir / "search"
    folders = [top, *(top / f"worker-{number}" for number in range(_workers(top)))]
    owners = {folder: owner for folder in folders if (owner := read_owner(folder)) is not None}
    if not owners:
        raise UsageError(str(workdir), Words("a directory without a search"), "the directory of a search")
    first = next(iter(owners))
    outcomes: dict[int, Outcome] = {}
    for folder, owner in owners.items():
        read, _ = read_appended_outcomes(folder / "trials.jsonl", 0, sealed=owner.seals)
        outcomes |= {outcome.trial: outcome for outcome in read}
    return saved_config(first, owners[first], trust), dict(sorted(outcomes.items()))


def _workers(top: Path) -> int:
    number = 0
    while exists(top / f"worker-{number}"):
        number += 1
    return number
