"""The loop of a run: calls of many steps, and what happens between them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import jax

from jaxtrain.core.batches import Batches
from jaxtrain.core.metric import NORMS, SEED, Mean
from jaxtrain.core.state import TrainState
from jaxtrain.core.steps import CallOutput
from jaxtrain.errors import ConfigError
from jaxtrain.parallel.compilation import Compilations
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.trackers.base import Tracker
from jaxtrain.trackers.progress import Progress
from jaxtrain.training.bookkeeping import Bookkeeping, Numbers, to_numbers
from jaxtrain.training.experiment import CAPACITY, Experiment
from jaxtrain.training.runners import Runner
from jaxtrain.training.signals import Interruption

CALL_SECONDS = 0.5  # what a call should last: long enough to cost nothing, short enough to stop and show progress


class PendingCall(NamedTuple):
    """A call on its way: where it begins, its length and batches, and what it will report."""

    begin: int
    steps: int
    batches: Batches
    output: CallOutput

    @property
    def end(self) -> int:
        """The step at which the call ends."""
        return self.begin + self.steps


class NonFinite(Exception):
    """Raised when a call reports that the state left the finite numbers in it."""

    def __init__(self, sent: PendingCall, output: CallOutput) -> None:
        """Keeps the call and what it reported."""
        self.sent, self.output = sent, output


class Ending(NamedTuple):
    """How the loop ended: status and reason as in `Result`."""

    status: str
    reason: str = ""


@dataclass
class Clock:
    """Seconds of this session: since it began, in steps without compilation, and waiting for data."""

    began: float = field(default_factory=time.perf_counter)
    steps: float = 0.0
    data: float = 0.0


@dataclass(kw_only=True)
class TrainingSession:
    """What the phases of a run share. `state` is the newest, at step `at`; each call takes it and gives another.

    `metrics` holds the training metrics of the newest call that was read.
    """

    experiment: Experiment
    runner: Runner
    state: TrainState
    bookkeeping: Bookkeeping
    began_at: int
    at: int
    checkpoints: Checkpoints
    tracker: Tracker
    bar: Progress
    stop: Interruption
    compiled: Compilations
    clock: Clock = field(default_factory=Clock)
    metrics: dict[str, Mean] | None = None
    saved_at: int | None = None

    @property
    def seconds(self) -> float:
        """Seconds of the run so far, over all its sessions."""
        return self.bookkeeping.seconds + time.perf_counter() - self.clock.began


def run_loop(session: TrainingSession) -> Ending:
    """Runs the loop to its end, and turns what ends it early into an ending with the state saved."""
    try:
        ending = _loop(session)
    except NonFinite as left:
        ending = _step_back(session, left.sent, left.output)
    if session.saved_at != session.at:
        _save(session)
    session.checkpoints.wait()
    return ending


def _loop(session: TrainingSession) -> Ending:
    """Sends call after call.

    The order, since each call takes the state of the one before: send call n; read what call n - 1 reports, while n
    runs; where something is due at the end of n, read n too, then evaluate and save its state before n + 1 takes it.
    """
    lengths, sent, pace = session.experiment.lengths, None, 1
    while session.at < lengths.total and session.stop.signal is None and not _out_of_patience(session):
        with _time_steps(session) as took:
            newest = _send(session, min(pace, lengths.next(session.at) - session.at))
            _report(session, sent)
            sent = newest
            if pauses := lengths.pauses_at(session.at):
                _report(session, sent)
                sent = None
        pace = _next_call_steps(newest.steps, took())
        if pauses:
            _evaluate_and_save(session)
    _report(session, sent)
    return _ending(session)


@contextmanager
def _time_steps(session: TrainingSession) -> Iterator[Callable[[], float]]:
    """Adds the seconds of a block, without compilation, to the clock; what it yields returns them afterwards."""
    began, compiled = time.perf_counter(), session.compiled.seconds
    seconds = 0.0
    yield lambda: seconds
    seconds = max(time.perf_counter() - began - (session.compiled.seconds - compiled), 0.0)
    session.clock.steps += seconds


def _ending(session: TrainingSession) -> Ending:
    if session.at == session.experiment.lengths.total:
        return Ending("done")
    if session.stop.signal is not None:
        return Ending("interrupted", f"stopped by signal {session.stop.signal} at step {session.at}")
    assert session.bookkeeping.best is not None
    return Ending(
        "done", f"stopped early at step {session.at}: no better since step {session.bookkeeping.best['step']}"
    )


def _send(session: TrainingSession, steps: int) -> PendingCall:
    """Dispatches the next call; the device works on it while the host goes on."""
    began = time.perf_counter()
    batches = session.experiment.batches(session.at, steps)
    session.clock.data += time.perf_counter() - began
    session.state, output = session.runner.call(session.state, batches, steps)
    session.at += steps
    return PendingCall(session.at - steps, steps, batches, output)


def _next_call_steps(steps: int, seconds: float) -> int:
    """Returns how many steps the next call may take to last about CALL_SECONDS."""
    return max(1, min(CAPACITY, 4 * steps, int(steps * CALL_SECONDS / max(seconds, 1e-6))))


def _out_of_patience(session: TrainingSession) -> bool:
    """Tells whether the last evaluation was so long after the best one that the run stops early."""
    lengths, best = session.experiment.lengths, session.bookkeeping.best
    if lengths.patience is None or best is None or session.at % lengths.eval:
        return False
    return session.at - best["step"] >= lengths.patience


def _report(session: TrainingSession, sent: PendingCall | None) -> None:
    """Waits for a call and reads what it reports; where a row is due, the training metrics are written."""
    if sent is None:
        return
    session.state, output = session.runner.finish_call(session.state, sent.output, sent.batches, sent.steps)
    if not output.live:
        raise NonFinite(sent, output)
    _measure(session, output.metrics, sent.steps)
    newest = jax.tree.map(lambda rows: rows[sent.steps - 1], output.metrics["loss"])
    session.bar.update(sent.end, loss=newest.result())
    if session.experiment.lengths.due(session.experiment.lengths.log, sent.end):
        targets = session.experiment.schedule.targets
        applied = {key: float(value) for key, value in output.values.items() if key.rpartition("/")[2] in targets}
        _write_row(session, sent.end, "train", session.bookkeeping.drain(output.metrics) | applied)


def _measure(session: TrainingSession, metrics: dict[str, Mean], steps: int) -> None:
    """Adds the metrics of a call to the sums; a task of a user's own shows here for the first time what it measures."""
    metric = session.experiment.config["eval"]["metric"]
    if metric not in metrics:
        names = (name for name in metrics if not name.startswith((NORMS, SEED)))
        raise ConfigError("eval.metric", metric, ", ".join(names))
    session.bookkeeping.add(metrics, steps)
    session.metrics = metrics


def _evaluate_and_save(session: TrainingSession) -> None:
    """Evaluates and saves the state where that is due; a state that is the best so far is saved at once."""
    lengths, improved = session.experiment.lengths, False
    if lengths.due(lengths.eval, session.at) and "validation" in session.experiment.dataset.sizes:
        improved = _evaluate(session)
    if improved or lengths.due(lengths.checkpoint, session.at):
        _save(session)


def _evaluate(session: TrainingSession) -> bool:
    """Evaluates the state on the validation split, which may move schedules; returns whether it is the best so far."""
    found = session.runner.evaluate(session.state, "validation")
    metric = session.experiment.config["eval"]["metric"]
    _write_row(session, session.at, "validation", to_numbers(found))
    session.state = session.runner.after_evaluation(session.state, found)
    return session.bookkeeping.update_best(session.at, metric, found[metric])


def _write_row(session: TrainingSession, step: int, split: str, numbers: Numbers) -> None:
    session.bookkeeping.last[split] = numbers
    session.tracker.write(step, split, numbers)


def _save(session: TrainingSession) -> None:
    """Saves the state with what the run remembers, in the background; rows up to this step are written already."""
    bookkeeping, best = session.bookkeeping, session.bookkeeping.best
    if (
        session.metrics and bookkeeping.sums
    ):  # what is remembered last is about this state, whether or not a row was due
        bookkeeping.last["train"] = bookkeeping.numbers(session.metrics)
    bookkeeping.fingerprint = session.experiment.dataset.fingerprint
    saved = bookkeeping.to_json() | {"seconds": session.seconds}
    stored = session.runner.fetch(session.state)
    session.checkpoints.save(session.at, stored, saved, protect=best["step"] if best else None)
    session.saved_at = session.at


def _step_back(session: TrainingSession, sent: PendingCall, output: CallOutput) -> Ending:
    """Goes back to the last finite state of the call, and says what was rejected."""
    state, finite, replayed, reason = session.runner.step_back(session.state, output, sent.batches, sent.steps)
    session.state, session.at = state, sent.begin + finite
    if replayed is not None:
        _measure(session, jax.device_get(replayed.metrics), finite)
    return Ending("diverged", reason)


def throughput(session: TrainingSession) -> dict[str, float]:
    """Speed of this session's steps, without compilation, evaluations and saves; the share of time spent on data."""
    clock, steps = session.clock, session.at - session.began_at
    seconds, batch = max(clock.steps, 1e-9), session.experiment.config["data"]["batch_size"]
    return {
        "examples_per_second": steps * batch * session.experiment.config["train"]["seeds"] / seconds,
        "milliseconds_per_step": 1e3 * seconds / max(steps, 1),
        "compile_seconds": session.compiled.seconds,
        "data_wait_share": min(1.0, clock.data / seconds),
    }
