"""The number of steps of a run whose duration is a time: a rehearsal tells how many fit, before the run begins.

The rehearsal takes real steps on real batches with the run's own programs, on a state that is thrown away. The total
number of steps is an input of these programs, so the run neither compiles again nor depends on the rehearsal.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from jaxtrain.config.durations import MOST_STEPS, seconds_of
from jaxtrain.core.state import TrainState
from jaxtrain.core.steps import StepFunction
from jaxtrain.errors import ConfigError
from jaxtrain.files import remove_tree
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.lengths import Lengths, lengths_of
from jaxtrain.training.loop import next_call_steps
from jaxtrain.training.runners import Runner, make_runner
from jaxtrain.training.signals import Interruption

AIM = 0.985
"""The part of the time that is planned for: a run should end at most 2 % late and at most 5 % early."""

SHARE = 0.05
"""The part of the time for which steps are timed, but LEAST_SECONDS to MOST_SECONDS.

Other work on a machine makes its speed uneven from second to second: a longer timing averages over more of it.
"""

LEAST_SECONDS = 2.0
MOST_SECONDS = 20.0

ENDING_SECONDS = 0.5
"""Seconds of the end of a run beside the test and the last save: closing the trackers, describing the machine."""


@dataclass(frozen=True)
class Pace:
    """Seconds of a step, of an evaluation, of a save as far as the steps wait for it, and of the end of the run."""

    step: float
    evaluation: float
    save: float
    end: float

    def seconds(self, lengths: Lengths) -> float:
        """Returns the seconds of a run of these lengths."""
        evaluations = -(-lengths.total // lengths.eval)
        return lengths.total * self.step + evaluations * self.evaluation + lengths.pauses() * self.save + self.end


def with_timed_duration(
    experiment: Experiment,
    step: StepFunction,
    *,
    began: float,
    stop: Interruption,
    say: Callable[[str], None],
    folder: Path | None = None,
    total: int | None = None,
) -> Experiment:
    """Returns the experiment with its number of steps; as it is, if its duration is no time.

    Args:
        experiment: the experiment.
        step: the training step.
        began: the reading of `time.perf_counter()` at which the time begins.
        stop: a signal shortens the rehearsal to LEAST_SECONDS.
        say: gets the line that says what was fixed.
        folder: where saves are timed, removed afterwards; None: they are not.
        total: the number of steps that an earlier session fixed.

    Raises:
        ConfigError: not even one step fits into the time.
    """
    text = experiment.config["train"]["duration"]
    seconds = seconds_of(text)
    if seconds is None:
        return experiment
    if total is None:
        pace = _rehearse(experiment, step, min(MOST_SECONDS, max(LEAST_SECONDS, SHARE * seconds)), stop, folder)
        spent = time.perf_counter() - began
        total = most_steps(lambda steps: pace.seconds(_lengths(experiment, steps)), AIM * seconds - spent)
        if not total:
            least = (spent + pace.seconds(_lengths(experiment, 1))) / AIM
            expected = f"at least {math.ceil(least):,} seconds, for reading the data, compiling and the first step"
            raise ConfigError("train.duration", text, expected, "Lengthen it")
        say(_line(text, pace, _lengths(experiment, total), spent))
    return replace(experiment, lengths=_lengths(experiment, total))


def most_steps(seconds: Callable[[int], float], limit: float) -> int:
    """Returns the most steps, below MOST_STEPS, whose `seconds` are within a limit; 0 if one step is not."""
    fits = 0
    fails = int(MOST_STEPS)
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if seconds(middle) <= limit:
            fits = middle
        else:
            fails = middle
    return fits


def _lengths(experiment: Experiment, total: int) -> Lengths:
    return lengths_of(experiment.config, experiment.dataset, total)


def _line(text: str, pace: Pace, lengths: Lengths, spent: float) -> str:
    parts = [f"{1e3 * pace.step:.3g} ms a step"]
    parts += [f"{1e3 * pace.evaluation:.3g} ms an evaluation"] if pace.evaluation else []
    parts += [f"{1e3 * pace.save:.3g} ms a save"] if pace.save else []
    return (
        f"{text}: {lengths.total:,} steps, by {', '.join(parts)}, after {spent:.1f} s of reading, compiling and timing"
    )


def _rehearse(
    experiment: Experiment, step: StepFunction, seconds: float, stop: Interruption, folder: Path | None
) -> Pace:
    """Times what a run consists of, on a state of its own; what takes long is timed once, with its compilation."""
    # A run without an end: warm-ups stay at their beginning, so the weights stay finite.
    endless = replace(experiment, lengths=_lengths(experiment, int(MOST_STEPS) - 1))
    runner = make_runner(endless, step)
    sizes = experiment.dataset.sizes
    try:
        state, pace = _time_steps(endless, runner, seconds, stop)
        evaluation, test = (
            _seconds_again(lambda split=split: runner.evaluate(state, split), seconds) if split in sizes else 0.0
            for split in ("validation", "test")
        )
        save, last_save = _time_saves(runner, state, folder, seconds) if folder else (0.0, 0.0)
    finally:
        endless.close()
    return Pace(pace, evaluation, save, test + last_save + ENDING_SECONDS)


def _time_steps(experiment: Experiment, runner: Runner, seconds: float, stop: Interruption) -> tuple[TrainState, float]:
    """Returns the state after the rehearsal and the seconds of a step.

    Calls grow as in a run, and each is read while the next one runs. The clock starts when they no longer grow.
    """
    state = runner.init()
    begin = 0

    def calls(steps: int) -> Iterator[int]:
        """Makes calls without end; yields the steps of each, once the one before it was read."""
        nonlocal state, begin
        jax.block_until_ready(state)  # the last call before these runs still
        pending = None
        while True:
            batches = experiment.batches(begin, steps)
            state, output = runner.call(state, batches, steps)
            begin += steps
            if pending is not None:
                state, _ = runner.finish_call(state, *pending)
            pending = (output, batches, steps)
            yield steps

    steps = _growing(calls, experiment.capacity)
    made = calls(steps)
    jax.block_until_ready(state)
    started = time.perf_counter()
    next(made)
    taken = 0
    while True:
        taken += next(made)
        elapsed = time.perf_counter() - started
        if elapsed >= (LEAST_SECONDS if stop.signal is not None else seconds):
            return state, elapsed / taken


def _growing(calls: Callable[[int], Iterator[int]], capacity: int) -> int:
    """Makes calls of more and more steps; returns the steps at which they no longer grow. The first one compiles."""
    steps = 1
    next(calls(1))
    while True:
        made = calls(steps)
        next(made)
        began = time.perf_counter()
        next(made)
        longer = next_call_steps(steps, time.perf_counter() - began, capacity)
        if longer <= 1.5 * steps:
            return longer
        steps = longer


def _time_saves(runner: Runner, state: TrainState, folder: Path, seconds: float) -> tuple[float, float]:
    """Returns the seconds of a save that steps wait for, and those of a whole save.

    Files are written while steps continue; on a CPU that takes a share of its time from them.
    """
    checkpoints = Checkpoints(folder, keep=1, say=lambda line: None)
    number = 0
    waited = 0.0
    busy = 0.0

    def save() -> None:
        nonlocal number, waited, busy
        began = time.perf_counter()
        checkpoints.save(number, runner.fetch(state), {})
        waited = time.perf_counter() - began
        cpu = time.process_time()
        checkpoints.wait()
        busy = time.process_time() - cpu
        number += 1

    try:
        whole = _seconds_again(save, seconds)
    finally:
        checkpoints.close()
        remove_tree(folder)
    share = busy / (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 0.0
    return waited + share, whole


def _seconds_again(call: Callable[[], object], most: float) -> float:
    """Returns the seconds of a call after a first one, which compiles; those of the first if it took `most` or more."""
    first = _seconds(call)
    return first if first >= most else _seconds(call)


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
