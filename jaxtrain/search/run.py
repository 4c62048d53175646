"""The verb `search`: a study from its config to its report."""

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from jaxtrain.config.defaults import Config
from jaxtrain.config.hparams import hyperparameters
from jaxtrain.config.identity import digest
from jaxtrain.core.steps import eval_step
from jaxtrain.errors import ConfigError, JaxtrainError, unknown
from jaxtrain.parallel.compilation import counted
from jaxtrain.search.batch import Batch, Interrupted, Work
from jaxtrain.search.batch_checkpoint import WorkFiles
from jaxtrain.search.comparison import compared
from jaxtrain.search.halving import rung_fractions
from jaxtrain.search.identity import check, demand_same, identity, locked, without_storage
from jaxtrain.search.programs import Programs, plan_line
from jaxtrain.search.report.files import write_findings
from jaxtrain.search.results import Findings
from jaxtrain.search.samplers import make_sampler, number_of_trials
from jaxtrain.search.session import Session
from jaxtrain.search.space import Space, Trial, read_space
from jaxtrain.search.study import Ledger, LocalStudy, Study
from jaxtrain.search.trials import Outcome
from jaxtrain.storage.files import make_directory, read_json, write_json
from jaxtrain.trackers.progress import plain_lines, progress
from jaxtrain.training.checks import explain_traced_floats
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.signals import Interruption, interruptions

MANY_PROGRAMS = 4  # beyond, the plan is worth a line before it can say how long it takes


@dataclass(frozen=True)
class SearchResult:
    """How a search ended: "done", "diverged" where no trial is left, or "interrupted", and what it found so far."""

    status: str
    findings: Findings
    folder: Path
    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """The command's: 0 done, 4 all diverged, 128 + the signal where one interrupted."""
        return {"done": 0, "diverged": 4}.get(self.status, 128 + (self.signal or 0))


def run_search(config: Config, workdir: str | Path, *, quiet: bool = False) -> SearchResult:
    """Searches `search.space` of a resolved config, or goes on with the study that is there, and writes its report.

    With `search.storage` this process is one worker of the study in that database. Raises ConfigError for a space that
    cannot be searched, UsageError for the folder of another study, StorageError; where every trial diverged the result
    says so, and the report is written all the same.
    """
    check(config)
    space = read_space(config)
    trials = number_of_trials(space)
    with interruptions() as stop, counted() as compiled, ExitStack() as opened:
        opened.enter_context(explain_traced_floats(config))
        folder = opened.enter_context(locked(Path(workdir), config))
        demand_same(folder, config)
        programs = Programs()
        direction = higher_is_better(programs.experiment(config))
        rung_fractions(config["search"], programs.experiment(config))  # raises where there can be none
        _check_static_values(space, programs)
        make_directory(folder)
        ledger = Ledger(folder / "trials.jsonl")
        opened.callback(ledger.close)
        study = open_study(space, direction, ledger, trials, stop, plain_lines(quiet).say)
        opened.callback(study.release)
        write_json(folder / "config.json", without_storage(config))
        done = len(study.outcomes())
        bar = opened.enter_context(progress(trials, done, quiet=quiet, description="search", unit="trial"))
        session = Session(
            config=config,
            space=space,
            folder=folder,
            study=study,
            programs=programs,
            higher_is_better=direction,
            trials=trials,
            stop=stop,
            compiled=compiled,
            bar=bar,
            before=_seconds_before(folder),
        )
        try:
            run_batches(session)
            return _finish(session)
        except Interrupted:
            session.note_seconds()
            return SearchResult("interrupted", session.findings, folder, stop.signal)


def run_batches(session: Session) -> None:
    """Finishes what was killed, then takes batch after batch until the study has no more.

    Interrupted on a signal, with what was trained saved.
    """
    for files in session.saved_batches():
        _train(session, [session.space.trial(number, point) for number, point in files.points().items()], files)
    while taken := session.study.take():
        known = {outcome.trial for outcome in session.study.outcomes()}
        trials = [trial for trial in taken if trial.number not in known]
        _train(session, trials, session.work_files(str(trials[0].number)))
    if session.stop.signal is not None:
        raise Interrupted


def _train(session: Session, trials: Sequence[Trial], files: WorkFiles | None) -> None:
    """Trains a batch of trials, from where it was saved, and tells the study what came of them."""
    batch = session.batch(trials, files)
    work = (files.load(batch) if files else None) or batch.new_work()
    _announce(session, batch, work)
    for ended in batch.run(work):
        session.study.tell(ended)
        session.note_seconds()
        _show_rung(session, batch, work, ended)
    if files:
        files.remove()


def higher_is_better(experiment: Experiment) -> bool:
    """Tells the direction of `eval.metric`, which the metric itself says where it is measured; nothing is run."""
    shapes = experiment.state_shapes()
    # Of two rows: one alone would fit shapes that a batch does not.
    batch = {name: np.repeat(rows, 2, axis=0) for name, rows in experiment.example.items()}
    batch["mask"] = np.ones(2, np.float32)
    metrics = jax.eval_shape(functools.partial(eval_step, rules=experiment.rules), shapes, batch)
    metric = experiment.config["eval"]["metric"]
    if metric not in metrics:
        raise unknown("eval.metric", metric, metrics)
    return metrics[metric].higher_is_better


def _check_static_values(space: Space, programs: Programs) -> None:
    """Traces what each value that shapes a program comes to, so that what cannot be is said before anything runs."""
    for members, dimension, value in space.ends():
        config = space.trial(0, members | {dimension.key: value}).config
        if dimension.key in hyperparameters(config):
            continue
        try:
            experiment = programs.experiment(config)
            experiment.rows(0, 1, 1)  # raises for a batch larger than the data
            higher_is_better(experiment)
        except JaxtrainError as error:
            if isinstance(error, ConfigError) and error.key == dimension.key:
                key = f"search.space.{error.key}"
                raise ConfigError(key, error.given, error.allowed, error.hint) from error
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__
            allowed = "a value that a model can be made of and measured with"
            raise ConfigError(f"search.space.{dimension.key}", value, allowed, reason) from error


def _announce(session: Session, batch: Batch, work: Work) -> None:
    """Says what a batch comes to before it is trained."""
    numbers = [trial.number for trial in batch.trials]
    session.show(len(session.study.outcomes()), len(numbers), None)
    if len(batch.groups) > MANY_PROGRAMS:
        session.bar.say(f"{len(batch.groups)} programs, which are compiled and timed first")
    lanes = [(chunk.program, len(chunk.lanes)) for chunk in work.chunks]
    line = plan_line(len(numbers), lanes, batch.seconds(work))
    session.bar.say(f"trials {numbers[0]} to {numbers[-1]} of {session.trials}: {line}")


def _show_rung(session: Session, batch: Batch, work: Work, ended: list[Outcome]) -> None:
    """Moves the progress, and says a line at a rung: who leads, of those that have ended and those that go on."""
    told, going = session.study.outcomes(), batch.current_values(work)
    values = {outcome.trial: outcome.value for outcome in told} | going
    found = {number: value for number, value in values.items() if value is not None}
    best = (max if session.higher_is_better else min)(found, key=lambda number: found[number], default=None)
    session.show(len(told), len(going), None if best is None else found[best])
    lost = sum(outcome.status == "diverged" for outcome in ended)
    diverged = f" ({lost} diverged)" if lost else ""
    leader = "" if best is None else f"; best {found[best]:.4g}, trial {best}"
    session.bar.say(f"rung {work.rung}: {len(ended)} trials end{diverged}, {len(going)} go on{leader}")


def _finish(session: Session) -> SearchResult:
    """Compares the best with the config's own values, and writes all there is to see."""
    findings = session.findings
    if findings.best is not None and session.config["search"]["compare_seeds"]:
        findings = replace(findings, comparison=compared(session, findings.best))
    write_findings(findings, session.folder, session.bar.say)
    session.note_seconds()
    return SearchResult("done" if findings.best else "diverged", findings, session.folder)


def _seconds_before(folder: Path) -> float:
    """Returns the seconds of the sessions before this one; one that was killed has not said its own."""
    place = folder / "seconds.json"
    found = read_json(place) if place.exists() else 0.0
    return float(found) if isinstance(found, int | float) else 0.0


def open_study(
    space: Space, direction: bool, ledger: Ledger, trials: int, stop: Interruption, say: Callable[[str], None]
) -> Study:
    """Opens the study that the config names: that of this process alone, or the one in a database."""
    section = space.config["search"]
    if section["storage"] is None:
        return LocalStudy(space, make_sampler(space, direction), ledger, trials, section["batch"])
    from jaxtrain.search.shared.study import SharedStudy

    return SharedStudy(
        space,
        ledger,
        url=section["storage"],
        name=section["study"] or f"jaxtrain-{digest(space.config)}",
        identity=identity(space.config),
        higher_is_better=direction,
        trials=trials,
        batch=_batch_of_whole_devices(section["batch"]),
        stop=stop,
        say=say,
    )


def _batch_of_whole_devices(batch: int) -> int:
    """Rounds a batch up so that no device of this machine is idle; a study of one process keeps the config's size."""
    devices = len(jax.local_devices())
    return -(-batch // devices) * devices
