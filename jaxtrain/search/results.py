"""What a search found: all that its report, pictures and files are made from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxtrain.search.space import Space
from jaxtrain.search.trials import Outcome, behind, is_tie, ranked
from jaxtrain.training.intervals import Interval, interval


@dataclass(frozen=True)
class Comparison:
    """The best config beside the config's own values, on seeds that the search did not use.

    Values of `metric` on `split` ("test" where there is one), by seed, None where a seed diverged.
    """

    split: str
    metric: str
    higher_is_better: bool
    trial: int
    best: Mapping[int, float | None]
    own: Mapping[int, float | None]

    @property
    def gain(self) -> Interval:
        """By how much the best is better than the config's own values, over paired seeds; positive is better."""
        sign = 1.0 if self.higher_is_better else -1.0
        pairs = [(value, self.own[seed]) for seed, value in self.best.items()]
        found = [sign * (a - b) for a, b in pairs if a is not None and b is not None]
        return interval(np.array(found)) if found else Interval(math.nan, math.nan, math.nan)

    @property
    def verdict(self) -> str:
        """Says which is better, or that it is a tie; what diverged on more seeds is worse."""
        lost, own_lost = (list(values.values()).count(None) for values in (self.best, self.own))
        if lost != own_lost:
            return "better" if lost < own_lost else "worse"
        gain = self.gain
        if not gain.excludes_zero:
            return "a tie"
        return "better" if gain.mean > 0 else "worse"

    def to_json(self) -> dict[str, Any]:
        """Returns a dict of what JSON can hold, the verdict and the interval among it."""
        return asdict(self) | {"gain": asdict(self.gain), "verdict": self.verdict}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Comparison":
        """Returns what `to_json` was given, also after a way through JSON."""
        sides = {side: {int(seed): value for seed, value in saved[side].items()} for side in ("best", "own")}
        return cls(saved["split"], saved["metric"], saved["higher_is_better"], saved["trial"], **sides)


@dataclass(frozen=True)
class Findings:
    """The outcomes of a study, ranked, with what is needed to show them.

    metric: what `eval.metric` names, measured on validation; seconds: of the whole study, over all its sessions.
    """

    space: Space
    outcomes: Sequence[Outcome]
    metric: str
    higher_is_better: bool
    seconds: float
    comparison: Comparison | None = None

    @cached_property
    def order(self) -> list[Outcome]:
        """The outcomes from the best to the worst."""
        return ranked(self.outcomes, self.higher_is_better)

    @cached_property
    def behind(self) -> dict[int, Interval]:
        """How far each trial with the whole budget is from the best one, over paired seeds."""
        return behind(self.order)

    @property
    def ties(self) -> set[int]:
        """The trials that cannot be told from the best."""
        return {trial for trial, difference in self.behind.items() if is_tie(difference)}

    @property
    def best(self) -> Outcome | None:
        """The best trial; None where all diverged."""
        return self.order[0] if self.order and self.order[0].status != "diverged" else None
