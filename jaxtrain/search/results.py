"""Results of a search, from which its report, pictures and files are made."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxtrain.core.metric import as_loss
from jaxtrain.search.space import Space
from jaxtrain.search.trials import STATUSES, Outcome, compare_with_best, is_tie, rank
from jaxtrain.training.intervals import Interval, interval


@dataclass(frozen=True)
class Comparison:
    """Comparison of the best trial with the config's own values, on seeds that the search did not use.

    trial: number of the best trial; best, own: seed -> value of `metric` on `split` ("test" if there is one), None if
    the seed diverged or the metric was undefined.
    """

    split: str
    metric: str
    higher_is_better: bool
    trial: int
    best: Mapping[int, float | None]
    own: Mapping[int, float | None]

    @property
    def gain(self) -> Interval:
        """Gain of the best over the config's own values, with its interval over paired seeds; positive is better."""
        pairs = [(value, self.own[seed]) for seed, value in self.best.items()]
        gains = [
            as_loss(own - best, self.higher_is_better) for best, own in pairs if best is not None and own is not None
        ]
        return interval(np.array(gains)) if gains else Interval(math.nan, math.nan, math.nan)

    @property
    def verdict(self) -> str:
        """Returns "better", "worse" or "a tie"; the side without a value on more seeds is worse."""
        lost, own_lost = (list(values.values()).count(None) for values in (self.best, self.own))
        if lost != own_lost:
            return "better" if lost < own_lost else "worse"
        gain = self.gain
        if not gain.excludes_zero:
            return "a tie"
        return "better" if gain.mean > 0 else "worse"

    def to_json(self) -> dict[str, Any]:
        """Returns the fields, the verdict and the interval as a dict for JSON."""
        return asdict(self) | {"gain": asdict(self.gain), "verdict": self.verdict}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Comparison":
        """Restores a comparison from `to_json`, also after JSON has turned its keys into strings."""
        sides = {side: {int(seed): value for seed, value in saved[side].items()} for side in ("best", "own")}
        return cls(saved["split"], saved["metric"], saved["higher_is_better"], saved["trial"], **sides)


@dataclass(frozen=True)
class Findings:
    """The outcomes of a study, with what is needed to rank and show them.

    name: of the config, or the directory; metric: the name in `eval.metric`, measured on validation; seconds: of the
    whole study, over all its sessions.
    """

    name: str
    space: Space
    outcomes: Sequence[Outcome]
    metric: str
    higher_is_better: bool
    seconds: float
    comparison: Comparison | None = None

    @cached_property
    def order(self) -> list[Outcome]:
        """The outcomes from the best to the worst."""
        return rank(self.outcomes, self.higher_is_better)

    @cached_property
    def differences_from_best(self) -> dict[int, Interval]:
        """Trial -> difference from the best over paired seeds, for the trials that are done."""
        return compare_with_best(self.order)

    @property
    def ties(self) -> set[int]:
        """The trials whose difference from the best is not significant."""
        return {trial for trial, difference in self.differences_from_best.items() if is_tie(difference)}

    @property
    def best(self) -> Outcome | None:
        """The best trial; None if no trial has a value."""
        return self.order[0] if self.order and self.order[0].value is not None else None

    @property
    def status(self) -> str:
        """Returns "done"; without a best trial "undefined" if the metric was undefined in a trial, else "diverged"."""
        undefined = any(outcome.status == "undefined" for outcome in self.outcomes)
        return "done" if self.best else "undefined" if undefined else "diverged"

    @property
    def counts(self) -> dict[str, int]:
        """Status -> number of trials, in the order of STATUSES; "undefined" only where there are such trials."""
        counts = {status: sum(o.status == status for o in self.outcomes) for status in STATUSES}
        return {status: count for status, count in counts.items() if count or status != "undefined"}
