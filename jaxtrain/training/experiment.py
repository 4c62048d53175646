"""An experiment: all that a resolved config comes to before its first step."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import numpy as np

from jaxtrain.config.defaults import Config, family
from jaxtrain.config.hparams import hyperparameters
from jaxtrain.core.batches import Batches
from jaxtrain.core.metric import Mean
from jaxtrain.core.state import Rules, TrainState
from jaxtrain.data import load as load_data
from jaxtrain.data.batches import batch_indices, eval_batches
from jaxtrain.data.dataset import Dataset
from jaxtrain.data.info import DataInfo
from jaxtrain.optimizers import Optimizer
from jaxtrain.optimizers.schedules import Schedule, schedule_of
from jaxtrain.parallel.mesh import Devices, compiled_eval_call, compiled_init, device_mesh, replicate, whole_shapes
from jaxtrain.tasks import make_task
from jaxtrain.training.checks import (
    check_devices,
    check_metrics,
    check_plateaus,
    check_schedule_free,
    warn_of_mini_batches,
)
from jaxtrain.training.lengths import Lengths, lengths_of

CAPACITY = 500  # steps that one call can take; the compiled program is the same for every length up to it


@dataclass(frozen=True, eq=False)
class Experiment:
    """Config, data, devices, rules and durations of a run.

    `suggested` holds floats that a range test put in place, `device_splits` the splits that lie on the devices already.
    """

    config: Config
    dataset: Dataset
    mesh: Devices
    rules: Rules
    lengths: Lengths
    suggested: Mapping[str, float] = field(default_factory=dict)
    device_splits: dict[tuple[str, Devices], dict[str, jax.Array]] = field(default_factory=dict, repr=False)

    @property
    def hparams(self) -> dict[str, np.float32]:
        """Every float that enters the program: the config's, the total number of steps, what plateaus remember."""
        run = {"train.total_steps": self.lengths.total} | self.schedule.remembered
        floats = hyperparameters(self.config) | run | dict(self.suggested)
        return {name: np.float32(value) for name, value in floats.items()}

    @functools.cached_property
    def schedule(self) -> Schedule:
        """The schedules of the config; a range test's rules have another."""
        return schedule_of(self.config)

    @property
    def example(self) -> dict[str, np.ndarray]:
        """One training example, as a batch: what weights are made for."""
        return self.dataset.example

    def init(self) -> TrainState:
        """Makes the state before the first step, on the devices."""
        return compiled_init(self.rules, self.mesh)(*self._init_arguments())

    def state_shapes(self) -> TrainState:
        """Returns the shapes and dtypes of the state without making one."""
        return jax.eval_shape(compiled_init(self.rules, self.mesh), *self._init_arguments())

    def _init_arguments(self) -> tuple[jax.Array, dict[str, np.ndarray], dict[str, np.float32]]:
        return jax.random.key(self.config["seed"]), self.example, self.hparams

    def batches(self, step: int, count: int, capacity: int = CAPACITY) -> Batches:
        """Returns the training batches of `count` steps from `step` on, with room for `capacity`."""
        return Batches(self.on_devices("train"), self.rows(step, count, capacity))

    def rows(self, step: int, count: int, capacity: int) -> np.ndarray:
        """Returns their rows of the training split, int32 (capacity, batch), 0 beyond `count`."""
        section = self.config["data"]
        size, examples = section["batch_size"], self.dataset.sizes["train"]
        rows = np.zeros((capacity, size), np.int32)
        rows[:count] = batch_indices(step, count, examples=examples, batch_size=size, seed=section["seed"])
        return rows

    def batch_shapes(self, size: int) -> Batches:
        """Returns the shapes of training batches of some size, to plan with; nothing is placed."""
        data = whole_shapes(self.dataset.split("train"), self.mesh)
        return Batches(data, jax.ShapeDtypeStruct((CAPACITY, size), np.int32))

    def eval_batches(self, split: str) -> Batches:
        """Returns the batches that cover a split once, the last one filled up with masked rows."""
        rows, mask = eval_batches(self.dataset.sizes[split], self.config["data"]["eval_batch_size"])
        return Batches(self.on_devices(split), rows, mask)

    def evaluate(self, state: TrainState, split: str) -> dict[str, Mean]:
        """Starts the evaluation of a whole split; the numbers are there when they are asked for."""
        return compiled_eval_call(self.rules, self.mesh)(state, self.eval_batches(split))

    def on_devices(self, split: str) -> dict[str, jax.Array]:
        """Returns a split, placed on the devices when it is first asked for."""
        place = (split, self.mesh)
        if place not in self.device_splits:
            self.device_splits[place] = replicate(self.dataset.split(split), self.mesh)
        return self.device_splits[place]


def build(config: Config, *, lanes: bool = False, beside: Experiment | None = None) -> Experiment:
    """Reads the data and makes what a run needs; every error of the config comes before the data are read.

    `lanes`: nothing but lanes is to be trained, so batches need not divide over the devices. `beside` is an experiment
    on the same data and devices: what it has read and placed is shared.
    """
    check_metrics(config["task"], config["eval"]["metric"])
    check_schedule_free(config)
    mesh = beside.mesh if beside else device_mesh(config["parallel"]["mesh"])
    check_devices(config, mesh, lanes or config["train"]["seeds"] > 1)
    dataset = beside.dataset if beside else load_data(config["data"])
    device_splits = beside.device_splits if beside else {}
    rules, lengths = make_rules(config, dataset.info), lengths_of(config, dataset)
    check_plateaus(config, dataset)
    warn_of_mini_batches(config, dataset)
    return Experiment(config, dataset, mesh, rules, lengths, device_splits=device_splits)


def make_rules(config: Config, info: DataInfo) -> Rules:
    """Makes the static half of a run; equal for configs that differ in floats alone."""
    optimizers = family("optimizer")
    optimizer = Optimizer(optimizers.bind(config["optimizer"]), optimizers.bind_common(config["optimizer"]))
    schedule = schedule_of(config)
    return Rules(make_task(config, info), schedule, optimizer, config["train"]["accumulate"])
