"""A run from a resolved config to `result.json`: the function behind the verb `train`."""

import importlib
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jaxtrain.config.defaults import Config
from jaxtrain.core.state import TrainState
from jaxtrain.core.steps import StepFunction, train_step
from jaxtrain.core.trees import state_digest
from jaxtrain.errors import StorageError
from jaxtrain.parallel.compilation import counted
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.storage.environment import describe_environment
from jaxtrain.storage.files import write_json
from jaxtrain.storage.locks import run_lock
from jaxtrain.storage.ownership import claim, demand_own
from jaxtrain.storage.result import Result, read_result, write_result
from jaxtrain.trackers.base import Tracker
from jaxtrain.trackers.open import open_trackers
from jaxtrain.trackers.progress import plain_lines, progress
from jaxtrain.training.bookkeeping import Bookkeeping, Numbers, to_numbers
from jaxtrain.training.checks import check_fingerprint, explain_traced_floats
from jaxtrain.training.experiment import Experiment, build
from jaxtrain.training.intervals import over_seeds
from jaxtrain.training.loop import Ending, TrainingSession, run_loop, throughput
from jaxtrain.training.runners import Runner, make_runner
from jaxtrain.training.signals import interruptions

RANGE_TEST = "jaxtrain.lr_range.from_config"
"""The module above this package that a run with `lr_range.before_training` starts with, imported by name then alone."""


def train_and_evaluate(
    config: Config,
    workdir: str | Path,
    *,
    step: StepFunction = train_step,
    trackers: Sequence[Tracker] = (),
    quiet: bool = False,
) -> Result:
    """Trains a resolved config in a directory, or resumes what is there, and tests the best state at the end.

    `step` may be a step of your own with the signature of `train_step`; `trackers` mirror the run beside those that
    the config names. Raises ConfigError, DataError, StorageError or UsageError; a run that diverges or is interrupted
    returns with that status and its last finite state saved.
    """
    workdir = Path(workdir)
    with interruptions() as stop, run_lock(workdir), counted() as compiled, ExitStack() as opened:
        demand_own(workdir, config)
        ended = read_result(workdir)
        lines = plain_lines(quiet)
        if ended is not None and ended.status != "interrupted":
            lines.say(f"{workdir} holds this run already, ended at step {ended.step:,}: nothing is left to do")
            return ended
        opened.enter_context(explain_traced_floats(config))
        experiment = _build_experiment(config, workdir, lines.say)
        checkpoints = Checkpoints(workdir / "checkpoints", keep=config["checkpoint"]["keep"], say=lines.say)
        opened.callback(checkpoints.close)
        runner = make_runner(experiment, step)
        state, bookkeeping, resumed = start(experiment, runner, checkpoints, ended)
        claim(workdir, config)
        total = experiment.lengths.total
        if resumed is not None:
            lines.say(f"resumes at step {resumed:,} of {total:,}")
        bar = opened.enter_context(progress(total, resumed or 0, quiet=quiet, description=workdir.name))
        checkpoints.say = bar.say
        session = TrainingSession(
            experiment=experiment,
            runner=runner,
            state=state,
            bookkeeping=bookkeeping,
            began_at=resumed or 0,
            at=resumed or 0,
            saved_at=resumed,
            checkpoints=checkpoints,
            tracker=opened.enter_context(open_trackers(config, workdir, resumed, trackers, bar, total)),
            bar=bar,
            stop=stop,
            compiled=compiled,
        )
        return _finish(session, run_loop(session), workdir)


def _build_experiment(config: Config, workdir: Path, say: Callable[[str], None]) -> Experiment:
    """Builds the experiment, with the answer of a range test in place where the config asks for one."""
    if not config["lr_range"]["before_training"]:
        return build(config)
    range_test = importlib.import_module(RANGE_TEST)
    range_test.check(config)
    return range_test.tested(build(config), workdir, say)


def start(
    experiment: Experiment, runner: Runner, checkpoints: Checkpoints, ended: Result | None = None
) -> tuple[TrainState, Bookkeeping, int | None]:
    """Returns the state to go on from, what the run remembers, and the step it resumes at (None: a fresh run).

    `ended` says how the session before ended, where one did: StorageError when what it saved is gone.
    """
    restored = checkpoints.restore(runner.shapes()) if checkpoints.exist() else None
    if restored is None:
        if ended is not None:
            raise StorageError(
                f"{checkpoints.directory}: holds no checkpoint, though the run was {ended.status} at step "
                f"{ended.step:,}; restore it from a copy, or give another --workdir to start afresh"
            )
        return runner.init(), Bookkeeping(info=experiment.dataset.info.to_json()), None
    bookkeeping = Bookkeeping(**restored.memory)
    check_fingerprint(experiment.dataset, bookkeeping.fingerprint)
    return runner.place(restored.state), bookkeeping, restored.step


def _finish(session: TrainingSession, ending: Ending, workdir: Path) -> Result:
    """Tests the best state where the run came to its end, and writes what it came to."""
    dataset = session.experiment.dataset
    test = _test(session) if ending.status == "done" and "test" in dataset.sizes else None
    result = Result(
        status=ending.status,
        step=session.at,
        seconds=session.seconds,
        last={"train": {"loss": math.nan}} | session.bookkeeping.last,  # before the first step there is no number
        best=session.bookkeeping.best,
        test=test,
        state_digest=state_digest(session.runner.fetch(session.state)),
        throughput=throughput(session),
        reason=ending.reason,
        signal=session.stop.signal if ending.status == "interrupted" else None,
        seeds=_seeds(session, test),
    )
    write_json(workdir / "environment.json", describe_environment() | {"data_fingerprint": dataset.fingerprint})
    write_result(workdir, result)
    return result


def _seeds(session: TrainingSession, test: Numbers | None) -> dict[str, Any] | None:
    """Returns split -> name -> mean, spread and interval over seeds, and who diverged; None for a single run."""
    splits = session.bookkeeping.last | ({"test": test} if test else {})
    found = {split: spread for split, numbers in splits.items() if (spread := over_seeds(numbers))}
    return {**found, "diverged": session.runner.diverged_seeds(session.state)} if found else None


def _test(session: TrainingSession) -> Numbers:
    """Evaluates the test split, once, with the best checkpoint where there is a validation split, else the last."""
    best, state, step = session.bookkeeping.best, session.state, session.at
    if best is not None and best["step"] != session.at:
        try:
            restored = session.checkpoints.restore(session.runner.shapes(), best["step"])
        except StorageError as error:
            session.bar.say(f"{error}. The last state is tested instead of the best")
        else:
            assert restored is not None
            state, step = session.runner.place(restored.state), best["step"]
    numbers = to_numbers(session.runner.evaluate(state, "test"))
    session.tracker.write(step, "test", numbers)
    return {"step": step, **numbers}
