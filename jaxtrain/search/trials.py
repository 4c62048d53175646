"""Outcomes of trials: how evaluations become values, and how trials are ranked and compared."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from jaxtrain.config.defaults import flatten
from jaxtrain.config.schema import as_python
from jaxtrain.core.metric import as_loss
from jaxtrain.search.space import Space, Trial
from jaxtrain.training.intervals import Interval, interval

STATUSES = ("done", "stopped", "undefined", "diverged")
"""The endings of a trial, from the best to the worst; those of the last two have no value."""

NO_VALUE = STATUSES[2:]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial: one line of the ledger.

    status: "done" with the whole budget, "stopped" at a rung, "undefined" if `eval.metric` was not finite where the
    value of a seed is read, or "diverged"; value: the mean over seeds, None for the last two statuses; seeds: seed ->
    the value of `eval.metric` that `search.value` reads from the evaluations, which are those that `train` makes with
    the trial's config and that seed; step: steps taken, for "diverged" those before the loss was no longer finite;
    point: the values that the search chose; difference: name -> value of what differs from the searched config; curve:
    (step, mean over seeds) of each evaluation; seconds: device time, divided among the lanes that ran together; edited:
    whether the line was changed by others and accepted as it stood.
    """

    trial: int
    status: str
    value: float | None
    seeds: dict[int, float | None]
    step: int
    point: dict[str, Any]
    difference: dict[str, Any]
    curve: list[list[float]]
    seconds: float
    edited: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a dict for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Outcome":
        """Restores an outcome from `to_json`, also after JSON has turned tuples into lists and keys into strings."""
        seeds = {int(seed): value for seed, value in saved["seeds"].items()}
        return cls(**{**saved, "seeds": seeds, "point": as_python(saved["point"])})


def rank(outcomes: Iterable[Outcome], higher_is_better: bool) -> list[Outcome]:
    """Sorts trials: done by value, then stopped by step (latest first) and value, then undefined, then diverged."""

    def place(outcome: Outcome) -> tuple[int, int, float, int]:
        group = STATUSES.index(outcome.status)
        loss = math.inf if outcome.value is None else as_loss(outcome.value, higher_is_better)
        late = -outcome.step if outcome.status == "stopped" else 0
        return group, late, loss, outcome.trial

    return sorted(outcomes, key=place)


def compare_by_seed(outcome: Outcome, other: Outcome) -> Interval:
    """Returns the paired Student-t interval of two trials' difference: a seed fixes weights and batches of both."""
    pairs = [(outcome.seeds[seed], other.seeds.get(seed)) for seed in outcome.seeds]
    return interval(np.array([a - b for a, b in pairs if a is not None and b is not None]))


def compare_with_best(order: Sequence[Outcome]) -> dict[int, Interval]:
    """Returns trial -> difference from the best, for the done trials in ranked order."""
    finished = [outcome for outcome in order if outcome.status == "done"]
    return {outcome.trial: compare_by_seed(outcome, finished[0]) for outcome in finished[1:]}


def is_tie(difference: Interval) -> bool:
    """Tells whether a difference from the best is not significant; with a single seed only 0 is a tie."""
    unknown = math.isnan(difference.low)
    return difference.mean == 0 if unknown else not difference.excludes_zero


Values = dict[int, float | None]
"""Number of a trial -> its value, None if it has none."""

Lane = tuple[int, int]
"""(number of the trial, seed)."""


@dataclass
class Record:
    """History of a lane.

    evaluations: [step, value on each measured split]; diverged: the step of divergence, or None; seconds: device time.
    """

    evaluations: list[list[float]] = field(default_factory=list)
    diverged: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """Rules that turn evaluations into a value.

    higher_is_better: direction of the metric; patience: of early stopping, in steps; last: how many of the last
    evaluations are averaged, None for the best one.
    """

    higher_is_better: bool
    patience: int | None
    last: int | None = None

    def loss(self, evaluation: list[float]) -> float:
        """Returns the value of an evaluation on the first split such that lower is better."""
        return as_loss(evaluation[1], self.higher_is_better)

    def reading(self, record: Record) -> list[float] | None:
        """Returns what a lane is judged by: [step, value on each split], of one evaluation or a mean.

        None if the lane diverged, or if the metric was not finite: at any evaluation up to the end or early stopping
        for the best one, else at one of the last.
        """
        best, rows, has_stopped = self._judge(record)
        if record.diverged is not None and not has_stopped:
            return None
        if self.last is None:
            return best
        read = rows[-self.last :]
        if not read or not all(math.isfinite(row[1]) for row in read):
            return None
        return [read[-1][0], *(sum(column) / len(read) for column in list(zip(*read, strict=True))[1:])]

    def diverged(self, record: Record) -> int | None:
        """Returns the step at which a single run of this lane diverges; None if it does not, or stops before."""
        return None if self._judge(record)[2] else record.diverged

    def _judge(self, record: Record) -> tuple[list[float] | None, list[list[float]], bool]:
        """Returns the best evaluation, all up to early stopping, and whether a single run would stop early.

        It would also if the lane diverges later.
        """
        best = None
        for count, row in enumerate(record.evaluations, 1):
            if math.isfinite(row[1]) and (best is None or self.loss(row) < self.loss(best)):
                best = row
            since = best or record.evaluations[0]
            if self.patience is not None and row[0] - since[0] >= self.patience:
                return best, record.evaluations[:count], True
        return best, record.evaluations, False

    def value(self, records: Sequence[Record]) -> float | None:
        """Returns the mean over seeds of each lane's value; None if a seed has none."""
        rows = [self.reading(record) for record in records]
        values = [row[1] for row in rows if row is not None]
        return sum(values) / len(values) if len(values) == len(rows) else None


def outcome_of(
    space: Space, trial: Trial, records: dict[int, Record], judgement: Judgement, step: int, stopped: bool
) -> Outcome:
    """Builds the outcome of a trial from seed -> record.

    step: the rung at which it was stopped, or its whole budget in steps; stopped: whether a rung stopped it.
    """
    read = {seed: judgement.reading(record) for seed, record in records.items()}
    lost = [judgement.diverged(records[seed]) for seed, row in read.items() if row is None]
    value = judgement.value(list(records.values()))
    diverged = any(at is not None for at in lost)
    status = "diverged" if diverged else "undefined" if lost else "stopped" if stopped else "done"
    return Outcome(
        trial=trial.number,
        status=status,
        value=value,
        seeds={seed: row[1] if row else None for seed, row in read.items()},
        step=min([at for at in lost if at is not None], default=step),
        point=trial.point,
        difference=_difference(space, trial),
        curve=_mean_curve(list(records.values())),
        seconds=round(sum(record.seconds for record in records.values()), 4),
    )


def _difference(space: Space, trial: Trial) -> dict[str, Any]:
    """Returns name -> value of what differs from the searched config; None for a name that the trial lacks."""
    base = flatten(space.config)
    values = flatten(trial.config)
    return {name: values.get(name) for name in base | values if base.get(name) != values.get(name)}


def _mean_curve(records: Sequence[Record]) -> list[list[float]]:
    """Returns (step, mean) of each evaluation, over the seeds with a finite value."""
    by_step: dict[float, list[float]] = {}
    for record in records:
        for step, value, *_ in record.evaluations:
            if math.isfinite(value):
                by_step.setdefault(step, []).append(value)
    return [[step, sum(values) / len(values)] for step, values in sorted(by_step.items())]
