"""What came of a trial, and the order of all of them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jaxtrain.knobs import as_python


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


@dataclass(frozen=True)
class Interval:
    """A difference over paired seeds: its mean, and the ends of its 95 % interval (nan with a single seed)."""

    mean: float
    low: float
    high: float

    @property
    def tells_apart(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


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


def interval(differences: np.ndarray) -> Interval:
    """Returns mean and 95 % interval of differences, (seeds,)."""
    from scipy.special import stdtrit

    count, mean = len(differences), float(differences.mean())
    if count < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(stdtrit(count - 1, 0.975) * differences.std(ddof=1)) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def behind(order: Sequence[Outcome]) -> dict[int, Interval]:
    """Returns by how much each trial with the whole budget differs from the best of them, which comes first."""
    finished = [outcome for outcome in order if outcome.status == "done"]
    return {outcome.trial: paired(outcome, finished[0]) for outcome in finished[1:]}


def is_tie(difference: Interval) -> bool:
    """Tells whether a trial cannot be told from the best; with a single seed only an equal value is a tie."""
    unknown = math.isnan(difference.low)
    return difference.mean == 0 if unknown else not difference.tells_apart
