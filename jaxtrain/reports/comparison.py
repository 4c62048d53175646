"""Compares finished runs: what differs in their configs, and what came of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtrain.config.completion import member_defaults
from jaxtrain.config.defaults import flatten
from jaxtrain.core.metric import as_loss
from jaxtrain.errors import UsageError, nearest, one_of
from jaxtrain.reports.differences import Difference, difference_of
from jaxtrain.reports.direction import is_higher_better
from jaxtrain.reports.figures import format_value
from jaxtrain.reports.runs_to_compare import LeftOut, read_runs
from jaxtrain.reports.saved_runs import STATES, SavedRun, metric_names
from jaxtrain.reports.seed_groups import SeedGroup, differing_keys, group_by_config

SORTS = ("best", "last", "test", "seconds", "name")
"""Keys by which groups are sorted, beside the keys of the config that differ."""

LONGEST_LABEL = 60


@dataclass(frozen=True)
class Comparison:
    """Groups of runs, sorted, and what is needed to show them.

    keys: what differs in their configs and affects their numbers; other_keys: what differs and does not; state: the one
    of STATES by which groups are compared.
    """

    groups: list[SeedGroup]
    metric: str
    higher_is_better: bool
    state: str
    keys: list[str]
    other_keys: list[str]
    left_out: list[LeftOut]

    @cached_property
    def runs(self) -> list[SavedRun]:
        """All runs that are compared."""
        return [run for group in self.groups for run in group.runs]

    @cached_property
    def folder(self) -> Path:
        """The folder that holds all of the runs."""
        parents = [run.place.parent for run in self.runs]
        return next(
            place for place in (parents[0], *parents[0].parents) if all(p.is_relative_to(place) for p in parents)
        )

    def name_of(self, run: SavedRun) -> str:
        """Returns the directory of a run as seen from the folder of all."""
        return str(run.place.relative_to(self.folder))

    def name_of_group(self, group: SeedGroup) -> str:
        """Returns the name of a group's first run, and the number of others."""
        more = len(group.runs) - 1
        return self.name_of(group.runs[0]) + (f" and {more} more" if more else "")

    @cached_property
    def shown_keys(self) -> list[str]:
        """The keys that tell groups apart: not those that only come with another member, such as its defaults."""
        return [key for key in self.keys if not self._follows_from_name(key)]

    def _follows_from_name(self, key: str) -> bool:
        """Tells whether a key differs only since members differ in it: each group has its own member's default."""
        path, _, knob = key.rpartition(".")
        if knob == "name" or f"{path}.name" not in self.keys:
            return False
        having = [group.settings for group in self.groups if key in group.settings]
        family = path.partition(".")[0]
        return all(
            knob in (defaults := member_defaults(family, own[f"{path}.name"])) and own[key] == defaults[knob]
            for own in having
        )

    def short_name(self, key: str) -> str:
        """Returns the last part of a key, or the section for a member's name; the whole where two would be the same."""
        parts = [_last_part(own) for own in self.shown_keys]
        return _last_part(key) if parts.count(_last_part(key)) == 1 else key

    def label_of(self, group: SeedGroup) -> str:
        """Returns the values in which a group differs, where they are few, else its name."""
        named = [(self.short_name(key), group.settings.get(key)) for key in self.shown_keys]
        text = ", ".join(f"{name} {format_value(value)}" for name, value in named if value is not None)
        return text if text and len(text) <= LONGEST_LABEL else self.name_of_group(group)

    @cached_property
    def reference(self) -> SeedGroup | None:
        """The best group; None if none has a value."""
        valued = [group for group in self.groups if group.spread(self.state, self.metric) is not None]
        return min(valued, key=lambda group: self.rank(group, self.state)) if valued else None

    def rank(self, group: SeedGroup, state: str) -> tuple[bool, float]:
        """Returns by what groups are ranked: lower is better, and one without a value is last."""
        spread = group.spread(state, self.metric)
        return spread is None, 0.0 if spread is None else as_loss(spread.mean, self.higher_is_better)

    @cached_property
    def states(self) -> list[str]:
        """The states of which a group has a value of the metric."""
        return [state for state in STATES if any(group.spread(state, self.metric) for group in self.groups)]

    def differences(self, state: str) -> list[Difference | None]:
        """Returns how each group differs from the best one; None for itself, and where one of both has no value."""
        best = self.reference
        if best is None:
            return [None] * len(self.groups)
        others = best.values(state, self.metric)
        return [
            difference_of(group.values(state, self.metric), others, self.higher_is_better)
            if group is not best and group.unit == best.unit
            else None
            for group in self.groups
        ]

    @cached_property
    def environments(self) -> dict[str, dict[str, list[str]]]:
        """Version, device or commit -> value -> the runs that have it, where not all runs have the same."""
        found: dict[str, dict[str, list[str]]] = {}
        for run in self.runs:
            for key, value in _facts(run).items():
                found.setdefault(key, {}).setdefault(format_value(value), []).append(self.name_of(run))
        return {key: values for key, values in found.items() if len(values) > 1}


def _last_part(key: str) -> str:
    return key.removesuffix(".name").rpartition(".")[2]


def compare_runs(folders: Iterable[str | Path], metric: str | None = None, sort: str = "best") -> Comparison:
    """Compares the finished runs in some folders.

    Args:
        folders: directories of runs, and folders that hold some.
        metric: the metric to compare; None: the one by which all runs chose their best step, else the loss.
        sort: one of SORTS, or a key of the config that differs.

    Raises:
        UsageError: a folder holds no run, no run has ended undamaged, or no run has the metric or the key.
    """
    runs, left_out = read_runs(folders)
    chosen = metric or _common_metric(runs)
    names = sorted({name for run in runs for state in STATES for name in metric_names(run, state)})
    if chosen not in names:
        raise UsageError("--metric", chosen, one_of(names), nearest(chosen, names))
    groups = group_by_config(runs)
    keys = differing_keys([group.settings for group in groups])
    all_keys = differing_keys([flatten(run.config) for run in runs])
    others = [key for key in all_keys if key not in {*keys, "seed", "train.seeds"}]
    state = next(s for s in ("best", "last", "test") if any(g.spread(s, chosen) for g in groups) or s == "test")
    found = Comparison(groups, chosen, is_higher_better(chosen, runs), state, keys, others, left_out)
    return _sorted(found, sort)


def _common_metric(runs: Sequence[SavedRun]) -> str:
    metrics = {run.metric for run in runs}
    return metrics.pop() if len(metrics) == 1 else "loss"


def _sorted(found: Comparison, sort: str) -> Comparison:
    """Returns a comparison whose groups are sorted, those without a value last."""
    if sort in STATES:
        order = sorted(found.groups, key=lambda group: found.rank(group, sort))
    elif sort == "seconds":
        order = sorted(found.groups, key=lambda group: group.seconds)
    elif sort == "name":
        order = sorted(found.groups, key=lambda group: found.name_of(group.runs[0]))
    elif sort in found.keys:
        order = sorted(found.groups, key=lambda group: _place(group.settings.get(sort)))
    else:
        known = [*SORTS, *found.keys]
        raise UsageError("--sort", sort, one_of(known), nearest(sort, known))
    return replace(found, groups=order)


def _place(value: Any) -> tuple[bool, bool, float, str]:
    """Returns by what values of one key are sorted: numbers by size, then texts, then missing ones."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None, not is_number, float(value) if is_number else 0.0, str(value)


def _facts(run: SavedRun) -> dict[str, Any]:
    """Returns what may explain a difference that no config shows: versions, devices, code and data."""
    environment = run.environment
    packages = environment.get("packages")
    facts = dict(packages) if isinstance(packages, dict) else {}
    for key in ("python", "platform", "processor", "backend", "devices", "git_commit", "git_dirty", "data_fingerprint"):
        facts[key] = environment.get(key)
    return facts
