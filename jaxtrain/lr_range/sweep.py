"""Trains the lanes of a range test: each rate through a schedule of its own, or all rates as a ramp in one lane."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.config.registry import Values
from jaxtrain.core.batches import Batches
from jaxtrain.core.metric import Mean
from jaxtrain.core.state import Rules, TrainState
from jaxtrain.core.steps import StepFunction, train_step
from jaxtrain.errors import ConfigError, nearest
from jaxtrain.parallel.mesh import Devices, device_mesh
from jaxtrain.parallel.population import Population
from jaxtrain.parallel.width import fit_width

CAPACITY = 100  # maximum steps of one call; longer lanes make several
START = "lr_range.start"
STOP = "lr_range.stop"
RATES = "lr_range.rates"

BatchMaker = Callable[[int, int, int], Batches]
"""(step, count, capacity) -> batches of `count` steps from `step` on, padded to `capacity`."""

StartLanes = Callable[[TrainState, Population], TrainState]
"""(initial states, their population) -> the states that the lanes start from."""


class Ramp(NamedTuple):
    """A schedule that raises `target` exponentially, one rate per step, and keeps all other values."""

    target: str

    def __call__(self, step: jax.Array, hparams: Values) -> dict[str, jax.Array]:
        """Returns hparams with the target at start * (stop / start) ** (step / (rates - 1))."""
        fraction = jnp.asarray(step, jnp.float32) / (hparams[RATES] - 1.0)
        rate = jnp.exp(jnp.log(hparams[START]) * (1.0 - fraction) + jnp.log(hparams[STOP]) * fraction)
        return {**hparams, self.target: rate}


def _unchanged(states: TrainState, population: Population) -> TrainState:
    return states


@dataclass(frozen=True)
class Setup:
    """The setup that all lanes of a range test share.

    judge: batches whose loss after the last step judges a lane, usually the validation split; None: its mean training
    loss over the last fifth of the steps. mesh: None for all local devices. width: lanes that a device takes at a time;
    None chooses it. capacity: most steps of one call. start: changes the initial states, such as to the weights of
    another run. share_frozen: whether all lanes have equal frozen parameters (`Population`).
    """

    rules: Rules
    hparams: Mapping[str, Any]
    batches: BatchMaker
    judge: Iterable[Batches] | None = None
    capacity: int = CAPACITY
    mesh: Devices | None = None
    width: int | None = None
    step: StepFunction = train_step
    start: StartLanes = _unchanged
    share_frozen: bool = False

    def population(self, rules: Rules, lanes: int) -> Population:
        """Returns the program of a number of lanes, at width 1."""
        mesh = self.mesh or device_mesh(None)
        return Population(rules, mesh, lanes, step=self.step, share_frozen=self.share_frozen)


class Points(NamedTuple):
    """The points of a sweep: every rate of `target`, every value of the `second` float (name, values), every seed.

    There is one lane for each; losses over them have the shape (values, rates, seeds), with one value if `second` is
    None. `allows` tells whether a rate beyond the range may be tried, too.
    """

    target: str
    rates: np.ndarray
    seeds: Sequence[int]
    second: tuple[str, np.ndarray] | None = None
    allows: Callable[[float], bool] = lambda rate: True

    @property
    def shape(self) -> tuple[int, int, int]:
        """Returns the numbers of values, rates and seeds."""
        return len(self.second[1]) if self.second else 1, len(self.rates), len(self.seeds)

    def check(self, hparams: Mapping[str, Any]) -> None:
        """Raises ConfigError for rates that are no range, no seeds, and floats that `hparams` lacks."""
        rates = np.asarray(self.rates)
        if len(rates) < 5 or rates[0] <= 0 or not np.all(np.diff(rates) > 0):
            raise ConfigError("rates", rates.tolist(), "at least five positive numbers, ascending")
        if not len(self.seeds):
            raise ConfigError("seeds", list(self.seeds), "at least one seed")
        second = self.second[0] if self.second else None
        for key, name in (("target", self.target), ("second", second)):
            if name is not None and name not in hparams:
                raise ConfigError(key, name, f"a float among {', '.join(hparams)}", nearest(name, hparams))
        if second == self.target:
            raise ConfigError("second", second, f"another float than the target, {self.target}")


class LaneSweep:
    """Trains lanes at all points, for any number of steps and any part of the rates, by the programs of one population.

    Lanes start from the same weights for the same seed. Fewer rates than at first leave lanes empty, which cost nothing
    where lanes are taken one at a time.
    """

    def __init__(self, setup: Setup, points: Points) -> None:
        """Compiles the programs, as wide as memory allows; raises UsageError if the lanes do not fit."""
        self._setup = setup
        self._points = points
        self._population = _fit(setup, points)

    def losses(self, steps: int, rates: np.ndarray) -> np.ndarray:
        """Returns the losses (values, rates, seeds) of lanes that train `steps` steps through a whole schedule.

        A lane that diverged has the loss nan.
        """
        setup = self._setup
        points = self._points._replace(rates=rates)
        population = self._population_of(points)
        hparams = {**_lane_hparams(setup.hparams, points), "train.total_steps": float(steps)}
        states = _start(setup, population, points, hparams)
        states, train_losses = _train(setup, population, states, steps)
        if setup.judge is None:
            losses = train_losses[:, -max(1, steps // 5) :].mean(axis=1)
        else:
            losses = finish_each(population.fetch(population.evaluate(states, setup.judge)["loss"]))
        losses = np.where(population.fetch(states.live) & np.isfinite(losses), losses, np.nan)
        return losses.reshape(points.shape)

    def untrained(self) -> np.ndarray:
        """Returns the losses (seeds,) of the initial weights; nan without batches to judge."""
        points = self._points._replace(rates=self._points.rates[:1], second=None)
        if self._setup.judge is None:
            return np.full(len(points.seeds), np.nan)
        population = self._population_of(points)
        states = _start(self._setup, population, points, _lane_hparams(self._setup.hparams, points))
        return finish_each(population.fetch(population.evaluate(states, self._setup.judge)["loss"]))

    def _population_of(self, points: Points) -> Population:
        lanes = int(np.prod(points.shape))
        return self._population.with_lanes(lanes) if lanes <= self._population.lanes else _fit(self._setup, points)


def _fit(setup: Setup, points: Points) -> Population:
    """Makes a population of a lane for each point, as wide as memory allows."""
    lanes = setup.population(setup.rules, int(np.prod(points.shape)))
    return fit_width(lanes, setup.width, _lane_hparams(setup.hparams, points), setup.batches(0, 1, setup.capacity))


def sweep_ramp(setup: Setup, points: Points) -> np.ndarray:
    """Returns the training losses (values, rates, seeds) of lanes whose rate rises with each step.

    Each rate is judged by the loss of its batch before its update; nan after a lane diverged.
    """
    hparams = _lane_hparams(setup.hparams, points._replace(rates=points.rates[:1]))
    hparams |= {START: points.rates[0], STOP: points.rates[-1], RATES: float(len(points.rates))}
    values, rates, seeds = points.shape
    rules = setup.rules._replace(schedule=Ramp(points.target))
    population = setup.population(rules, values * seeds)
    population = fit_width(population, setup.width, hparams, setup.batches(0, 1, setup.capacity))
    states = _start(setup, population, points._replace(rates=points.rates[:1]), hparams)
    _, losses = _train(setup, population, states, rates)
    losses = np.where(np.isfinite(losses), losses, np.nan)
    return losses.reshape(values, seeds, rates).swapaxes(1, 2)


def _lane_hparams(hparams: Mapping[str, Any], points: Points) -> dict[str, Any]:
    """Returns every float of every lane, in the order of the losses."""
    values, rates, seeds = points.shape
    lanes = {**hparams, points.target: np.tile(np.repeat(points.rates, seeds), values)}
    if points.second:
        name, each = points.second
        lanes[name] = np.repeat(each, rates * seeds)
    return lanes


def _start(setup: Setup, population: Population, points: Points, hparams: Mapping[str, Any]) -> TrainState:
    """Makes the states that the lanes start from."""
    values, rates, _ = points.shape
    example = setup.batches(0, 1, setup.capacity).example
    states = population.init(np.tile(points.seeds, values * rates), hparams, example)
    return setup.start(states, population)


def _train(setup: Setup, population: Population, states: Any, steps: int) -> tuple[Any, np.ndarray]:
    """Trains for `steps` steps; returns the states and the losses (lanes, steps), nan after divergence."""
    losses = []
    for begin in range(0, steps, setup.capacity):
        count = min(setup.capacity, steps - begin)
        states, output = population.call(states, setup.batches(begin, count, setup.capacity), count)
        losses.append(finish_each(population.fetch(output.metrics["loss"]))[:, :count])
    return states, np.concatenate(losses, axis=1)


def finish_each(metric: Mean) -> np.ndarray:
    """Returns the values of stacked sums and counts, in the shape of the counts; nan where nothing was counted.

    `finish` is called once for each value, since a user's own function need not accept stacked totals.
    """
    sums = metric.sum.reshape(-1, *metric.sum.shape[metric.count.ndim :])
    totals = zip(sums, metric.count.ravel(), strict=True)
    values = [metric.finish(total, count) if count > 0 else np.nan for total, count in totals]
    return np.asarray(values).reshape(metric.count.shape)
