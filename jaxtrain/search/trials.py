"""What came of a trial, and the order of all of them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from jaxtrain.config.defaults import flatten
from jaxtrain.config.schema import as_python
from jaxtrain.search.space import Space, Trial
from jaxtrain.training.intervals import Interval, interval


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: a line of the ledger.

    status: "done" with the whole budget, "stopped" at a rung, or "diverged"; value: the mean over seeds of each one's
    best evaluation of `eval.metric`, None where one diverged; seeds: seed -> that evaluation, as `train` with the
    trial's config and that seed reports it as its best; step: steps taken, with "diverged" those before the loss left
    the finite numbers; point: what the search chose; difference: what differs from the config searched;
    curve: (step, mean over seeds) of each evaluation; seconds: of the devices, shared among the lanes that ran.
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

    def to_json(self) -> dict[str, Any]:
        """Returns a dict of what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Outcome":
        """Returns what `to_json` was given, also after a way through JSON."""
        seeds = {int(seed): value for seed, value in saved["seeds"].items()}
        return cls(**{**saved, "seeds": seeds, "point": as_python(saved["point"])})


def ranked(outcomes: Iterable[Outcome], higher_is_better: bool) -> list[Outcome]:
    """Orders trials: those with the whole budget by value, then those stopped latest, then those that diverged."""
    sign = -1.0 if higher_is_better else 1.0

    def place(outcome: Outcome) -> tuple[int, int, float, int]:
        group = ("done", "stopped", "diverged").index(outcome.status)
        late = -outcome.step if outcome.status == "stopped" else 0
        return group, late, math.inf if outcome.value is None else sign * outcome.value, outcome.trial

    return sorted(outcomes, key=place)


def paired(outcome: Outcome, other: Outcome) -> Interval:
    """Compares the values of two trials seed by seed, by Student's t: seeds share weights and batches."""
    pairs = [(outcome.seeds[seed], other.seeds.get(seed)) for seed in outcome.seeds]
    return interval(np.array([a - b for a, b in pairs if a is not None and b is not None]))


def behind(order: Sequence[Outcome]) -> dict[int, Interval]:
    """Returns by how much each trial with the whole budget differs from the best of them, which comes first."""
    finished = [outcome for outcome in order if outcome.status == "done"]
    return {outcome.trial: paired(outcome, finished[0]) for outcome in finished[1:]}


def is_tie(difference: Interval) -> bool:
    """Tells whether a trial cannot be told from the best; with a single seed only an equal value is a tie."""
    unknown = math.isnan(difference.low)
    return difference.mean == 0 if unknown else not difference.excludes_zero


Lane = tuple[int, int]
"""(number of the trial, seed)."""


@dataclass
class Record:
    """Evaluations of a lane, [step, value on each split that is measured]; the step at which it diverged, or None."""

    evaluations: list[list[float]] = field(default_factory=list)
    diverged: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """How evaluations become a value: the direction of the metric, and the patience of early stopping in steps."""

    higher_is_better: bool
    patience: int | None

    def best(self, record: Record) -> list[float] | None:
        """Returns the evaluation that a run of this lane alone reports as its best; None where it has diverged."""
        sign, best = (-1.0 if self.higher_is_better else 1.0), None
        for row in record.evaluations:
            if math.isfinite(row[1]) and (best is None or sign * row[1] < sign * best[1]):
                best = row
            if best is not None and self.patience is not None and row[0] - best[0] >= self.patience:
                return best  # here the run stops, whatever becomes of the lane
        return best if record.diverged is None else None

    def value(self, records: Sequence[Record]) -> float | None:
        """Returns the mean over seeds of each lane's best value; None where a seed has none."""
        found = [self.best(record) for record in records]
        values = [row[1] for row in found if row is not None]
        return sum(values) / len(values) if len(values) == len(found) else None


def outcome_of(
    space: Space, trial: Trial, records: dict[int, Record], judgement: Judgement, step: int, stopped: bool
) -> Outcome:
    """Returns what seed -> record comes to: stopped at this step, or with its whole budget of so many steps."""
    best = {seed: judgement.best(record) for seed, record in records.items()}
    lost = [records[seed].diverged for seed, row in best.items() if row is None]
    value = judgement.value(list(records.values()))
    status = "diverged" if lost else "stopped" if stopped else "done"
    return Outcome(
        trial=trial.number,
        status=status,
        value=value,
        seeds={seed: row[1] if row else None for seed, row in best.items()},
        step=min([at for at in lost if at is not None], default=step),
        point=trial.point,
        difference=_difference(space, trial),
        curve=_mean_curve(list(records.values())),
        seconds=round(sum(record.seconds for record in records.values()), 4),
    )


def _difference(space: Space, trial: Trial) -> dict[str, Any]:
    """Returns name -> value for what differs from the config that is searched; None where the trial lacks a name."""
    own, theirs = flatten(space.config), flatten(trial.config)
    return {name: theirs.get(name) for name in own | theirs if own.get(name) != theirs.get(name)}


def _mean_curve(records: Sequence[Record]) -> list[list[float]]:
    """Returns (step, mean) of each evaluation, over the seeds where it is finite."""
    by_step: dict[float, list[float]] = {}
    for record in records:
        for step, value, *_ in record.evaluations:
            if math.isfinite(value):
                by_step.setdefault(step, []).append(value)
    return [[step, sum(values) / len(values)] for step, values in sorted(by_step.items())]
