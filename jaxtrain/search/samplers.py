"""Samplers choose the points to try: ours as functions of seed and trial number, others by Optuna."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jaxtrain.errors import ConfigError, message, nearest, one_of
from jaxtrain.search.space import Point, Space, identify
from jaxtrain.search.trials import Outcome

MOST_MISSES = 1000
"""Draws in a row that repeat a point of a finite space, after which those left are taken one after another."""


class Sampler(Protocol):
    """Proposes points and learns from their outcomes, batch by batch."""

    def ask(self, numbers: Sequence[int]) -> list[Point]:
        """Returns a point for each trial number; number 0 is the config's own values."""
        ...

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Learns from the outcomes of the last batch asked for."""
        ...


class NonAdaptiveSampler:
    """A sampler that ignores outcomes: a point is a function of the trial number."""

    def __init__(self, space: Space, point: Callable[[int], Point]) -> None:
        """Takes the function from trial number to point; `point(1)` is the first after the config's own values."""
        self._space = space
        self._point = point

    def ask(self, numbers: Sequence[int]) -> list[Point]:
        """Returns the points."""
        return [self._point(number) if number else self._space.own for number in numbers]

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Does nothing."""


def grid(space: Space) -> NonAdaptiveSampler:
    """Tries every combination of the values but the config's own; the last dimension varies fastest.

    Ranges of floats need a count.
    """
    own = identify(space.own)
    points = [point for point in space.points() if identify(point) != own]
    return NonAdaptiveSampler(space, lambda number: points[number - 1])


def random(space: Space) -> NonAdaptiveSampler:
    """Draws points uniformly in each dimension, or in its logarithm; none is drawn twice."""

    def point(number: int) -> Point:
        draws = np.random.default_rng([space.config["seed"], number])
        fractions = dict(zip(space.dimensions, draws.random(len(space.dimensions)), strict=True))
        return space.suggest(lambda dimension: dimension.at(fractions[dimension]))

    return NonAdaptiveSampler(space, _without_repeats(space, point))


def sobol(space: Space) -> NonAdaptiveSampler:
    """Draws a scrambled Sobol sequence, which covers the space more evenly than random draws (scipy's, Owen 1998).

    No point is drawn twice.
    """

    def point(number: int) -> Point:
        row = _sobol(len(space.dimensions), space.config["seed"], number)
        fractions = dict(zip(space.dimensions, row, strict=True))
        return space.suggest(lambda dimension: dimension.at(fractions[dimension]))

    return NonAdaptiveSampler(space, _without_repeats(space, point))


def _without_repeats(space: Space, draw: Callable[[int], Point]) -> Callable[[int], Point]:
    """Returns a function from trial number to point whose points differ from each other and from the config's own."""
    if not space.can_repeat:
        return draw
    points: list[Point] = []
    rest = _different_points(space, draw)

    def point(number: int) -> Point:
        while len(points) < number:
            points.append(next(rest))
        return points[number - 1]

    return point


def _different_points(space: Space, draw: Callable[[int], Point]) -> Iterator[Point]:
    """Yields the first of equal draws; of a finite space every point, in the end."""
    seen = {identify(space.own)}
    number = misses = 0
    while misses < MOST_MISSES or not space.is_finite:
        number += 1
        point = draw(number)
        if identify(point) in seen:
            misses += 1
            continue
        misses = 0
        seen.add(identify(point))
        yield point
    yield from (point for point in space.points() if identify(point) not in seen)


def _sobol(dimensions: int, seed: int, number: int) -> np.ndarray:
    """Returns the point (dimensions,) of a trial number from 1.

    Sequences have lengths of powers of two; a longer one starts with the points of the shorter ones.
    """
    return _sobol_sequence(dimensions, seed, max(6, (number - 1).bit_length()))[number - 1]


@functools.lru_cache(maxsize=4)
def _sobol_sequence(dimensions: int, seed: int, power: int) -> np.ndarray:
    from scipy.stats import qmc  # imported here, because it takes a third of a second

    return qmc.Sobol(dimensions, rng=np.random.default_rng(seed)).random_base2(power)


SAMPLERS: dict[str, Callable[[Space], NonAdaptiveSampler]] = {"grid": grid, "random": random, "sobol": sobol}


def make_sampler(space: Space, higher_is_better: bool) -> Sampler:
    """Makes the sampler named by `search.sampler`; raises ConfigError for one that is unknown or not installed."""
    name = space.config["search"]["sampler"]
    if name in SAMPLERS:
        return SAMPLERS[name](space)
    if name != "tpe" and not name.startswith("optuna:"):
        names = (*SAMPLERS, "tpe", "optuna:GPSampler")
        expected = one_of([*SAMPLERS, "tpe", "optuna:SAMPLER, such as optuna:GPSampler"])
        raise ConfigError("search.sampler", name, expected, nearest(name, names))
    from jaxtrain.search.optuna_samplers import OptunaSampler

    return OptunaSampler(space, name, higher_is_better)


MOST_AT_A_TIME = 32
"""Trials of a batch where the config does not say."""

PARTS = 4
"""Batches, at least, in which a sampler that learns proposes the trials of a study."""


def batch_size(section: Mapping[str, Any]) -> int:
    """Returns the trials that the sampler of a section `search` proposes at a time.

    A sampler that learns from results sees those of a quarter of the trials before it proposes the second quarter.
    """
    if section["batch"] is not None:
        return section["batch"]
    return MOST_AT_A_TIME if section["sampler"] in SAMPLERS else max(1, min(MOST_AT_A_TIME, section["trials"] // PARTS))


def number_of_trials(space: Space) -> int:
    """Returns the number of trials of a study; raises ConfigError for a grid with more points than `search.trials`.

    Trial 0 has the config's own values. With a grid that lacks them it comes in addition to the grid's points; with
    other samplers it is one of `search.trials`. Our samplers try no point twice, so a finite space limits the trials.
    """
    section = space.config["search"]
    if section["sampler"] not in SAMPLERS or (section["sampler"] != "grid" and not space.is_finite):
        return section["trials"]
    size = space.size()
    different = size if space.contains(space.own) else size + 1
    if section["sampler"] != "grid":
        return min(section["trials"], different)
    if size > section["trials"]:
        hint = "Take fewer values, or allow as many trials"
        raise ConfigError("search.trials", section["trials"], f"at least {size:,}, the points of the grid", hint)
    return different


def exhaustion(space: Space) -> str:
    """Returns a line that says that `search.trials` is more than the space has points; empty if it is not."""
    section = space.config["search"]
    trials = number_of_trials(space)
    if section["sampler"] == "grid" or trials == section["trials"]:
        return ""
    own = "" if space.contains(space.own) else " and the config's own values"
    expected = f"at most {trials}: the {space.size()} points of the space{own}"
    return message("search.trials", section["trials"], expected, "Each is tried once, and the search ends")
