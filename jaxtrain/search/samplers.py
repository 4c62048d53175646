"""Samplers: which points of the space are tried. Ours are functions of seed and number; others come from Optuna."""

import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from jaxtrain.errors import ConfigError, nearest, one_of
from jaxtrain.search.space import Point, Space
from jaxtrain.search.trials import Outcome


class Sampler(Protocol):
    """Is asked for points and told what came of them, batch by batch."""

    def ask(self, numbers: Sequence[int]) -> list[Point]:
        """Returns a point for each number; number 0 is the config's own values."""
        ...

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Learns from the outcomes of the batch that was asked for last."""
        ...


class Listed:
    """A sampler that learns nothing: the point of a number is a function of that number."""

    def __init__(self, space: Space, point: Callable[[int], Point]) -> None:
        """Takes the function; `point(1)` is the first point beside the config's own values."""
        self._space, self._point = space, point

    def ask(self, numbers: Sequence[int]) -> list[Point]:
        """Returns the points."""
        return [self._point(number) if number else self._space.own for number in numbers]

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Learns nothing."""


def grid(space: Space) -> Listed:
    """Every combination of the values, the last dimension moving fastest; ranges need a count."""
    points = list(space.points())
    return Listed(space, lambda number: points[number - 1])


def random(space: Space) -> Listed:
    """Independent draws, uniform in each dimension (in the logarithm for "log_uniform")."""

    def point(number: int) -> Point:
        draws = np.random.default_rng([space.config["seed"], number])
        parts = dict(zip(space.dimensions, draws.random(len(space.dimensions)), strict=True))
        return space.suggest(lambda dimension: dimension.at(parts[dimension]))

    return Listed(space, point)


def sobol(space: Space) -> Listed:
    """A scrambled Sobol sequence, which covers the space more evenly than independent draws (scipy's, Owen 1998)."""

    def point(number: int) -> Point:
        parts = dict(zip(space.dimensions, _sobol(len(space.dimensions), space.config["seed"], number), strict=True))
        return space.suggest(lambda dimension: dimension.at(parts[dimension]))

    return Listed(space, point)


def _sobol(dimensions: int, seed: int, number: int) -> np.ndarray:
    """Returns the point of a number, from 1: sequences are made in powers of two, the longer ones continuing."""
    return _sobol_sequence(dimensions, seed, max(6, (number - 1).bit_length()))[number - 1]


@functools.lru_cache(maxsize=4)
def _sobol_sequence(dimensions: int, seed: int, power: int) -> np.ndarray:
    from scipy.stats import qmc  # a third of a second

    return qmc.Sobol(dimensions, rng=np.random.default_rng(seed)).random_base2(power)


SAMPLERS: dict[str, Callable[[Space], Listed]] = {"grid": grid, "random": random, "sobol": sobol}


def make_sampler(space: Space, higher_is_better: bool) -> Sampler:
    """Makes the sampler that `search.sampler` names; ConfigError for one that is unknown or not installed."""
    name = space.config["search"]["sampler"]
    if name in SAMPLERS:
        return SAMPLERS[name](space)
    if name != "tpe" and not name.startswith("optuna:"):
        names = (*SAMPLERS, "tpe", "optuna:GPSampler")
        expected = one_of([*SAMPLERS, "tpe", "optuna:SAMPLER, such as optuna:GPSampler"])
        raise ConfigError("search.sampler", name, expected, nearest(name, names))
    from jaxtrain.search.optuna_samplers import OptunaSampler

    return OptunaSampler(space, name, higher_is_better)


def number_of_trials(space: Space) -> int:
    """Returns how many trials a study has; ConfigError for a grid with more points than `search.trials`.

    A grid has its points and the config's own values; with other samplers those count among `search.trials`.
    """
    section = space.config["search"]
    if section["sampler"] != "grid":
        return section["trials"]
    size = space.size()
    if size > section["trials"]:
        hint = "Take fewer values, or allow as many trials"
        raise ConfigError("search.trials", section["trials"], f"at least {size:,}, the points of the grid", hint)
    return size + 1
