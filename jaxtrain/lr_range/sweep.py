"""The learning-rate range test: many rates as lanes of one program, or one ramp over them, and what they suggest."""

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

CAPACITY = 100  # steps of one call; a test is some of them
START, STOP, RATES = "lr_range.start", "lr_range.stop", "lr_range.rates"

BatchMaker = Callable[[int, int, int], Batches]
"""(step, count, capacity) -> the batches of `count` steps from `step` on, with room for `capacity`."""


class Ramp(NamedTuple):
    """A schedule under which `target` rises exponentially, a rate a step, and every other value stays as it is."""

    target: str

    def __call__(self, step: jax.Array, hparams: Values) -> dict[str, jax.Array]:
        """Returns hparams with the target at start * (stop / start) ** (step / (rates - 1))."""
        part = jnp.asarray(step, jnp.float32) / (hparams[RATES] - 1.0)
        rate = jnp.exp(jnp.log(hparams[START]) * (1.0 - part) + jnp.log(hparams[STOP]) * part)
        return {**hparams, self.target: rate}


@dataclass(frozen=True)
class LRRangeResult:
    """What a range test found.

    target: the name of the float that was varied; rates (rates,); losses (rates, seeds), nan where a lane diverged;
    reading: rules, suggestion, band, falling interval, unstable edge, None where all lanes diverged; second: name and
    values (n,) of a second float, with `grid` (n, rates), the median losses over both, infinite where most seeds
    diverged; `losses` are those of its best row.
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
        """Says "done", or "diverged" where no lane was left to read."""
        return "done" if self.reading else "diverged"

    @property
    def agreed(self) -> bool:
        """Whether the suggestion may be trained with unasked."""
        return self.reading is not None and self.reading.agreed

    @property
    def suggestion(self) -> float | None:
        """The suggested rate; None where nothing falls."""
        return self.reading.suggestion if self.reading else None

    @property
    def band(self) -> np.ndarray:
        """The 10 %, 50 % and 90 % quantiles of the losses over seeds, (3, rates); infinite where lanes diverged."""
        return np.quantile(
            np.where(np.isfinite(self.losses), self.losses, np.inf), (0.1, 0.5, 0.9), axis=1, method="nearest"
        )

    def plot(self) -> "Figure":
        """Draws the curve with its band, the falling interval, the suggestion and the unstable edge."""
        from jaxtrain.lr_range.plot import plot_lr_range

        return plot_lr_range(self)

    def to_json(self) -> dict[str, Any]:
        """Returns a dict of what JSON can hold."""
        read = self.reading._asdict() if self.reading else {"agreed": False, "suggestion": None}
        second = {"second": self.second[0], "second_values": self.second[1], "grid": self.grid} if self.second else {}
        return {
            "status": self.status,
            "method": self.method,
            "target": self.target,
            **read,
            "rates": self.rates,
            "losses": self.losses,
            **second,
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "LRRangeResult":
        """Returns what `to_json` was given, also after a way through a JSON file."""
        reading = Reading(**{name: _tupled(saved[name]) for name in Reading._fields}) if "rules" in saved else None
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
    """Tests rates (n,), ascending, over seeds; pure: states are made here, and nothing of the caller's changes.

    By "lanes" every rate trains alone from the same weights for `steps` steps of a whole schedule, and is judged by its
    loss on `judge` (None: by its training loss over the last fifth of the steps). By "ramp" the rate rises with every
    step, a minibatch each, and the training loss before each update is read. `second` names another float and its
    values. ConfigError for rates that are no range and for floats that are not in `hparams`, UsageError where the lanes
    do not fit in memory.
    """
    _check(rates, hparams, target, second[0] if second else None)
    if method not in ("lanes", "ramp"):
        raise ConfigError("method", method, "lanes, ramp")
    if not len(seeds) or steps < 1:
        raise ConfigError("seeds, steps", (list(seeds), steps), "at least one seed and one step")
    mesh = mesh or device_mesh(None)
    shared = _Shared(rules, hparams, batches, judge, mesh, width, step)
    values = second[1] if second else np.asarray([0.0])
    lanes = [{second[0]: value} if second else {} for value in values]
    test = _ramp if method == "ramp" else _lanes
    found = test(shared, np.asarray(rates, np.float64), list(seeds), target, lanes, steps)
    found = np.where(np.isfinite(found), found, np.nan)
    middle = np.median(np.where(np.isfinite(found), found, np.inf), axis=2)
    lowest = np.min(middle, axis=1)
    losses = found[int(np.argmin(lowest))]
    return LRRangeResult(
        method,
        target,
        np.asarray(rates),
        losses,
        read_curve(np.asarray(rates), losses, TOLERANCE if method == "ramp" else tolerance_for(steps)),
        second,
        middle if second else None,
    )


def _check(rates: np.ndarray, hparams: Mapping[str, Any], target: str, second: str | None) -> None:
    """Refuses rates that are no range, and floats that the program does not have."""
    if len(rates) < 5 or rates[0] <= 0 or not np.all(np.diff(rates) > 0):
        raise ConfigError("rates", np.asarray(rates).tolist(), "at least five positive numbers, ascending")
    for key, name in (("target", target), ("second", second)):
        if name is not None and name not in hparams:
            raise ConfigError(key, name, f"a float among {', '.join(hparams)}", nearest(name, hparams))
    if second == target:
        raise ConfigError("second", second, f"another float than the target, {target}")


class _Shared(NamedTuple):
    """What all lanes of a test have in common."""

    rules: Rules
    hparams: Mapping[str, Any]
    batches: BatchMaker
    judge: Batches | None
    mesh: Devices
    width: int | None
    step: StepFunction


def _lanes(
    shared: _Shared, rates: np.ndarray, seeds: list[int], target: str, values: list[dict[str, float]], steps: int
) -> np.ndarray:
    """Returns the losses (values, rates, seeds) of lanes that train alone, each through a whole schedule."""
    shape = (len(values), len(rates), len(seeds))
    hparams = {**shared.hparams, "train.total_steps": float(steps)}
    hparams |= {name: np.repeat([value[name] for value in values], shape[1] * shape[2]) for name in values[0]}
    hparams[target] = np.tile(np.repeat(rates, shape[2]), shape[0])
    population, states = _started(shared, shared.rules, np.tile(seeds, shape[0] * shape[1]), hparams)
    states, losses = _trained(shared, population, states, steps)
    alive = population.fetch(states.live)
    if shared.judge is None:
        found = losses[:, -max(1, steps // 5) :].mean(axis=1)
    else:
        found = finish_each(population.fetch(population.evaluate(states, shared.judge)["loss"]))
    return np.where(alive, found, np.nan).reshape(shape)


def _ramp(
    shared: _Shared, rates: np.ndarray, seeds: list[int], target: str, values: list[dict[str, float]], steps: int
) -> np.ndarray:
    """Returns the training losses (values, rates, seeds) of a rate that rises from step to step."""
    hparams = {**shared.hparams, START: rates[0], STOP: rates[-1], RATES: float(len(rates))}
    hparams |= {name: np.repeat([value[name] for value in values], len(seeds)) for name in values[0]}
    rules = shared.rules._replace(schedule=Ramp(target))
    population, states = _started(shared, rules, np.tile(seeds, len(values)), hparams)
    _, losses = _trained(shared, population, states, len(rates))
    return losses.reshape(len(values), len(seeds), len(rates)).swapaxes(1, 2)


def _started(shared: _Shared, rules: Rules, seeds: np.ndarray, hparams: Mapping[str, Any]) -> tuple[Population, Any]:
    """Makes the lanes' states, as wide a program as the memory allows."""
    population = Population(rules, shared.mesh, lanes=len(seeds), step=shared.step)
    batches = shared.batches(0, 1, CAPACITY)
    population = fit_width(population, shared.width, hparams, batches)
    return population, population.init(seeds, hparams, batches.example)


def _trained(shared: _Shared, population: Population, states: Any, steps: int) -> tuple[Any, np.ndarray]:
    """Takes the steps, and returns the states and the losses (lanes, steps), nan after a lane has diverged."""
    losses = []
    for at in range(0, steps, CAPACITY):
        count = min(CAPACITY, steps - at)
        states, output = population.call(states, shared.batches(at, count, CAPACITY), count)
        losses.append(finish_each(population.fetch(output.metrics["loss"]))[:, :count])
    return states, np.concatenate(losses, axis=1)


def finish_each(metric: Mean) -> np.ndarray:
    """Returns the numbers that stacked sums and counts come to, in the shape of the counts; nan where none is counted.

    One by one: a metric of a user's own finishes those of a single run.
    """
    sums = metric.sum.reshape(-1, *metric.sum.shape[metric.count.ndim :])
    each = zip(sums, metric.count.ravel(), strict=True)
    return np.asarray([metric.finish(s, c) if c > 0 else np.nan for s, c in each]).reshape(metric.count.shape)


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
