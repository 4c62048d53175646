"""Early stopping by rungs: successive halving and Hyperband.

The rungs stand at 1 / reduction, 1 / reduction^2, ... of the whole budget, down to `search.first_rung`. At each the
best 1 / reduction of those that arrived go on (Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943).
Hyperband deals trials over brackets that begin at later and later rungs (Li et al. 2018,
https://arxiv.org/abs/1603.06560). Schedules know the whole budget alone, so a trial that gets through has run as one
that was never halved.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from jaxtrain.config.defaults import Config
from jaxtrain.config.durations import steps_of
from jaxtrain.errors import ConfigError
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.lengths import Lengths

GOLDEN = 0.6180339887498949  # its multiples fill the interval evenly, so every bracket gets its share of any row


def rung_fractions(section: Config, experiment: Experiment) -> list[float]:
    """Returns the rungs that a section `search` asks for, as parts of the whole budget, ascending; none unasked.

    ConfigError where halving is asked for and no evaluation stands where a rung could.
    """
    if section["halving"] is None:
        return []
    lengths, part = experiment.lengths, 1.0 / section["reduction"]
    epoch = experiment.dataset.sizes["train"] / experiment.config["data"]["batch_size"]
    first = steps_of(section["first_rung"], steps_per_epoch=epoch, total=lengths.total) / lengths.total
    by_step: dict[int, float] = {}  # where two rungs fall on one evaluation, the later stands
    while part >= first:
        by_step.setdefault(rung_step(part, lengths), part)
        part /= section["reduction"]
    fractions = sorted(fraction for step, fraction in by_step.items() if step < lengths.total)
    if not fractions:
        expected = f"None, or 1/{section['reduction']} of the run at or after search.first_rung and at an evaluation"
        hint = f"Take a smaller search.first_rung than {section['first_rung']!r}, or a smaller eval.every"
        raise ConfigError("search.halving", section["halving"], expected, hint)
    return fractions


def rung_step(fraction: float, lengths: Lengths) -> int:
    """Returns the step of a rung: that of the evaluation nearest to it, so that what is compared is a trial's value."""
    return min(lengths.total, max(1, round(fraction * lengths.total / lengths.eval)) * lengths.eval)


def brackets(count: int, rungs: int, section: Config) -> list[int]:
    """Deals trials over brackets: the number of rungs that each passes without being compared, (count,)."""
    if section["halving"] != "hyperband" or not rungs:
        return [0] * count
    reduction = section["reduction"]
    # Each bracket costs about the same: the later it begins, the fewer trials it holds.
    sizes = [reduction ** (rungs - bracket) / (rungs - bracket + 1) for bracket in range(rungs + 1)]
    ends = [end / sum(sizes) for end in accumulate(sizes)]
    parts = [(position * GOLDEN) % 1.0 for position in range(count)]
    return [next(bracket for bracket, end in enumerate(ends) if part < end or bracket == rungs) for part in parts]


def budget_share(fractions: Sequence[float], reduction: int) -> float:
    """Returns the part of all trials' steps that is taken where every rung stops as many as it can."""
    ends = [*fractions, 1.0]
    return sum((end - begin) / reduction**i for i, (begin, end) in enumerate(zip([0.0, *ends], ends, strict=False)))


def survivors(values: Mapping[int, float | None], reduction: int, higher_is_better: bool) -> list[int]:
    """Returns the best 1 / reduction, at least one, of trial -> value; None, for one that diverged, never survives."""
    sign = -1.0 if higher_is_better else 1.0
    alive = [trial for trial, value in values.items() if value is not None]
    order: Sequence[int] = sorted(alive, key=lambda trial: (sign * (values[trial] or 0.0), trial))
    return sorted(order[: max(1, len(values) // reduction)])
