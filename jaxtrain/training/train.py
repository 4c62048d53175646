"""Trains a resolved config and writes `result.json`: the function behind the command `train`."""

import importlib
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from jaxtrain.config.defaults import Config
from jaxtrain.config.durations import seconds_of
from jaxtrain.config.identity import from_default
from jaxtrain.config.seeds import lane_count
from jaxtrain.core.metric_names import FOLD, SEED
from jaxtrain.core.state import TrainState
from jaxtrain.core.steps import StepFunction, train_step
from jaxtrain.core.trees import named_leaves, state_digest
from jaxtrain.data import Source, with_given
from jaxtrain.data.dataset import Dataset
from jaxtrain.errors import StorageError, Words
from jaxtrain.files import exists, read_json, write_json
from jaxtrain.parallel.compilation import compiling_beside, count_compilations
from jaxtrain.storage.checkpoints import Checkpoints, ReasonAgainst, no_reason
from jaxtrain.storage.content_checksums import ChecksumFile
from jaxtrain.storage.environment import describe_environment
from jaxtrain.storage.locks import run_lock
from jaxtrain.storage.ownership import Owner, claim, demand_own, new_id, read_owner
from jaxtrain.storage.result import Result, write_result
from jaxtrain.trackers.base import Tracker
from jaxtrain.trackers.jsonl import JsonlTracker
from jaxtrain.trackers.open import check_trackers, open_trackers, send_rest
from jaxtrain.trackers.picture_files import PictureFiles
from jaxtrain.trackers.progress import plain_lines, progress
from jaxtrain.training.bookkeeping import Bookkeeping, Numbers, to_numbers
from jaxtrain.training.checks import check_fingerprint, check_preparation, explain_jax_errors
from jaxtrain.training.continuation import read_continued
from jaxtrain.training.earlier_sessions import EarlierSessions
from jaxtrain.training.experiment import Experiment, build
from jaxtrain.training.host_metrics import check_host_metrics
from jaxtrain.training.intervals import over_lanes
from jaxtrain.training.loop import Clock, Ending, TrainingSession, run_loop, throughput
from jaxtrain.training.memory_plan import demand_memory
from jaxtrain.training.performance import Performance
from jaxtrain.training.pictures import Gallery
from jaxtrain.training.profile import Profile
from jaxtrain.training.runners import Runner, make_runner
from jaxtrain.training.signals import interruptions
from jaxtrain.training.timed_duration import with_timed_duration

RANGE_TEST = "jaxtrain.lr_range.from_config"
"""Imported by name, and only for `lr_range.before_training`: the module belongs to a package above this one."""

ARTIFACTS = ("config.json", "environment.json", "result.json")
"""The files of a run that trackers are told of at its end."""


def train_and_evaluate(
    config: Config,
    workdir: str | Path,
    *,
    data: Source | None = None,
    step: StepFunction = train_step,
    trackers: Sequence[Tracker] = (),
    quiet: bool = False,
    accept_edited: bool = False,
    began: float | None = None,
    profile: int = 0,
    cut: Callable[[Dataset], Dataset] | None = None,
) -> Result:
    """Trains a resolved config in a directory, or resumes the run in it, and tests the best state at the end.

    A run that diverges or is interrupted returns with that status, and its last finite state is saved. Raises
    ConfigError, DataError, StorageError or UsageError.

    Args:
        config: a resolved config.
        workdir: the directory of the run.
        data: data in memory, or any object whose examples are read by rows, in place of those that the config names;
            its settings, such as `data.batch_size`, stay. A run is resumed only with the same data.
        step: the training step, with the signature of `train_step`.
        trackers: trackers in addition to those of the config.
        quiet: whether to print no progress and no notes.
        accept_edited: whether to accept rows and results that others changed; `Result.edited`
            names them. Else the run goes back to the newest checkpoint before the change.
        began: the reading of `time.perf_counter()` at which a duration such as "10 minutes" begins; None: now.
        profile: the number of steps that JAX's profiler traces.
        cut: returns the part of the dataset that the run uses, as in `build`.
    """
    began = time.perf_counter() if began is None else began
    workdir = Path(workdir)
    config = with_given(config, data)
    lines = plain_lines(quiet)
    with interruptions(lines.say) as stop, run_lock(workdir), count_compilations() as compiled, ExitStack() as opened:
        owner = read_owner(workdir, accept_edited=accept_edited)
        demand_own(workdir, config, owner)
        earlier = EarlierSessions.read(workdir, owner, accept_edited=accept_edited)
        ended = earlier.result(lines.say)
        if ended is not None and ended.status != "interrupted":
            lines.say(f"{workdir}: this run has already ended at step {ended.step:,}; nothing to do")
            send_rest(config, workdir, owner, lines.say)
            return ended
        check_trackers(config)
        opened.enter_context(explain_jax_errors(config))
        experiment = _build_experiment(config, workdir, lines.say, data, cut).tracked
        with compiling_beside(experiment.lower_init()) if _makes_one_state(config, owner) else nullcontext():
            demand_memory(experiment, step)
        checkpoints, run = _open_checkpoints(workdir, config, owner, lines.say)
        opened.callback(checkpoints.close)
        experiment = with_timed_duration(
            experiment,
            step,
            began=began,
            stop=stop,
            say=lines.say,
            folder=checkpoints.directory / "unfinished-timing",
            total=(checkpoints.newest_memory() or {}).get("total"),
        )
        opened.callback(experiment.close)
        runner = make_runner(experiment, step)
        checksums = ChecksumFile(workdir / "content_checksums.npz", experiment.dataset.checksums)
        checksums.compare()
        state, bookkeeping, resumed = start(experiment, runner, checkpoints, ended, earlier.reason_against)
        if config["track"]["layers"]:
            bookkeeping.layers = tuple(path for path, _ in named_leaves(runner.shapes().params))
        check_host_metrics(config, experiment.dataset, state, runner.evaluate)
        kept = [] if resumed is None else earlier.kept_rows(resumed, bookkeeping)
        rows = JsonlTracker(workdir / "metrics.jsonl", kept)
        claim(workdir, config, run)
        write_json(workdir / "config_difference.json", from_default(config))
        first = bookkeeping.began if resumed is None else resumed
        total = experiment.lengths.total
        if resumed is not None:
            lines.say(f"resuming at step {resumed:,} of {total:,}")
        bar = opened.enter_context(progress(total, first, quiet=quiet, description=workdir.name))
        checkpoints.say = bar.say
        pictures = PictureFiles(workdir, resumed)
        tracker = opened.enter_context(open_trackers(config, workdir, rows, trackers, bar, total, pictures))
        gallery = Gallery(experiment, runner, tracker, pictures, bar.say)
        opened.callback(gallery.close)
        trace = Profile(workdir, profile, bar.say)
        opened.callback(trace.close)
        performance = Performance(experiment)
        if config["track"]["performance"]:
            gallery.later("FLOP of a step", performance.count)
        session = TrainingSession(
            experiment=experiment,
            runner=runner,
            state=state,
            bookkeeping=bookkeeping,
            began_at=first,
            at=first,
            saved_at=resumed,
            checkpoints=checkpoints,
            checksums=checksums,
            rows=rows,
            tracker=tracker,
            gallery=gallery,
            performance=performance,
            profile=trace,
            bar=bar,
            stop=stop,
            compiled=compiled,
            clock=_clock(config, began if resumed is None else None),
        )
        return _finish(session, run_loop(session), workdir)


def _makes_one_state(config: Config, owner: Owner | None) -> bool:
    """Tells whether the run starts from an initial state of one lane, as most new runs do."""
    return owner is None and lane_count(config) == 1 and config["checkpoint"]["continue_from"] is None


def _build_experiment(
    config: Config,
    workdir: Path,
    say: Callable[[str], None],
    data: Source | None,
    cut: Callable[[Dataset], Dataset] | None,
) -> Experiment:
    """Builds the experiment, with the suggested learning rate if `lr_range.before_training` is set."""
    if not config["lr_range"]["before_training"]:
        return build(config, data=data, folds=True, cut=cut)
    range_test = importlib.import_module(RANGE_TEST)
    range_test.check(config)
    return range_test.apply_suggestion(build(config, data=data), workdir, say)


def _open_checkpoints(
    workdir: Path, config: Config, owner: Owner | None, say: Callable[[str], None]
) -> tuple[Checkpoints, str]:
    """Opens the checkpoints of the run that owns the directory, or of a new run; returns them and the run's id."""
    checkpoints = Checkpoints(workdir / "checkpoints", keep=config["checkpoint"]["keep"], say=say)
    if owner is not None and not owner.seals:
        say(f"{workdir}: a directory of an earlier version; it is taken as it is, and sealed from now on")
    checkpoints.run = run = (owner and owner.id) or checkpoints.newest_run() or new_id()
    return checkpoints, run


def start(
    experiment: Experiment,
    runner: Runner,
    checkpoints: Checkpoints,
    ended: Result | None = None,
    reason_against: ReasonAgainst = no_reason,
) -> tuple[TrainState, Bookkeeping, int | None]:
    """Restores the newest checkpoint, or makes the state of a new run: an initial one, or that which it continues.

    Args:
        experiment: the experiment.
        runner: its runner.
        checkpoints: the checkpoints of the run.
        ended: the result of the previous session; None if there was none or it was killed.
        reason_against: returns why a checkpoint cannot be used.

    Returns:
        The state, the bookkeeping, and the step of the checkpoint (None for a new run).

    Raises:
        DataError: the data are not those that the run was trained on.
        StorageError: there is no checkpoint although an earlier session ended.
    """
    restored = checkpoints.restore(runner.shapes(), reason_against=reason_against) if checkpoints.exist() else None
    if restored is None:
        if ended is not None and not checkpoints.exist():
            expected = f"one, since the run was {ended.status} at step {ended.step:,}"
            hint = "Restore it from a copy, or give another directory to start afresh"
            raise StorageError(str(checkpoints.directory), Words("no checkpoint"), expected, hint)
        info = experiment.dataset.info.to_json()
        folds = [fold.info.to_json() for fold in experiment.dataset.folds]
        result = experiment.config["checkpoint"]["result"]
        total = experiment.lengths.total
        if experiment.config["checkpoint"]["continue_from"] is not None:
            continued = read_continued(experiment, runner.shapes())
            checkpoints.say(continued.line)
            bookkeeping = Bookkeeping(info, began=continued.step, total=total, result=result, folds=folds)
            return runner.place(continued.state), bookkeeping, None
        return runner.init(), Bookkeeping(info, total=total, result=result, folds=folds), None
    bookkeeping = Bookkeeping(**restored.memory)
    check_fingerprint(experiment.dataset, bookkeeping.fingerprint)
    check_preparation(experiment.dataset, bookkeeping.info)
    return runner.place(restored.state), bookkeeping, restored.step


def _clock(config: Config, began: float | None) -> Clock:
    """Returns the clock of a session; that of a new run whose duration is a time began with it."""
    return Clock() if began is None or seconds_of(config["train"]["duration"]) is None else Clock(began)


def _finish(session: TrainingSession, ending: Ending, workdir: Path) -> Result:
    """Tests the state that is the result if the run is done, and writes the result and the environment."""
    dataset = session.experiment.dataset
    test = _look_at_result(session) if ending.status == "done" else None
    result = Result(
        status=ending.status,
        step=session.at,
        seconds=session.seconds,
        last={"train": {"loss": math.nan}} | session.bookkeeping.last,  # no loss before the first step
        best=session.bookkeeping.best,
        test=test,
        state_digest=state_digest(session.runner.fetch(session.state)),
        throughput=throughput(session),
        reason=ending.reason,
        signal=session.stop.signal if ending.status == "interrupted" else None,
        seeds=_over_lanes(session, test, SEED),
        folds=_over_lanes(session, test, FOLD),
        edited=session.bookkeeping.edited,
        skipped=session.bookkeeping.skipped,
    )
    session.checksums.write()
    _report_bad_examples(session, workdir / "skipped_examples.json")
    write_json(workdir / "environment.json", describe_environment() | {"data_fingerprint": dataset.fingerprint})
    write_result(workdir, result)
    for name in ARTIFACTS:
        session.tracker.artifact(workdir / name)
    return result


def _report_bad_examples(session: TrainingSession, path: Path) -> None:
    """Says how many examples could not be read, and writes the errors, with those of earlier sessions."""
    bad = session.experiment.dataset.bad
    messages = bad.messages if bad else []
    if not messages:
        return
    earlier = read_json(path) if exists(path) else []
    write_json(path, sorted({*messages, *map(str, earlier)}))
    session.bar.say(f"passed over {len(messages):,} examples that cannot be read, such as {messages[0]}; see {path}")


def _over_lanes(session: TrainingSession, test: Numbers | None, kind: str) -> dict[str, Any] | None:
    """Returns split -> name -> statistics over seeds or folds, and those that diverged; None where there are none."""
    splits = session.bookkeeping.last | ({"test": test} if test else {})
    statistics = {split: spread for split, numbers in splits.items() if (spread := over_lanes(numbers, kind))}
    return {**statistics, "diverged": session.runner.diverged_lanes(session.state)} if statistics else None


def _look_at_result(session: TrainingSession) -> Numbers | None:
    """Tests the state that is the run's result on the test split, if there is one, and shows what it predicts."""
    has_test = "test" in session.experiment.dataset.sizes
    if not has_test and session.experiment.config["track"]["pictures"] is None:
        return None
    state, step = _result_state(session)
    session.gallery.finish(state, step)
    return _test(session, state, step) if has_test else None


def _result_state(session: TrainingSession) -> tuple[TrainState, int]:
    """Returns the state that is the run's result, and its step: the best one, or the last."""
    best_step = session.bookkeeping.best_step
    if best_step is None or best_step == session.at:
        return session.state, session.at
    try:
        restored = session.checkpoints.restore(session.runner.shapes(), best_step)
    except StorageError as error:
        session.bar.say(f"{error}. Testing the last state instead of the best")
        return session.state, session.at
    assert restored is not None
    return session.runner.place(restored.state), best_step


def _test(session: TrainingSession, state: TrainState, step: int) -> Numbers:
    """Evaluates the test split once."""
    numbers = to_numbers(session.runner.evaluate(state, "test"), session.bookkeeping.names)
    session.tracker.write(step, "test", numbers)
    return {"step": step, **numbers}
