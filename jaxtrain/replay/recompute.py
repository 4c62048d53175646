"""Recomputes a run from a saved state, by its own compiled calls, and compares what the run recorded on the way."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.state import TrainState
from jaxtrain.core.trees import leaf_digests, named_leaves, state_digest, table_digest
from jaxtrain.errors import StorageError, UsageError
from jaxtrain.replay.recorded import Recorded
from jaxtrain.training.bookkeeping import Bookkeeping
from jaxtrain.training.continuation import read_continued
from jaxtrain.training.loop import next_call_steps

LEAST_ANNOUNCED = 5.0
"""Seconds from which the duration of a recomputation is said before it begins."""


CHECK_SECONDS = 60.0
"""Seconds for which a recomputation continues, up to what the run recorded next."""


class Comparison(NamedTuple):
    """A record of the run at a step, beside the same recomputed.

    what: "row", "checkpoint", "evaluation" or "end"; recorded, recomputed: the loss of a row, the metric of an
    evaluation, the beginnings of digests of states; difference: the largest one, 0 where both are equal to the bit;
    where: of states the first leaf that differs, of rows the first number.
    """

    what: str
    step: int
    recorded: float | str | None
    recomputed: float | str | None
    difference: float
    where: str = ""

    @property
    def is_equal(self) -> bool:
        """Tells whether both are equal to the bit."""
        return self.difference == 0


@dataclass
class Course:
    """A run on its way again: the state at step `at`, its sums since the last row, and what was compared so far."""

    run: Recorded
    state: TrainState
    at: int
    bookkeeping: Bookkeeping
    restored: int | None
    comparisons: list[Comparison] = field(default_factory=list)
    diverged: bool = False

    @property
    def is_exact(self) -> bool:
        """Tells whether all that was compared is equal to the bit."""
        return all(comparison.is_equal for comparison in self.comparisons)

    def copy_state(self) -> TrainState:
        """Returns a copy of the state, which later calls do not take."""
        return jax.tree.map(jnp.copy, self.state)

    def fork(self) -> "Course":
        """Returns a copy, which continues by itself."""
        return replace(
            self, state=self.copy_state(), bookkeeping=copy.deepcopy(self.bookkeeping), comparisons=[*self.comparisons]
        )

    def advance(self, to: int, seconds: float = math.inf) -> bool:
        """Trains up to step `to`, and compares what the run recorded there; False if the seconds are over before.

        The calls are divided otherwise than those of the run, which changes no number. Ends early where the run
        diverges.
        """
        experiment = self.run.experiment
        lengths = experiment.lengths
        deadline = time.perf_counter() + seconds
        most = 1
        while self.at < to and not self.diverged:
            if time.perf_counter() > deadline:
                return False
            began = time.perf_counter()
            steps = min(most, to - self.at, lengths.next(self.at) - self.at, experiment.capacity)
            self._call(steps)
            most = next_call_steps(steps, time.perf_counter() - began, experiment.capacity)
        return self.at >= to

    def _call(self, steps: int) -> None:
        run = self.run
        batches = run.experiment.batches(self.at, steps)
        state, output = run.runner.call(self.state, batches, steps)
        self.state, output = run.runner.finish_call(state, output, batches, steps)
        if not output.live:
            self.diverged = True
            return
        self.at += steps
        self.bookkeeping.add(output.metrics, steps)
        lengths = run.experiment.lengths
        if lengths.due(lengths.log, self.at):
            self._compare_row(self.bookkeeping.drain(output.metrics))
        if lengths.due(lengths.eval, self.at) and "validation" in run.experiment.dataset.sizes:
            self._evaluate()
        self._compare_states()

    def _compare_row(self, numbers: dict[str, float]) -> None:
        row = self.run.rows.get((self.at, "train"))
        if row is None:
            return
        apart = {name: _apart(row[name], value) for name, value in numbers.items() if name in row}
        worst = max(apart, key=lambda name: apart[name])
        first = next((name for name, difference in apart.items() if difference), "")
        loss = (row["loss"], numbers["loss"])
        self.comparisons.append(Comparison("row", self.at, *loss, apart[worst], first))

    def _evaluate(self) -> None:
        """Evaluates where a plateau schedule, or the curve of a trial, needs it."""
        run = self.run
        if not run.experiment.schedule.plateaus and self.at not in run.curve:
            return
        metrics = run.runner.evaluate(self.state, "validation")
        if self.at in run.curve:
            value = metrics[run.config["eval"]["metric"]].result()
            recorded = run.curve[self.at]
            self.comparisons.append(Comparison("evaluation", self.at, recorded, value, _apart(recorded, value)))
        self.state = run.runner.after_evaluation(self.state, metrics)

    def _compare_states(self) -> None:
        run = self.run
        if run.checkpoints is not None and self.at in run.saved_steps:
            self.comparisons.append(compare_with_checkpoint(run, self.state, self.at))
        elif run.result is not None and self.at == run.result.step:
            digest = state_digest(run.runner.fetch(self.state))
            apart = 0.0 if digest == run.result.state_digest else math.nan
            self.comparisons.append(Comparison("end", self.at, run.result.state_digest[:12], digest[:12], apart))


def begin_course(run: Recorded, step: int, say: Callable[[str], None]) -> Course:
    """Restores the nearest saved state at or before a step, or makes the initial one.

    Says where it begins and about how long it takes. Raises UsageError for a step beyond the run.
    """
    if not run.began <= step <= run.last:
        expected = f"{run.began:,} to {run.last:,}, the steps of {run.name}"
        raise UsageError("--step", step, expected, "Step N takes the state after N steps to the next")
    for saved in reversed([saved for saved in run.saved_steps if saved <= step]):
        course = _restore(run, saved, say)
        if course is not None:
            _say_way(run, saved, step, say)
            return course
    info = run.experiment.dataset.info.to_json()
    bookkeeping = Bookkeeping(info, total=run.experiment.lengths.total)
    if run.config["checkpoint"]["continue_from"] is not None:
        continued = read_continued(run.experiment, run.runner.shapes())
        begin = continued.step
        state = run.runner.place(continued.state)
    else:
        begin = 0
        state = run.runner.init()
    if run.checkpoints is not None and step > begin:
        saved = ", ".join(f"{number:,}" for number in run.saved_steps) or "none"
        say(f"no checkpoint at or before step {step:,} is left (there are: {saved})")
    _say_way(run, begin, step, say)
    return _course(run, state, begin, bookkeeping, None)


def _restore(run: Recorded, saved: int, say: Callable[[str], None]) -> Course | None:
    """Restores a saved step; says why, and returns None, if it is damaged."""
    assert run.checkpoints is not None
    try:
        restored = run.checkpoints.restore(run.runner.shapes(), saved, set_aside=False)
    except StorageError as error:
        say(f"{error}; an earlier state is taken")
        return None
    assert restored is not None
    return _course(run, run.runner.place(restored.state), saved, Bookkeeping(**restored.memory), saved)


def _course(run: Recorded, state: TrainState, at: int, bookkeeping: Bookkeeping, restored: int | None) -> Course:
    if run.config["track"]["layers"]:
        bookkeeping.layers = tuple(path for path, _ in named_leaves(run.runner.shapes().params))
    return Course(run, state, at, bookkeeping, restored)


def _say_way(run: Recorded, begin: int, step: int, say: Callable[[str], None]) -> None:
    count = step - begin
    if not count:
        return
    seconds = None if run.step_seconds is None else count * run.step_seconds
    long = f", about {seconds:,.0f} s by the pace of the run" if seconds and seconds >= LEAST_ANNOUNCED else ""
    say(f"recomputing {count:,} steps from step {begin:,}{long}")


def compare_after(course: Course, number: int) -> list[str]:
    """Continues to the next row and the next saved state after a step; returns what was out of reach."""
    run = course.run
    if run.diverged_at == number:
        course.advance(number + 1)
        return []
    after = {
        "row": [at for at, split in run.rows if split == "train"],
        "saved state": run.state_steps,
        "evaluation": list(run.curve),
    }
    nearest = {what: min((at for at in steps if at > number), default=None) for what, steps in after.items()}
    end = time.perf_counter() + CHECK_SECONDS
    unreached = []
    for what, at in sorted(((what, at) for what, at in nearest.items() if at is not None), key=lambda pair: pair[1]):
        if not course.advance(at, end - time.perf_counter()):
            unreached.append(f"the next {what}, that of step {at:,}")
    return unreached


def compare_with_checkpoint(run: Recorded, state: TrainState, step: int) -> Comparison:
    """Compares a state with the saved one of its step; reads the saved arrays only where they differ."""
    assert run.checkpoints is not None
    fetched = run.runner.fetch(state)
    ours = leaf_digests(fetched)
    saved = run.checkpoints.digests(step)
    theirs = {path: saved[path] for path in [*ours, *saved] if path in saved}  # in the order of a state's leaves
    recorded, recomputed = (table_digest(table)[:12] for table in (theirs, ours))
    differing = [path for path in ours if ours[path] != theirs.get(path)]
    if not differing:
        return Comparison("checkpoint", step, recorded, recomputed, 0.0)
    arrays, _ = run.checkpoints.restore_leaves(step)
    leaves = dict(named_leaves(fetched))
    apart = [leaf_difference(leaves[path], arrays[path]) for path in differing if path in arrays]
    return Comparison("checkpoint", step, recorded, recomputed, max(apart, default=math.nan), differing[0])


def leaf_difference(one: Any, other: Any) -> float:
    """Returns the largest difference of two arrays, relative to the largest magnitude of the second; nan if unlike."""
    if np.shape(one) != np.shape(other):
        return math.nan
    first, second = (np.asarray(leaf).astype(np.float64) for leaf in (one, other))
    largest = float(np.abs(second).max(initial=0.0))
    return float(np.abs(first - second).max(initial=0.0)) / (largest or 1.0)


def _apart(recorded: Any, value: float) -> float:
    """Returns the relative difference of a number and the recorded one, which is None if it was not finite."""
    if recorded is None or not math.isfinite(value):
        return 0.0 if recorded is None and not math.isfinite(value) else math.inf
    return abs(recorded - value) / (abs(recorded) or 1.0)
