"""Early stopping by rungs: successive halving, Hyperband and asynchronous halving (ASHA).

Rungs are at 1 / reduction, 1 / reduction^2, ... of the whole budget, down to `search.first_rung`. At each rung the best
1 / reduction of the trials that reached it continue (Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943).
Hyperband assigns trials to brackets that start at later and later rungs (Li et al. 2018,
https://arxiv.org/abs/1603.06560). With ASHA a trial continues if it is among the best 1 / reduction of the trials of
all workers that have reached the rung so far (Li et al. 2020, https://arxiv.org/abs/1810.05934; in its stopping form: a
trial that was stopped is not taken up again when later ones are worse). Schedules depend only on the whole budget, so a
trial that survives every rung is trained exactly as without halving.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from jaxtrain.config.defaults import Config
from jaxtrain.config.durations import steps_of
from jaxtrain.core.metric import as_loss
from jaxtrain.errors import ConfigError
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.lengths import Lengths

GOLDEN = 0.6180339887498949  # golden ratio - 1: its multiples mod 1 are evenly spread, so brackets get their shares


FIRST_RUNG = "10 %"
"""The first rung where `search.first_rung` is None."""


def rung_fractions(section: Config, experiment: Experiment) -> list[float]:
    """Returns the rungs of a section `search` as fractions of the whole budget, ascending; empty without halving.

    Raises ConfigError if halving is on and no evaluation is near a rung.
    """
    if section["halving"] is None:
        return []
    lengths = experiment.lengths
    fraction = 1.0 / section["reduction"]
    epoch = experiment.dataset.sizes["train"] / experiment.config["data"]["batch_size"]
    first = steps_of(section["first_rung"] or FIRST_RUNG, steps_per_epoch=epoch, total=lengths.total) / lengths.total
    by_step: dict[int, float] = {}  # of two rungs at one evaluation, the later is kept
    while fraction >= first:
        by_step.setdefault(rung_step(fraction, lengths), fraction)
        fraction /= section["reduction"]
    fractions = sorted(fraction for step, fraction in by_step.items() if step < lengths.total)
    if not fractions:
        expected = f"None, or 1/{section['reduction']} of the run at or after search.first_rung and at an evaluation"
        hint = f"Take a smaller search.first_rung than {section['first_rung'] or FIRST_RUNG!r}, or a smaller eval.every"
        raise ConfigError("search.halving", section["halving"], expected, hint)
    return fractions


def rung_step(fraction: float, lengths: Lengths) -> int:
    """Returns the step of a rung: that of the nearest evaluation, since trials are compared by their evaluations."""
    return min(lengths.total, max(1, round(fraction * lengths.total / lengths.eval)) * lengths.eval)


def brackets(count: int, rungs: int, section: Config) -> list[int]:
    """Assigns trials to brackets: the number of rungs that each trial passes without a comparison, (count,)."""
    if section["halving"] != "hyperband" or not rungs:
        return [0] * count
    reduction = section["reduction"]
    # Each bracket costs about the same: the later it starts, the fewer trials it has.
    sizes = [reduction ** (rungs - bracket) / (rungs - bracket + 1) for bracket in range(rungs + 1)]
    ends = [end / sum(sizes) for end in accumulate(sizes)]
    positions = [(index * GOLDEN) % 1.0 for index in range(count)]
    return [next(bracket for bracket, end in enumerate(ends) if at < end or bracket == rungs) for at in positions]


def budget_share(fractions: Sequence[float], reduction: int) -> float:
    """Returns the fraction of all trials' steps that successive halving takes when every rung keeps 1 / reduction."""
    ends = [*fractions, 1.0]
    starts = [0.0, *fractions]
    return sum((end - start) / reduction**rung for rung, (start, end) in enumerate(zip(starts, ends, strict=True)))


def survivors(values: Mapping[int, float | None], reduction: int, higher_is_better: bool) -> list[int]:
    """Returns the best 1 / reduction, at least one, of trial -> value; diverged trials (None) never survive."""
    alive = [trial for trial, value in values.items() if value is not None]
    order: Sequence[int] = sorted(alive, key=lambda trial: (as_loss(values[trial] or 0.0, higher_is_better), trial))
    return sorted(order[: max(1, len(values) // reduction)])
