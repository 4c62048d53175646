"""What is known of the lanes of a batch while they train, and the outcome that the seeds of a trial come to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtrain.config import flatten
from jaxtrain.search.space import Space, Trial
from jaxtrain.search.trials import Outcome

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
