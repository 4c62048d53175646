"""The parting of two searches: the first trial that is not the same in both, with its batch, rung and evaluation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jaxtrain.config.identity import difference
from jaxtrain.data import Source
from jaxtrain.replay.pair import Pair, diff_runs
from jaxtrain.replay.recorded import read_search
from jaxtrain.search.identity import identity
from jaxtrain.search.trials import Outcome

COMPARED = ("status", "value", "seeds", "step", "curve")
"""The fields of an outcome that must be equal; seconds are not."""


@dataclass(frozen=True)
class SearchPair:
    """The trials that two searches share, and the first in which they part.

    Attributes:
        trials: the number of trials that both have.
        more: the trials that only one has.
        names: their directories.
        config: key of the config -> both values, where that changes numbers.
        trial: the first trial that differs; None if all are the same to the bit.
        batch: the batch in which it was trained, from 0.
        point: name -> both values, where the trials are at different points.
        step: the first evaluation whose values differ, None if the points do; `values` holds both.
        rung: the number of rungs that trials had passed before that evaluation, None without halving.
        states: where the states of the first seed of that trial part, by recomputing them; None for other points.
    """

    trials: int
    more: Sequence[int]
    names: tuple[str, str] = ("", "")
    config: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    trial: int | None = None
    batch: int | None = None
    point: Mapping[str, tuple[Any, Any]] | None = None
    step: int | None = None
    values: tuple[Any, Any] | None = None
    rung: int | None = None
    states: Pair | None = None

    @property
    def are_the_same(self) -> bool:
        """Whether all trials are the same to the bit."""
        return self.trial is None and not self.more


def diff_searches(
    one: str | Path,
    other: str | Path,
    *,
    trust: Sequence[str] = (),
    data: Source | None = None,
    say: Callable[[str], None] = print,
) -> SearchPair:
    """Compares two searches from what they stored, and recomputes the first trial that differs at the same point.

    Arguments and errors are those of `diff_runs`.
    """
    (config, first), (other_config, second) = (read_search(Path(place), trust) for place in (one, other))
    pair = replace(
        compare_outcomes(first, second, config["search"]["batch"]),
        names=(str(one), str(other)),
        config=difference(identity(config), identity(other_config)),
    )
    if config["search"]["halving"] is None:
        pair = replace(pair, rung=None)
    if pair.trial is None or pair.point is not None:
        return pair
    return replace(pair, states=diff_runs(one, other, trial=pair.trial, trust=trust, data=data, say=say))


def compare_outcomes(first: Mapping[int, Outcome], second: Mapping[int, Outcome], batch: int) -> SearchPair:
    """Compares the outcomes, by the number of the trial, of two searches with batches of this number of trials."""
    shared = sorted(first.keys() & second.keys())
    pair = SearchPair(trials=len(shared), more=sorted(first.keys() ^ second.keys()))
    trial = next((number for number in shared if not _are_alike(first[number], second[number])), None)
    if trial is None:
        return pair
    ours = first[trial]
    theirs = second[trial]
    pair = replace(pair, trial=trial, batch=trial // batch)
    if ours.point != theirs.point:
        names = sorted({*ours.point, *theirs.point})
        apart = {name: (ours.point.get(name), theirs.point.get(name)) for name in names}
        return replace(pair, point={name: both for name, both in apart.items() if both[0] != both[1]})
    step, values = _first_evaluation(ours, theirs)
    rungs = {outcome.step for outcome in first.values() if outcome.status == "stopped"}
    return replace(pair, step=step, values=values, rung=sum(rung < step for rung in rungs))


def _are_alike(one: Outcome, other: Outcome) -> bool:
    return one.point == other.point and all(getattr(one, name) == getattr(other, name) for name in COMPARED)


def _first_evaluation(one: Outcome, other: Outcome) -> tuple[int, tuple[Any, Any]]:
    """Returns the step of the first evaluation that differs, and both values; the end where all of them are equal."""
    curves = [{int(step): value for step, value in outcome.curve} for outcome in (one, other)]
    for step in sorted({*curves[0], *curves[1]}):
        values = (curves[0].get(step), curves[1].get(step))
        if values[0] != values[1]:
            return step, values
    return min(one.step, other.step), (one.value, other.value)
