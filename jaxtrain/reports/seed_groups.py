"""Runs whose configs differ in nothing but the seed belong together: their numbers are averaged over seeds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxtrain.config.defaults import Config, flatten
from jaxtrain.config.identity import changes_numbers, to_json
from jaxtrain.reports.saved_runs import SavedRun
from jaxtrain.storage.result import Result
from jaxtrain.training.intervals import Interval, interval


@dataclass(frozen=True)
class SeedGroup:
    """Runs of one config with different seeds; a run of several seeds or folds is a group, too.

    settings: dotted name -> value of what affects the numbers of a run, except the seeds.
    """

    runs: tuple[SavedRun, ...]
    settings: dict[str, Any]

    @property
    def unit(self) -> str:
        """The kind of lane over which numbers are averaged: "seed" or "fold"."""
        return self.runs[0].unit

    @cached_property
    def numbers(self) -> list[int]:
        """The seeds or folds, sorted."""
        return sorted({number for run in self.runs for number in run.lane_numbers})

    @cached_property
    def diverged(self) -> list[int]:
        """The seeds or folds that diverged."""
        return sorted({number for run in self.runs for number in run.diverged})

    @property
    def repeated(self) -> list[SavedRun]:
        """The runs all of whose seeds another run of the group has, too."""
        seen: set[int] = set()
        found = []
        for run in self.runs:
            if seen.issuperset(run.lane_numbers):
                found.append(run)
            seen.update(run.lane_numbers)
        return found

    def values(self, state: str, metric: str) -> dict[int, float | None]:
        """Returns seed or fold -> value of a metric at one of STATES; of the first run where several have a seed."""
        merged: dict[int, float | None] = {}
        for run in reversed(self.runs):
            merged |= run.values(state, metric)
        return {number: merged[number] for number in self.numbers}

    def spread(self, state: str, metric: str) -> Interval | None:
        """Returns mean and interval over the seeds or folds that have a value; None if none has one."""
        values = [value for value in self.values(state, metric).values() if value is not None]
        return interval(np.array(values)) if values else None

    @property
    def seconds(self) -> float:
        """The duration of a run, on average."""
        return self._mean_of([result.seconds for result in self._results])

    @property
    def steps(self) -> float:
        """The last step of a run, on average."""
        return self._mean_of([result.step for result in self._results])

    def speed(self, name: str) -> float:
        """Returns a number of the throughput, such as "examples_per_second", on average; nan where none has it."""
        return self._mean_of([result.throughput.get(name, math.nan) for result in self._results])

    @property
    def _results(self) -> list[Result]:
        return [run.result for run in self.runs if run.result is not None]

    def _mean_of(self, values: Sequence[float]) -> float:
        return float(np.mean(values)) if values else math.nan


def group_by_config(runs: Iterable[SavedRun]) -> list[SeedGroup]:
    """Returns the groups, in the order of their first runs."""
    groups: dict[str, list[SavedRun]] = {}
    for run in runs:
        groups.setdefault(to_json(_without_seeds(run.config)), []).append(run)
    return [SeedGroup(tuple(own), flatten(_without_seeds(own[0].config))) for own in groups.values()]


def _without_seeds(config: Config) -> Config:
    kept = changes_numbers(config)
    del kept["seed"]
    return kept | {"train": {name: value for name, value in kept["train"].items() if name != "seeds"}}


def differing_keys(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the sorted names whose values are not the same everywhere; one that is missing counts as None."""
    names = sorted({name for own in settings for name in own})
    return [name for name in names if any(own.get(name) != settings[0].get(name) for own in settings)]
