"""The training loop of a run: compiled calls of many steps, with logging, evaluation and checkpoints between them."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax

from jaxtrain.config.section_traits import PROGRAM
from jaxtrain.config.seeds import lane_count
from jaxtrain.core.batches import Batches
from jaxtrain.core.metric import Mean
from jaxtrain.core.metric_names import DIAGNOSTICS
from jaxtrain.core.state import TrainState
from jaxtrain.core.steps import CallOutput
from jaxtrain.errors import ConfigError, Words, message, one_of
from jaxtrain.parallel.compilation import Compilations
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.storage.content_checksums import ChecksumFile
from jaxtrain.trackers.base import ROW_KEYS, Tracker
from jaxtrain.trackers.jsonl import JsonlTracker
from jaxtrain.trackers.progress import Progress
from jaxtrain.training.bookkeeping import Bookkeeping, Numbers, to_numbers
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.performance import Performance, Reading
from jaxtrain.training.pictures import Gallery
from jaxtrain.training.profile import Profile
from jaxtrain.training.runners import Runner
from jaxtrain.training.signals import Interruption
from jaxtrain.training.skipped import find_skipped, line_of

CALL_SECONDS = 0.5  # target duration of a call: long enough to amortize dispatch, short enough to react to signals


class PendingCall(NamedTuple):
    """A dispatched call whose output has not been read: its first step, length, batches and output."""

    begin: int
    steps: int
    batches: Batches
    output: CallOutput

    @property
    def end(self) -> int:
        """The step at which the call ends."""
        return self.begin + self.steps


class NonFinite(Exception):
    """Raised when a call reports a state or a loss that is not finite."""

    def __init__(self, call: PendingCall, output: CallOutput) -> None:
        """Keeps the call and its output on the host."""
        self.call = call
        self.output = output


class Ending(NamedTuple):
    """Status and reason with which the loop ended, as in `Result`."""

    status: str
    reason: str = ""


@dataclass
class Clock:
    """Timing of this session, in seconds: its start, the time in steps without compilation, and waiting for data."""

    began: float = field(default_factory=time.perf_counter)
    steps: float = 0.0
    data: float = 0.0


@dataclass(kw_only=True)
class TrainingSession:
    """State shared by the phases of one session, the time from the start or resumption of a run to its stop.

    Attributes:
        state: the newest state, at step `at`; each call donates it and returns another.
        began_at: the step at which this session began.
        rows: the tracker of metrics.jsonl, to which `tracker` writes first.
        metrics: the training metrics of the last call that was read.
        gradients: samples of the gradients of its last step, where histograms of them are shown.
        saved_at: the step of the last checkpoint.
    """

    experiment: Experiment
    runner: Runner
    state: TrainState
    bookkeeping: Bookkeeping
    began_at: int
    at: int
    checkpoints: Checkpoints
    checksums: ChecksumFile
    rows: JsonlTracker
    tracker: Tracker
    gallery: Gallery
    performance: Performance
    profile: Profile
    bar: Progress
    stop: Interruption
    compiled: Compilations
    clock: Clock = field(default_factory=Clock)
    metrics: dict[str, Mean] | None = None
    gradients: Any = None
    saved_at: int | None = None

    @property
    def seconds(self) -> float:
        """Duration of the run so far, over all its sessions."""
        return self.bookkeeping.seconds + time.perf_counter() - self.clock.began


def run_loop(session: TrainingSession) -> Ending:
    """Trains until the run is done, interrupted or diverged, and saves the last finite state."""
    if session.saved_at is None and session.at > 0:  # from here on the run does without the one that it continues
        _save(session)
    session.gallery.begin(session.state, session.at)
    try:
        ending = _loop(session)
    except NonFinite as diverged:
        ending = _step_back(session, diverged.call, diverged.output)
    if session.saved_at != session.at:
        _save(session)
    session.checkpoints.wait()
    return ending


def _loop(session: TrainingSession) -> Ending:
    """Dispatches calls until the run ends.

    Order of operations: dispatch call n; read the output of call n - 1 while n runs. Where an evaluation or a
    checkpoint is due after n, read n too, then evaluate and save its state before call n + 1 donates it.
    """
    lengths = session.experiment.lengths
    pending = None
    max_steps = 1
    while session.at < lengths.total and session.stop.signal is None and not _out_of_patience(session):
        with _time_steps(session) as elapsed:
            session.profile.begin(session.at > session.began_at)
            most = session.profile.limit(max_steps)
            newest = _dispatch(session, min(most, lengths.next(session.at) - session.at))
            session.profile.end(newest.steps, newest.output)
            _read_output(session, pending)
            pending = newest
            if pauses := lengths.pauses_at(session.at):
                _read_output(session, pending)
                pending = None
        max_steps = next_call_steps(newest.steps, elapsed(), session.experiment.capacity)
        _record_performance(session, newest.end if pauses else newest.begin)
        if pauses:
            _evaluate_and_save(session)
    _read_output(session, pending)
    return _ending(session)


@contextmanager
def _time_steps(session: TrainingSession) -> Iterator[Callable[[], float]]:
    """Adds the duration of a block, without compilation, to the clock; yields a function that returns it afterwards."""
    began = time.perf_counter()
    compilation_before = session.compiled.seconds
    seconds = 0.0
    yield lambda: seconds
    seconds = max(time.perf_counter() - began - (session.compiled.seconds - compilation_before), 0.0)
    session.clock.steps += seconds


def _ending(session: TrainingSession) -> Ending:
    best = session.bookkeeping.best
    undefined = ""
    if best is None and "validation" in session.bookkeeping.last:
        metric = session.experiment.config["eval"]["metric"]
        undefined = f"{metric} was undefined at every evaluation, so no state is the best"
    if session.at == session.experiment.lengths.total:
        return Ending("done", undefined)
    if session.stop.signal is not None:
        return Ending("interrupted", f"stopped by signal {session.stop.signal} at step {session.at}")
    reason = undefined or f"no better since step {_best_or_first(session)}"
    return Ending("done", f"stopped early at step {session.at}: {reason}")


def _dispatch(session: TrainingSession, steps: int) -> PendingCall:
    """Dispatches the next call; the device runs it while the host continues."""
    began = time.perf_counter()
    batches = session.experiment.batches(session.at, steps)
    session.clock.data += time.perf_counter() - began
    session.state, output = session.runner.call(session.state, batches, steps)
    session.at += steps
    return PendingCall(session.at - steps, steps, batches, output)


def next_call_steps(steps: int, seconds: float, capacity: int) -> int:
    """Returns the most steps, up to `capacity`, that the next call may take to last about CALL_SECONDS."""
    return max(1, min(capacity, 4 * steps, int(steps * CALL_SECONDS / max(seconds, 1e-6))))


def _out_of_patience(session: TrainingSession) -> bool:
    """Tells whether early stopping is due: the last evaluation is `patience` steps or more after the best one."""
    lengths = session.experiment.lengths
    if lengths.patience is None or "validation" not in session.bookkeeping.last or session.at % lengths.eval:
        return False
    return session.at - _best_or_first(session) >= lengths.patience


def _best_or_first(session: TrainingSession) -> int:
    """Returns the step of the best evaluation, or of the first one while `eval.metric` was undefined at all."""
    best = session.bookkeeping.best
    every = session.experiment.lengths.eval
    return best["step"] if best else (session.bookkeeping.began // every + 1) * every


def _read_output(session: TrainingSession, call: PendingCall | None) -> None:
    """Waits for the output of a call, adds its metrics to the sums, and writes a training row if one is due."""
    if call is None:
        return
    session.state, output = session.runner.finish_call(session.state, call.output, call.batches, call.steps)
    if not output.live:
        raise NonFinite(call, output)
    session.gradients = output.gradients
    _add_metrics(session, output.metrics, call.steps)
    _note_skipped(session, call.begin, output.metrics, call.steps)
    last_loss = jax.tree.map(lambda rows: rows[call.steps - 1], output.metrics["loss"])
    session.bar.update(call.end, loss=last_loss.result())
    if session.experiment.lengths.due(session.experiment.lengths.log, call.end):
        applied = _applied_floats(session, output)
        _write_row(session, call.end, "train", session.bookkeeping.drain(output.metrics) | applied)


def _record_performance(session: TrainingSession, step: int) -> None:
    """Records how fast the steps since the last row were, if those up to this step were read and a row was written.

    A step at which the loop pauses comes twice: at its end, and as the begin of the next call.
    """
    lengths = session.experiment.lengths
    is_new = step > max(session.began_at, session.performance.at) and lengths.due(lengths.log, step)
    if is_new and session.experiment.config["track"]["performance"]:
        reading = Reading(step, session.clock.steps, session.clock.data)
        session.tracker.performance(step, session.performance.read(reading, session.compiled.seconds))


def _applied_floats(session: TrainingSession, output: CallOutput) -> Numbers:
    """Returns the values that the last step applied: every float of the sections of the program, scheduled or not.

    A float whose value depends on the seed is also returned as "seed_3/<name>".
    """
    targets = session.experiment.schedule.targets
    names = {key: key.rpartition("/")[2] for key in output.values}
    applied = [key for key, name in names.items() if name in targets or name.partition(".")[0] in PROGRAM]
    return {key: float(output.values[key]) for key in applied}


def _add_metrics(session: TrainingSession, metrics: dict[str, Mean], steps: int) -> None:
    """Adds the metrics of a call to the sums.

    Raises ConfigError where `eval.metric` is not among them, or one has the name of a key of the rows.
    """
    if clash := metrics.keys() & ROW_KEYS:
        got = Words(f"one called {', '.join(sorted(clash))}")
        raise ConfigError("metrics of the task", got, "other names, since rows have these keys", "Rename it")
    section = session.experiment.config["eval"]
    metric = section["metric"]
    is_on_host = section["higher_is_better"] is not None
    if metric not in metrics and not is_on_host:  # the metrics of a user's own task are known only once it has run
        names = (name for name in metrics if not name.startswith(DIAGNOSTICS))
        raise ConfigError("eval.metric", metric, one_of(names))
    session.bookkeeping.add(metrics, steps)
    session.metrics = metrics


def _note_skipped(session: TrainingSession, begin: int, metrics: dict[str, Mean], steps: int) -> None:
    """Names the batches that a call skipped as spikes, and notes them."""
    for skipped in find_skipped(session.experiment, begin, metrics, steps):
        session.bookkeeping.skipped.append(skipped)
        session.bar.say(line_of(skipped))


def _evaluate_and_save(session: TrainingSession) -> None:
    """Evaluates and saves the state where that is due; the best state so far is always saved."""
    lengths = session.experiment.lengths
    improved = False
    if lengths.due(lengths.eval, session.at) and "validation" in session.experiment.dataset.sizes:
        improved = _evaluate(session)
    session.gallery.visit(session.state, session.at, session.gradients)
    if improved or lengths.due(lengths.checkpoint, session.at):
        _save(session)


def _evaluate(session: TrainingSession) -> bool:
    """Evaluates the validation split, updates plateau schedules, and returns whether the state is the best so far."""
    metrics = session.runner.evaluate(session.state, "validation")
    metric = session.experiment.config["eval"]["metric"]
    if "validation" not in session.bookkeeping.last and math.isnan(metrics[metric].result()):
        session.bar.say(undefined_line(metric, session.at))
    _write_row(session, session.at, "validation", to_numbers(metrics, session.bookkeeping.names))
    session.state = session.runner.after_evaluation(session.state, metrics)
    return session.bookkeeping.update_best(session.at, metric, metrics[metric])


def undefined_line(metric: str, step: int) -> str:
    """Returns the line that says that the metric by which states are chosen is undefined at the first evaluation."""
    expected = "a number, since the best state is chosen by it; until there is one, no evaluation counts as better"
    hint = "Take another eval.metric, or a validation split on which it is defined: roc_auc needs both classes"
    return message("eval.metric", Words(f"nan as {metric!r} of the validation split at step {step}"), expected, hint)


def _write_row(session: TrainingSession, step: int, split: str, numbers: Numbers) -> None:
    session.bookkeeping.last[split] = numbers
    session.tracker.write(step, split, numbers)


def _save(session: TrainingSession) -> None:
    """Saves the state and the bookkeeping in the background; rows up to this step have been written before."""
    bookkeeping = session.bookkeeping
    best = bookkeeping.best
    if session.metrics and bookkeeping.sums:  # the saved training metrics are those of this state, logged or not
        bookkeeping.last["train"] = bookkeeping.numbers(session.metrics)
    bookkeeping.fingerprint = session.experiment.dataset.fingerprint
    bookkeeping.rows = session.rows.mark()
    saved = bookkeeping.to_json() | {"seconds": session.seconds}
    state = session.runner.fetch(session.state)
    session.checkpoints.save(session.at, state, saved, protect=best["step"] if best else None)
    session.checksums.write()
    session.saved_at = session.at


def _step_back(session: TrainingSession, call: PendingCall, output: CallOutput) -> Ending:
    """Restores the last finite state of a call that diverged, and counts the metrics of its finite steps."""
    state, finite_steps, replayed, reason = session.runner.step_back(session.state, output, call.batches, call.steps)
    session.state = state
    session.at = call.begin + finite_steps
    if replayed is not None:
        metrics = jax.device_get(replayed.metrics)
        _add_metrics(session, metrics, finite_steps)
        _note_skipped(session, call.begin, metrics, finite_steps)
    return Ending("diverged", reason)


def throughput(session: TrainingSession) -> dict[str, float]:
    """Returns the speed of this session, without compilation, evaluations and saves, and the share of data waits."""
    clock = session.clock
    steps = session.at - session.began_at
    seconds = max(clock.steps, 1e-9)
    batch = session.experiment.config["data"]["batch_size"]
    return {
        "examples_per_second": steps * batch * lane_count(session.experiment.config) / seconds,
        "milliseconds_per_step": 1e3 * seconds / max(steps, 1),
        "compile_seconds": session.compiled.seconds,
        "data_wait_share": min(1.0, clock.data / seconds),
    }
