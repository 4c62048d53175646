"""The parting of two runs: in config, environment, data and order, in what they logged, and in the arrays of a step."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtrain.config.identity import changes_numbers, difference
from jaxtrain.core.trees import leaf_digests, named_leaves
from jaxtrain.data import Source
from jaxtrain.replay.recompute import Comparison, Course, begin_course, compare_after, leaf_difference
from jaxtrain.replay.recorded import Recorded, differing, open_recorded
from jaxtrain.training.feeds import rows_of

HPARAMS = "hparams/"
"""Arrays of a state that hold the floats of the config: these are compared as config."""

ORDER_STEPS = 1000
"""Steps whose batches are compared at a time."""


class RowDifference(NamedTuple):
    """The first row that two runs do not share: its step and split, and name -> (value of one, value of the other)."""

    step: int
    split: str
    numbers: dict[str, tuple[float | None, float | None]]


class StateDifference(NamedTuple):
    """The first states that differ.

    step: they are those after it; leaf: the first array that differs; difference: its largest one, relative
    to its largest magnitude; leaves: how many arrays differ, of `total`; worst: the one that differs most, and by how
    much.
    """

    step: int
    leaf: str
    difference: float
    leaves: int
    total: int
    worst: tuple[str, float]


@dataclass(frozen=True)
class Pair:
    """The comparison of two runs: what they share, and where they part.

    Attributes:
        names: of the runs.
        config: key of the config -> (value of one, value of the other), where that changes numbers.
        without_effect: the same for keys that change no number.
        environment: name -> both values, of versions, devices and commits that differ; None where one is not known.
        same_data: whether they were trained on the same data; None where that is not known.
        order: the first step whose batches hold other rows; None if all are the same, or the data are not.
        steps: the number of steps that both took.
        rows: the number of rows that both wrote.
        row: the first of these that differs.
        last_equal: the last step after which the states are known to be the same; None: not even at the start.
        state: the first states that differ; None if none is known to.
        comparisons: what the runs recorded, beside what was recomputed of each; empty where nothing was.
        unreached: what of each was not compared.
        ended_alike: whether both ended at the same step with the same status.
    """

    names: tuple[str, str]
    config: Mapping[str, tuple[Any, Any]]
    without_effect: Mapping[str, tuple[Any, Any]]
    environment: Mapping[str, tuple[Any, Any]] | None
    same_data: bool | None
    order: int | None
    steps: int
    rows: int
    row: RowDifference | None
    last_equal: int | None
    state: StateDifference | None
    ended_alike: bool
    comparisons: tuple[Sequence[Comparison], Sequence[Comparison]] = ((), ())
    unreached: tuple[Sequence[str], Sequence[str]] = field(default=((), ()))

    @property
    def are_the_same(self) -> bool:
        """Whether the runs are the same to the bit, as far as both recorded them."""
        return self.row is None and self.state is None and self.last_equal == self.steps and self.ended_alike

    @property
    def is_exact(self) -> bool:
        """Whether all that was recomputed is what the runs recorded."""
        return all(comparison.is_equal for own in self.comparisons for comparison in own)


def diff_runs(
    one: str | Path,
    other: str | Path,
    *,
    trial: int | None = None,
    trust: Sequence[str] = (),
    data: Source | None = None,
    say: Callable[[str], None] = print,
) -> Pair:
    """Compares two runs from what they stored, and recomputes them where the step at which they part lies in between.

    Args:
        one: the directory of a run.
        other: that of another.
        trial: of two searches, the trial to compare in place of runs.
        trust: modules whose functions the config of a run that another user made may name.
        data: data that were given in Python to both.
        say: prints a line on the progress.

    Raises:
        UsageError: a directory holds no run.
        DataError: the data are not those that a run was trained on.
        StorageError: a file cannot be read.
    """
    first, second = (open_recorded(place, trial=trial, trust=trust, data=data, say=say) for place in (one, other))
    try:
        return _compare(first, second, say)
    finally:
        first.close()
        second.close()


def _compare(one: Recorded, other: Recorded, say: Callable[[str], None]) -> Pair:
    all_config = difference(one.saved, other.saved)
    config = difference(changes_numbers(one.saved), changes_numbers(other.saved))
    rows = _shared_rows(one, other)
    row = next(filter(None, (_compare_rows(one, other, key) for key in rows)), None)
    same_data = one.dataset.fingerprint == other.dataset.fingerprint
    steps = min(one.steps, other.steps)
    known = environments_known(one, other)
    last_equal, upper = _bracket(one, other, row, steps)
    state = None
    courses: list[Course] = []
    if upper is not None:
        courses = [begin_course(run, last_equal or run.began, say) for run in (one, other)]
        last_equal, state = find_first_difference(courses[0], courses[1], upper)
    unreached = [compare_after(course, course.at) for course in courses]
    return Pair(
        names=(one.name, other.name),
        config=config,
        without_effect={key: values for key, values in all_config.items() if key not in config},
        environment=differing(one.environment, other.environment) if known else None,
        same_data=same_data,
        order=first_other_batch(one, other, steps) if same_data else None,
        steps=steps,
        rows=len(rows),
        row=row,
        last_equal=last_equal,
        state=state,
        ended_alike=_ending(one) == _ending(other),
        comparisons=(courses[0].comparisons, courses[1].comparisons) if courses else ((), ()),
        unreached=(unreached[0], unreached[1]) if courses else ((), ()),
    )


def environments_known(one: Recorded, other: Recorded) -> bool:
    """Tells whether both runs say on what they ran."""
    return bool(one.environment) and bool(other.environment)


def _shared_rows(one: Recorded, other: Recorded) -> list[tuple[int, str]]:
    """Returns (step, split) of the rows that mean the same in both: means of training need the same interval."""
    alike = one.experiment.lengths.log == other.experiment.lengths.log
    return sorted(key for key in one.rows.keys() & other.rows.keys() if alike or key[1] != "train")


def _ending(run: Recorded) -> tuple[str, int] | None:
    return (run.result.status, run.result.step) if run.result else None


def _compare_rows(one: Recorded, other: Recorded, key: tuple[int, str]) -> RowDifference | None:
    """Compares a row of both, but for the times at which they were written."""
    first = one.rows[key]
    second = other.rows[key]
    names = [name for name in first if name not in ("time", "step", "split") and name in second]
    apart = {name: (first[name], second[name]) for name in names if first[name] != second[name]}
    return RowDifference(*key, apart) if apart else None


def first_other_batch(one: Recorded, other: Recorded, steps: int) -> int | None:
    """Returns the first step, of a number of them, whose batches hold other rows of the same data."""
    for begin in range(0, steps, ORDER_STEPS):
        count = min(ORDER_STEPS, steps - begin)
        first, second = (rows_of(run.config["data"], run.dataset, begin, count) for run in (one, other))
        if first.shape != second.shape:
            return begin
        apart = np.flatnonzero((first != second).any(axis=1))
        if apart.size:
            return begin + int(apart[0])
    return None


def _bracket(one: Recorded, other: Recorded, row: RowDifference | None, steps: int) -> tuple[int | None, int | None]:
    """Returns (the last step whose saved states are the same, a step by which the runs have parted).

    Without a sign that they part, the second is None where the states of the last step are known to be the same, and
    else the last step.
    """
    last_equal: int | None = None
    upper: int | None = None
    for step in sorted({*one.state_steps} & {*other.state_steps}):
        if not _are_saved_alike(one, other, step):
            upper = step
            break
        last_equal = step
    if upper is None:
        upper = None if last_equal == steps else steps
    if upper is not None and row is not None and row.step > (last_equal or 0):
        upper = min(upper, row.step)
    return last_equal, upper


def _are_saved_alike(one: Recorded, other: Recorded, step: int) -> bool:
    """Tells whether both runs saved the same state at a step, the floats of their configs aside."""
    if all(step in run.saved_steps for run in (one, other)):
        tables = [run.checkpoints.digests(step) for run in (one, other) if run.checkpoints]
        return _without_floats(tables[0]) == _without_floats(tables[1])
    digests = {run.result.state_digest if run.result else "" for run in (one, other)}
    return len(digests) == 1


def _without_floats(table: Mapping[str, Any]) -> dict[str, Any]:
    return {path: own for path, own in table.items() if not path.startswith(HPARAMS)}


def find_first_difference(one: Course, other: Course, upper: int) -> tuple[int | None, StateDifference | None]:
    """Returns (the last step after which the states are the same, the first states that differ, None up to `upper`).

    Both courses are recomputed from where they are, in strides that double while the states are the same; the stride in
    which they part is bisected. They stand at the states that differ afterwards.
    """
    begin = max(one.at, other.at)
    parted = _advance(one, other, begin)
    if parted is not None:
        return None, parted
    equal = (one.fork(), other.fork())
    at = begin
    stride = 1
    while at < upper and (parted is None or parted.step - at > 1):
        to = min(upper, at + stride) if parted is None else (at + parted.step) // 2
        found = _advance(one, other, to)
        if found is None:
            equal = (one.fork(), other.fork())
            at = to
            stride *= 2
        else:
            parted = found
            _go_back(one, other, equal)
        if one.diverged and other.diverged:  # in the same step, or the states would differ
            break
    if parted is not None:
        _advance(one, other, parted.step)
    return at, parted


def _advance(one: Course, other: Course, to: int) -> StateDifference | None:
    one.advance(to)
    other.advance(to)
    return compare_states(one, other, to)


def _go_back(one: Course, other: Course, equal: tuple[Course, Course]) -> None:
    """Sets both courses back to where they were the same; what was compared on the way is kept."""
    for course, earlier in zip((one, other), equal, strict=True):
        kept = earlier.fork()
        course.state = kept.state
        course.at = kept.at
        course.bookkeeping = kept.bookkeeping
        course.diverged = False


def compare_states(one: Course, other: Course, step: int) -> StateDifference | None:
    """Compares the states of two courses after a number of steps, the floats of their configs aside."""
    states = [course.run.runner.fetch(course.state) for course in (one, other)]
    tables = [_without_floats(leaf_digests(state)) for state in states]
    apart = [path for path in {**tables[0], **tables[1]} if tables[0].get(path) != tables[1].get(path)]
    if not apart:
        return None
    first, second = (dict(named_leaves(state)) for state in states)
    by = {path: leaf_difference(first.get(path, ()), second.get(path, ())) for path in apart}
    worst = max(by, key=lambda path: -1.0 if math.isnan(by[path]) else by[path])
    return StateDifference(step, apart[0], by[apart[0]], len(apart), len(tables[0]), (worst, by[worst]))
