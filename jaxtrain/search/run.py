"""Runs a hyperparameter search, from a resolved config to its report: the function behind the command `search`."""

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from jaxtrain.config.defaults import Config
from jaxtrain.config.identity import digest
from jaxtrain.core.metric import as_loss
from jaxtrain.data import Source, with_given
from jaxtrain.files import exists, make_directory, remove_empty_file
from jaxtrain.parallel.compilation import Compilations, count_compilations
from jaxtrain.search.batch import Batch, Interrupted, Work
from jaxtrain.search.batch_checkpoint import WorkFiles
from jaxtrain.search.budget import store, with_trials
from jaxtrain.search.comparison import compare
from jaxtrain.search.identity import check_config, identity, lock_folder, without_storage
from jaxtrain.search.mlflow_trials import mirror_search, search_ending
from jaxtrain.search.pace import affordable_runs
from jaxtrain.search.preparation import Preparation, higher_is_better, prepare
from jaxtrain.search.programs import Programs, plan_line
from jaxtrain.search.report.files import demand_places, write_findings
from jaxtrain.search.results import Findings
from jaxtrain.search.samplers import make_sampler, number_of_trials
from jaxtrain.search.session import Session
from jaxtrain.search.space import Trial, read_space
from jaxtrain.search.study import Ledger, LocalStudy, Study
from jaxtrain.search.trials import NO_VALUE, Outcome
from jaxtrain.storage.ownership import claim, new_id, read_owner
from jaxtrain.storage.seals import read_if_sealed
from jaxtrain.trackers.open import check_trackers
from jaxtrain.trackers.progress import plain_lines, progress
from jaxtrain.training.checks import explain_jax_errors
from jaxtrain.training.signals import Interruption, interruptions

MANY_PROGRAMS = 4  # with more, their compilation is announced, since the estimated duration is known only after it


@dataclass(frozen=True)
class SearchResult:
    """Status and findings of a search.

    status: "done", "undefined" (no trial has a value, and `eval.metric` was undefined in one), "diverged" (all trials
    did) or "interrupted" (by `signal`).
    """

    status: str
    findings: Findings
    folder: Path
    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 0 done, 2 undefined, 4 all trials diverged, 128 + the signal if interrupted."""
        return {"done": 0, "undefined": 2, "diverged": 4}.get(self.status, 128 + (self.signal or 0))


def run_search(
    config: Config,
    workdir: str | Path,
    *,
    data: Source | None = None,
    name: str = "",
    quiet: bool = False,
    accept_edited: bool = False,
) -> SearchResult:
    """Searches `search.space` of a resolved config, or resumes the study in `workdir`, and writes its report.

    With `search.storage` this process is one worker of the study in that database. If every trial diverges, the report
    is still written, and the status is "diverged".

    Args:
        config: a resolved config.
        workdir: the directory of the study.
        data: as in `train_and_evaluate`.
        name: of the config, for the report; by default that of the directory.
        quiet: whether to print no progress and no notes.
        accept_edited: whether outcomes that were changed by others are kept, marked as edited, and not trained again.

    Raises:
        ConfigError: the space cannot be searched.
        UsageError: the directory belongs to another study.
        StorageError: a file or the database cannot be read or written.
    """
    began = time.perf_counter()
    config = with_trials(with_given(config, data))
    check_config(config)
    check_trackers(config)
    budget = config["search"]["budget"]
    if budget is None:
        number_of_trials(read_space(config))  # raises for a grid of too many points, before anything is written
    with interruptions(plain_lines(quiet).say) as stop, count_compilations() as compiled, ExitStack() as opened:
        opened.enter_context(explain_jax_errors(config))
        folder = opened.enter_context(lock_folder(Path(workdir), config))
        say = plain_lines(quiet).say
        owner = read_owner(folder, accept_edited=accept_edited)
        programs = Programs(data)
        opened.callback(programs.close)
        timed = functools.partial(_affordable_runs, programs, began, compiled)
        prepared = prepare(config, folder, owner, programs, timed, say)
        config = prepared.config
        demand_places(folder)
        make_directory(folder)
        sealed = owner is None or owner.seals
        ledger = Ledger(folder / "trials.jsonl", say, sealed=sealed, accept_edited=accept_edited)
        opened.callback(remove_empty_file, ledger.path)
        opened.callback(ledger.close)
        study = open_study(prepared, ledger, stop, say)
        opened.callback(study.release)
        run = (owner and owner.id) or new_id()
        store(folder, budget, prepared.trials)
        claim(folder, without_storage(config), run)
        done = len(study.outcomes())
        bar = opened.enter_context(progress(prepared.trials, done, quiet=quiet, description="search", unit="trial"))
        mirror = opened.enter_context(mirror_search(config, folder, Path(workdir), bar.say))
        session = Session(
            name=name or Path(workdir).name or "search",
            config=config,
            space=prepared.space,
            folder=folder,
            run=run,
            study=study,
            programs=programs,
            higher_is_better=prepared.higher_is_better,
            trials=prepared.trials,
            stop=stop,
            compiled=compiled,
            bar=bar,
            mirror=mirror,
            before=_seconds_before(folder, bar.say),
        )
        try:
            run_batches(session)
            result = _finish(session)
            mirror.status = search_ending(folder)
            return result
        except Interrupted:
            session.note_seconds()
            mirror.status = "KILLED"
            return SearchResult("interrupted", session.findings, folder, stop.signal)


def run_batches(session: Session) -> None:
    """Finishes saved batches, then trains new ones until the study is complete.

    Raises Interrupted on a signal, after the batch was saved.
    """
    for files in session.saved_batches():
        _train(session, [session.space.trial(number, point) for number, point in files.points().items()], files)
    while taken := session.study.take():
        ended = {outcome.trial for outcome in session.study.outcomes()}
        trials = [trial for trial in taken if trial.number not in ended]
        _train(session, trials, session.work_files(str(trials[0].number)))
    if session.stop.signal is not None:
        raise Interrupted


def _train(session: Session, trials: Sequence[Trial], files: WorkFiles | None) -> None:
    """Trains a batch of trials, resuming from its files if it was saved, and tells the study the outcomes."""
    batch = session.batch(trials, files)
    work = (files.load(batch) if files else None) or batch.new_work()
    _announce(session, batch, work)
    for ended in batch.run(work):
        session.study.tell(ended)
        session.mirror.wake()
        session.note_seconds()
        _show_rung(session, batch, work, ended)
    if files:
        files.remove()


def _announce(session: Session, batch: Batch, work: Work) -> None:
    """Prints the plan of a batch before it is trained."""
    numbers = [trial.number for trial in batch.trials]
    session.show(len(session.study.outcomes()), len(numbers), None)
    if len(batch.groups) > MANY_PROGRAMS:
        session.bar.say(f"compiling and timing {len(batch.groups)} programs")
    lanes = [(chunk.program, len(chunk.lanes)) for chunk in work.chunks]
    line = plan_line(len(numbers), lanes, batch.seconds(work))
    session.bar.say(f"trials {numbers[0]} to {numbers[-1]} of {session.trials}: {line}")


def _show_rung(session: Session, batch: Batch, work: Work, ended: list[Outcome]) -> None:
    """Updates the progress bar, and prints a line for the rung: trials ended and running, and the best of both."""
    outcomes = session.study.outcomes()
    running = batch.current_values(work)
    values = {outcome.trial: outcome.value for outcome in outcomes} | running
    finite = {number: value for number, value in values.items() if value is not None}
    best = min(finite, key=lambda number: as_loss(finite[number], session.higher_is_better), default=None)
    session.show(len(outcomes), len(running), None if best is None else finite[best])
    lost = [(sum(outcome.status == status for outcome in ended), status) for status in NO_VALUE]
    told = ", ".join(f"{count} {status}" for count, status in lost if count)
    without_value = f" ({told})" if told else ""
    leader = "" if best is None else f"; best {finite[best]:.4g} (trial {best})"
    session.bar.say(f"rung {work.rung}: {len(ended)} trials ended{without_value}, {len(running)} continue{leader}")


def _affordable_runs(programs: Programs, began: float, compiled: Compilations, config: Config, seconds: float) -> float:
    direction = higher_is_better(programs.experiment(config))
    return affordable_runs(
        config, programs, higher_is_better=direction, seconds=seconds, began=began, compiled=compiled
    )


def _finish(session: Session) -> SearchResult:
    """Compares the best trial with the config's own values, and writes the report."""
    findings = session.findings
    if findings.best is not None and session.config["search"]["compare_seeds"]:
        findings = replace(findings, comparison=compare(session, findings.best))
    session.programs.close()
    write_findings(findings, session.folder, session.bar.say)
    session.note_seconds()
    return SearchResult(findings.status, findings, session.folder)


def _seconds_before(folder: Path, say: Callable[[str], None]) -> float:
    """Returns the duration of the earlier sessions; of one that was killed, only up to its last note is known."""
    path = folder / "seconds.json"
    noted = read_if_sealed(path, say, ("seconds",)) if exists(path) else None
    return float(noted["seconds"]) if noted else 0.0


def open_study(prepared: Preparation, ledger: Ledger, stop: Interruption, say: Callable[[str], None]) -> Study:
    """Opens the study of a config: a local one, or the one in the database `search.storage`."""
    space = prepared.space
    section = prepared.config["search"]
    if section["storage"] is None:
        sampler = make_sampler(space, prepared.higher_is_better)
        return LocalStudy(space, sampler, ledger, prepared.trials, section["batch"])
    from jaxtrain.search.shared.study import SharedStudy

    return SharedStudy(
        space,
        ledger,
        url=section["storage"],
        name=section["study"] or f"jaxtrain-{digest(space.config)}",
        identity=identity(space.config),
        higher_is_better=prepared.higher_is_better,
        trials=prepared.trials,
        batch=_batch_of_whole_devices(section["batch"]),
        stop=stop,
        say=say,
    )


def _batch_of_whole_devices(batch: int) -> int:
    """Rounds the batch size of a shared study up to a multiple of this machine's devices, so that none is idle."""
    devices = len(jax.local_devices())
    return -(-batch // devices) * devices
