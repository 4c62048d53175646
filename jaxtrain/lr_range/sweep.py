"""The learning-rate range test: many rates as lanes of one program, or a ramp over them in one run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.config.registry import Values
from jaxtrain.core.batches import Batches
from jaxtrain.core.metric import Mean
from jaxtrain.core.state import Rules
from jaxtrain.core.steps import StepFunction, train_step
from jaxtrain.errors import ConfigError, nearest
from jaxtrain.lr_range.rules import TOLERANCE, Reading, read_curve, tolerance_for
from jaxtrain.parallel.mesh import Devices, device_mesh
from jaxtrain.parallel.population import Population, fit_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPACITY = 100  # maximum steps of one call; longer tests make several
START = "lr_range.start"
STOP = "lr_range.stop"
RATES = "lr_range.rates"

BatchMaker = Callable[[int, int, int], Batches]
"""(step, count, capacity) -> batches of `count` steps from `step` on, padded to `capacity`."""


class Ramp(NamedTuple):
    """A schedule that raises `target` exponentially, one rate per step, and keeps all other values."""

    target: str

    def __call__(self, step: jax.Array, hparams: Values) -> dict[str, jax.Array]:
        """Returns hparams with the target at start * (stop / start) ** (step / (rates - 1))."""
        fraction = jnp.asarray(step, jnp.float32) / (hparams[RATES] - 1.0)
        rate = jnp.exp(jnp.log(hparams[START]) * (1.0 - fraction) + jnp.log(hparams[STOP]) * fraction)
        return {**hparams, self.target: rate}


@dataclass(frozen=True)
class LRRangeResult:
    """Result of a range test.

    target: full name of the varied float; rates (rates,); losses (rates, seeds), nan where a lane diverged; reading:
    what the rules say, None if all lanes diverged; second: name and values (n,) of a second float; grid (n, rates):
    median losses over both floats, infinite where most seeds diverged. With a second float, `losses` are those at its
    best value.
    """

    method: str
    target: str
    rates: np.ndarray
    losses: np.ndarray
    reading: Reading | None
    second: tuple[str, np.ndarray] | None = None
    grid: np.ndarray | None = None

    @property
    def status(self) -> str:
        """Returns "done", or "diverged" if all lanes diverged."""
        return "done" if self.reading else "diverged"

    @property
    def agreed(self) -> bool:
        """Whether the suggestion is reliable enough to be used without confirmation."""
        return self.reading is not None and self.reading.agreed

    @property
    def suggestion(self) -> float | None:
        """The suggested rate; None if no rate lowers the loss."""
        return self.reading.suggestion if self.reading else None

    @property
    def band(self) -> np.ndarray:
        """The 10 %, 50 % and 90 % quantiles of the losses over seeds, (3, rates); diverged lanes count as infinite."""
        losses = np.where(np.isfinite(self.losses), self.losses, np.inf)
        return np.quantile(losses, (0.1, 0.5, 0.9), axis=1, method="nearest")

    def plot(self) -> "Figure":
        """Plots the curve with its band, interval of falling loss, suggestion and unstable rates."""
        from jaxtrain.lr_range.plot import plot_lr_range

        return plot_lr_range(self)

    def to_json(self) -> dict[str, Any]:
        """Returns a dict for a JSON file."""
        reading = self.reading._asdict() if self.reading else {"agreed": False, "suggestion": None}
        second = {"second": self.second[0], "second_values": self.second[1], "grid": self.grid} if self.second else {}
        return {
            "status": self.status,
            "method": self.method,
            "target": self.target,
            **reading,
            "rates": self.rates,
            "losses": self.losses,
            **second,
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "LRRangeResult":
        """Returns the result that `to_json` was called on; `saved` may come from a file."""
        reading = Reading(**{name: _as_tuple(saved[name]) for name in Reading._fields}) if "rules" in saved else None
        second = (saved["second"], np.asarray(saved["second_values"])) if "second" in saved else None
        grid = np.nan_to_num(np.asarray(saved["grid"], float), nan=np.inf) if second else None
        losses = np.asarray(saved["losses"], float)
        return cls(saved["method"], saved["target"], np.asarray(saved["rates"]), losses, reading, second, grid)


def lr_range_test(
    rules: Rules,
    hparams: Mapping[str, Any],
    batches: BatchMaker,
    rates: np.ndarray,
    seeds: Sequence[int],
    *,
    method: str = "lanes",
    steps: int = CAPACITY,
    judge: Batches | None = None,
    target: str = "optimizer.learning_rate",
    second: tuple[str, np.ndarray] | None = None,
    mesh: Devices | None = None,
    width: int | None = None,
    step: StepFunction = train_step,
) -> LRRangeResult:
    """Trains lanes at ascending rates (n,) and several seeds, and suggests a rate; a pure function.

    Method "lanes": each rate trains a lane of its own from the same initial weights, through a whole schedule of
    `steps` steps, and is judged by its loss on the batches `judge`, or for None by its mean training loss over the last
    fifth of the steps. Method "ramp": one lane per seed trains while the rate rises with each step; each rate is judged
    by the training loss before its update. `second` is the name and values of a second float to vary.

    Raises ConfigError for fewer than five rates, rates that do not ascend or floats that `hparams` lacks, and
    UsageError if the lanes do not fit in memory.
    """
    _check_arguments(rates, hparams, target, second[0] if second else None)
    if method not in ("lanes", "ramp"):
        raise ConfigError("method", method, "'lanes' or 'ramp'")
    if not len(seeds) or steps < 1:
        raise ConfigError("seeds, steps", (list(seeds), steps), "at least one seed and one step")
    mesh = mesh or device_mesh(None)
    setup = _Setup(rules, hparams, batches, judge, mesh, width, step)
    sweep = _sweep_ramp if method == "ramp" else _sweep_lanes
    losses = sweep(setup, np.asarray(rates, np.float64), list(seeds), target, second, steps)
    losses = np.where(np.isfinite(losses), losses, np.nan)
    medians = np.median(np.where(np.isfinite(losses), losses, np.inf), axis=2)
    best = int(np.argmin(np.min(medians, axis=1)))
    tolerance = TOLERANCE if method == "ramp" else tolerance_for(steps)
    return LRRangeResult(
        method=method,
        target=target,
        rates=np.asarray(rates),
        losses=losses[best],
        reading=read_curve(np.asarray(rates), losses[best], tolerance),
        second=second,
        grid=medians if second else None,
    )


def _check_arguments(rates: np.ndarray, hparams: Mapping[str, Any], target: str, second: str | None) -> None:
    """Raises ConfigError for rates that are not a range, and for floats that `hparams` lacks."""
    if len(rates) < 5 or rates[0] <= 0 or not np.all(np.diff(rates) > 0):
        raise ConfigError("rates", np.asarray(rates).tolist(), "at least five positive numbers, ascending")
    for key, name in (("target", target), ("second", second)):
        if name is not None and name not in hparams:
            raise ConfigError(key, name, f"a float among {', '.join(hparams)}", nearest(name, hparams))
    if second == target:
        raise ConfigError("second", second, f"another float than the target, {target}")


class _Setup(NamedTuple):
    """Arguments of a test that all its lanes share."""

    rules: Rules
    hparams: Mapping[str, Any]
    batches: BatchMaker
    judge: Batches | None
    mesh: Devices
    width: int | None
    step: StepFunction


def _sweep_lanes(
    setup: _Setup,
    rates: np.ndarray,
    seeds: list[int],
    target: str,
    second: tuple[str, np.ndarray] | None,
    steps: int,
) -> np.ndarray:
    """Returns the losses (second, rates, seeds) of lanes that each train through a whole schedule."""
    shape = (len(second[1]) if second else 1, len(rates), len(seeds))
    hparams = {**setup.hparams, "train.total_steps": float(steps)}
    if second:
        hparams[second[0]] = np.repeat(second[1], shape[1] * shape[2])
    hparams[target] = np.tile(np.repeat(rates, shape[2]), shape[0])
    population, states = _start(setup, setup.rules, np.tile(seeds, shape[0] * shape[1]), hparams)
    states, train_losses = _train(setup, population, states, steps)
    live = population.fetch(states.live)
    if setup.judge is None:
        losses = train_losses[:, -max(1, steps // 5) :].mean(axis=1)
    else:
        losses = finish_each(population.fetch(population.evaluate(states, setup.judge)["loss"]))
    return np.where(live, losses, np.nan).reshape(shape)


def _sweep_ramp(
    setup: _Setup,
    rates: np.ndarray,
    seeds: list[int],
    target: str,
    second: tuple[str, np.ndarray] | None,
    steps: int,
) -> np.ndarray:
    """Returns the training losses (second, rates, seeds) of lanes whose rate rises with each step; ignores `steps`."""
    count = len(second[1]) if second else 1
    hparams = {**setup.hparams, START: rates[0], STOP: rates[-1], RATES: float(len(rates))}
    if second:
        hparams[second[0]] = np.repeat(second[1], len(seeds))
    rules = setup.rules._replace(schedule=Ramp(target))
    population, states = _start(setup, rules, np.tile(seeds, count), hparams)
    _, losses = _train(setup, population, states, len(rates))
    return losses.reshape(count, len(seeds), len(rates)).swapaxes(1, 2)


def _start(setup: _Setup, rules: Rules, seeds: np.ndarray, hparams: Mapping[str, Any]) -> tuple[Population, Any]:
    """Makes the population, as wide as memory allows, and its initial states."""
    population = Population(rules, setup.mesh, lanes=len(seeds), step=setup.step)
    batches = setup.batches(0, 1, CAPACITY)
    population = fit_width(population, setup.width, hparams, batches)
    return population, population.init(seeds, hparams, batches.example)


def _train(setup: _Setup, population: Population, states: Any, steps: int) -> tuple[Any, np.ndarray]:
    """Trains for `steps` steps; returns the states and the losses (lanes, steps), nan after divergence."""
    losses = []
    for begin in range(0, steps, CAPACITY):
        count = min(CAPACITY, steps - begin)
        states, output = population.call(states, setup.batches(begin, count, CAPACITY), count)
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


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
