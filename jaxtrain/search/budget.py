"""The trials and rungs that `search.budget` buys: as many trials as its full runs pay for, stopped early at rungs."""

from collections import Counter
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtrain.config.defaults import Config
from jaxtrain.config.search_budget import budget_seconds, full_runs
from jaxtrain.errors import ConfigError
from jaxtrain.files import exists
from jaxtrain.search.halving import FIRST_RUNG, brackets, rung_fractions, rung_step
from jaxtrain.search.programs import Programs
from jaxtrain.search.samplers import MOST_AT_A_TIME, PARTS, batch_size, number_of_trials
from jaxtrain.search.space import Space, read_space
from jaxtrain.storage.ownership import Owner
from jaxtrain.storage.seals import read_if_sealed, write_sealed
from jaxtrain.training.experiment import Experiment

DEFAULT_TRIALS = 32
"""Trials of a search where neither `search.trials` nor `search.budget` says how many."""

MOST_TRIALS = 1_000_000

FILE = "budget.json"


@dataclass(frozen=True)
class Bought:
    """The trials and rungs that a budget buys.

    trials: their number; halving, first_rung: as in `search`; stages: (step, trials that train up to it); runs: the
    cost, in runs of `steps` steps, all seeds counted.
    """

    trials: int
    halving: str | None
    first_rung: str
    stages: tuple[tuple[int, int], ...]
    runs: float
    steps: int

    @property
    def line(self) -> str:
        """The line that says what was bought."""
        first, *later = self.stages
        parts = [f"{first[1]:,} train to step {first[0]:,}", *(f"{count:,} to {step:,}" for step, count in later)]
        how = f", by {self.halving} halving" if self.halving in ("successive", "asha") else ""
        how = ", by hyperband" if self.halving == "hyperband" else how
        return f"{self.trials:,} trials{how}: {', '.join(parts)}; {self.runs:.4g} full runs of {self.steps:,} steps"


def with_trials(config: Config) -> Config:
    """Returns the config with the number of trials, unless a budget is to buy them.

    Raises ConfigError where both are given, and for a time that several workers would spend.
    """
    section = config["search"]
    text = section["budget"]
    if text is None:
        first_rung = section["first_rung"] or FIRST_RUNG
        return _replaced(config, trials=section["trials"] or DEFAULT_TRIALS, first_rung=first_rung)
    if section["trials"] is not None:
        expected = f"None beside search.budget, {text!r}, which buys as many as it pays for"
        raise ConfigError("search.trials", section["trials"], expected, "Leave one of the two out")
    if section["storage"] is not None and full_runs(text) is None:
        expected = "full runs in a study that workers share, since each would time others"
        raise ConfigError("search.budget", text, expected, "Write it as '10 full runs'")
    return config


def with_bought(
    config: Config,
    experiment: Experiment,
    folder: Path,
    owner: Owner | None,
    timed: Callable[[Config, float], float],
    say: Callable[[str], None],
) -> Config:
    """Returns the config with the trials and the halving that its budget buys, in place of the budget.

    A resumed study keeps what was bought. With another budget it buys again, with the halving and the batches that it
    began with.

    Args:
        config: a config that `with_trials` has seen.
        experiment: its experiment.
        folder: of the study; what was bought is stored there.
        owner: the study in it.
        timed: returns the full runs that fit into a number of seconds.
        say: gets a line on what was bought.

    Raises:
        ConfigError: the budget does not pay for a trial, or for the points of a grid.
    """
    section = config["search"]
    text = section["budget"]
    saved: Mapping[str, Any] = owner.saved.get("search", {}) if owner else {}
    path = folder / FILE
    stored = read_if_sealed(path, say, ("budget", "trials")) if owner and exists(path) else None
    if saved:
        own = {name: section[name] or saved.get(name) for name in ("halving", "batch", "first_rung")}
        config = _replaced(config, **own)
    if stored is not None and stored["budget"] == text:
        say(f"search.budget, {text}: {stored['trials']:,} trials, as bought when the study began")
        return _replaced(config, trials=stored["trials"], budget=None)
    runs = full_runs(text)
    if runs is None:
        runs = timed(config, budget_seconds(text) or 0.0)
    bought = buy(config, experiment, runs, choose_halving=not saved)
    say(f"search.budget, {text}: {bought.line}{_comparison(section)}")
    return _replaced(config, trials=bought.trials, halving=bought.halving, first_rung=bought.first_rung, budget=None)


def store(folder: Path, text: str | None, trials: int) -> None:
    """Writes the budget and the trials that it bought into the folder of a study; nothing without a budget."""
    if text is not None:
        write_sealed(folder / FILE, {"budget": text, "trials": trials})


def buy(config: Config, experiment: Experiment, runs: float, *, choose_halving: bool = True) -> Bought:
    """Returns the most trials that a number of full runs pays for; a full run is one of the config, with one seed.

    Trials that cannot be stopped early take a full run for each seed. Where `search.halving` is None it becomes
    "successive", with one rung at 1 / `search.reduction`, if that buys more, unless not `choose_halving`. Raises
    ConfigError if the runs do not pay for a trial, or for the points of a grid.
    """
    section = config["search"]
    text = section["budget"]
    chooses = section["halving"] is None and choose_halving
    # Rungs before the last one stop trials that would end as the best too often (benchmarks/search_halving.py).
    first_rung = section["first_rung"] or (f"{90 / section['reduction']:.3g} %" if chooses else FIRST_RUNG)
    config = _replaced(config, trials=MOST_TRIALS, first_rung=first_rung)
    space = read_space(config)
    different = number_of_trials(space)
    kinds = [None, "successive"] if chooses else [section["halving"]]
    offers = [_most(space, experiment, kind, runs, different) for kind in kinds if _has_rungs(config, experiment, kind)]
    best = max(offers, key=lambda offer: offer.trials)  # the first of equals, without halving
    least = different if config["search"]["sampler"] == "grid" else 1
    if best.trials < least:
        cheapest = min(_offer(space, experiment, offer.halving, least).runs for offer in offers)
        what = f"the {least:,} points of the grid" if least > 1 else "a trial with its seeds"
        raise ConfigError("search.budget", text, f"at least {cheapest:.4g} full runs, for {what}", "Raise it")
    return best


def describe_purchase(config: Config, run_seconds: float | None) -> str:
    """Says, for a plan, what the budget of a config buys; a time by the seconds of a full run, None if unknown."""
    config = with_trials(config)
    section = config["search"]
    runs = full_runs(section["budget"])
    paid = f"{section['budget']}: "
    if runs is None:
        if run_seconds is None:
            return f"{paid}not timed"
        runs = (budget_seconds(section["budget"]) or 0.0) / run_seconds - 2 * section["compare_seeds"]
        paid = f"{paid}about, at the pace of a single run, "
    bought = buy(config, Programs().experiment(config), runs)
    return f"{paid}{bought.line}{_comparison(section)}"


def _has_rungs(config: Config, experiment: Experiment, kind: str | None) -> bool:
    """Tells whether trials can be stopped by a kind of halving; raises ConfigError if the config itself asks for it."""
    try:
        return kind is None or bool(rung_fractions({**config["search"], "halving": kind}, experiment))
    except ConfigError:
        if config["search"]["halving"] is not None:
            raise
        return False


def _most(space: Space, experiment: Experiment, kind: str | None, runs: float, different: int) -> Bought:
    """Returns the offer of the most trials within a number of runs; of no trials if one costs more."""
    many = PARTS * MOST_AT_A_TIME  # a larger number is asked for in whole batches
    most = int(runs * many / _offer(space, experiment, kind, many).runs) + many
    for trials in range(min(different, most), 0, -1):  # downwards: with small batches, fewer may cost more
        if (offer := _offer(space, experiment, kind, trials)).runs <= runs:
            return offer
    return Bought(0, kind, space.config["search"]["first_rung"], (), 0.0, experiment.lengths.total)


def _offer(space: Space, experiment: Experiment, kind: str | None, trials: int) -> Bought:
    """Returns the cost of a number of trials by a kind of halving."""
    section = {**space.config["search"], "trials": trials, "halving": kind}
    lengths = experiment.lengths
    fractions = rung_fractions(section, experiment)
    steps = [rung_step(fraction, lengths) for fraction in [*fractions, 1.0]]
    batch = trials if kind == "asha" else min(trials, batch_size(section))
    whole, rest = divmod(trials, batch)
    counts = [whole * count for count in survivors_by_rung(batch, len(fractions), section)]
    if rest:
        counts = [a + b for a, b in zip(counts, survivors_by_rung(rest, len(fractions), section), strict=True)]
    starts = [0, *steps[:-1]]
    taken = sum(count * (end - start) for count, start, end in zip(counts, starts, steps, strict=True))
    runs = section["seeds"] * taken / lengths.total
    stages = tuple(zip(steps, counts, strict=True))
    return Bought(trials, kind, section["first_rung"], stages, runs, lengths.total)


def survivors_by_rung(batch: int, rungs: int, section: Config) -> list[int]:
    """Returns how many trials of a batch train up to each rung and to the end, (rungs + 1,), if none diverges."""
    alive = Counter(brackets(batch, rungs, section))
    counts = [batch]
    for rung in range(rungs):
        for bracket in range(rung + 1):
            if alive[bracket]:
                alive[bracket] = max(1, alive[bracket] // section["reduction"])
        counts.append(alive.total())
    return counts


def _comparison(section: Config) -> str:
    runs = 2 * section["compare_seeds"]
    if not runs:
        return ""
    added = "is paid from the time" if full_runs(section["budget"]) is None else "comes on top"
    return f"; the comparison, {runs} full runs, {added}"


def _replaced(config: Config, **values: Any) -> Config:
    """Returns a config with other values in its section `search`."""
    section = copy(config["search"])
    section.update(values)
    return {**config, "search": section}
