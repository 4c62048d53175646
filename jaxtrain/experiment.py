"""An experiment: all that a resolved config comes to before its first step."""

import functools
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np

from jaxtrain import config as configs
from jaxtrain import data
from jaxtrain.config import Config
from jaxtrain.data.dataset import Dataset
from jaxtrain.data.order import batch_indices, eval_batches, steps_per_epoch
from jaxtrain.durations import steps_of
from jaxtrain.errors import ConfigError, DataError, JaxtrainWarning, nearest
from jaxtrain.metrics import METRICS, SEVERAL, Mean
from jaxtrain.optimizers import Optimizer
from jaxtrain.parallel import Devices, check_batch, compiled_eval_call, compiled_init, device_mesh, replicate
from jaxtrain.schedules import Schedule
from jaxtrain.state import Rules, TrainState
from jaxtrain.tasks import TASKS, make_task

CAPACITY = 500  # steps that one call can take; the compiled program is the same for every length up to it


class Lengths(NamedTuple):
    """The durations of a config in steps; `patience` is None where nothing stops a run early."""

    total: int
    log: int
    eval: int
    checkpoint: int
    patience: int | None

    def due(self, every: int, step: int) -> bool:
        """Tells whether something that happens every so many steps, and at the end, happens at this one."""
        return step % every == 0 or step == self.total

    def pauses_at(self, step: int) -> bool:
        """Tells whether an evaluation or a save is due at this step."""
        return self.due(self.eval, step) or self.due(self.checkpoint, step)

    def next(self, step: int) -> int:
        """Returns the first step after this one at which something is due."""
        return min(self.total, *((step // every + 1) * every for every in (self.log, self.eval, self.checkpoint)))


@dataclass(frozen=True, eq=False)
class Experiment:
    """Config, data, devices, rules and durations of a run.

    `found` holds floats that a range test put in place, `placed` the splits that lie on the devices already.
    """

    config: Config
    dataset: Dataset
    mesh: Devices
    rules: Rules
    lengths: Lengths
    found: Mapping[str, float] = field(default_factory=dict)
    placed: dict[tuple[str, Devices], dict[str, jax.Array]] = field(default_factory=dict, repr=False)

    @property
    def hparams(self) -> dict[str, np.float32]:
        """Every float that enters the program: the config's, the total number of steps, what plateaus remember."""
        run = {"train.total_steps": self.lengths.total} | self.schedule.remembered
        floats = configs.hyperparameters(self.config) | run | dict(self.found)
        return {name: np.float32(value) for name, value in floats.items()}

    @functools.cached_property
    def schedule(self) -> Schedule:
        """The schedules of the config; a range test's rules have another."""
        return schedule_of(self.config)

    @property
    def example(self) -> dict[str, np.ndarray]:
        """One training example, as a batch: what weights are made for."""
        return {name: array[:1] for name, array in self.dataset.split("train").items()}

    def init(self) -> TrainState:
        """Makes the state before the first step, on the devices."""
        return compiled_init(self.rules, self.mesh)(*self._init_arguments())

    def state_shapes(self) -> TrainState:
        """Returns the shapes and dtypes of the state without making one."""
        return jax.eval_shape(compiled_init(self.rules, self.mesh), *self._init_arguments())

    def _init_arguments(self) -> tuple[jax.Array, dict[str, np.ndarray], dict[str, np.float32]]:
        return jax.random.key(self.config["seed"]), self.example, self.hparams

    def indices(self, step: int, count: int, capacity: int) -> np.ndarray:
        """Returns the rows of the batches of `count` steps, padded to (capacity, batch)."""
        section, size = self.config["data"], self.dataset.sizes["train"]
        rows = np.zeros((capacity, section["batch_size"]), np.int32)
        rows[:count] = batch_indices(step, count, examples=size, batch_size=section["batch_size"], seed=section["seed"])
        return rows

    def evaluate(self, state: TrainState, split: str) -> dict[str, Mean]:
        """Starts the evaluation of a whole split; the numbers are there when they are asked for."""
        rows, mask = eval_batches(self.dataset.sizes[split], self.config["data"]["eval_batch_size"])
        return compiled_eval_call(self.rules, self.mesh)(state, self.on_devices(split), rows, mask)

    def on_devices(self, split: str) -> dict[str, jax.Array]:
        """Returns a split, placed on the devices when it is first asked for."""
        place = (split, self.mesh)
        if place not in self.placed:
            self.placed[place] = replicate(self.dataset.split(split), self.mesh)
        return self.placed[place]


def build(config: Config, *, lanes: bool = False, beside: Experiment | None = None) -> Experiment:
    """Reads the data and makes what a run needs; every error of the config comes before the data are read.

    `lanes`: nothing but lanes is to be trained, so batches need not divide over the devices. `beside` is an experiment
    on the same data and devices: what it has read and placed is shared.
    """
    check_metrics(config["task"], config["eval"]["metric"])
    _check_schedule_free(config)
    mesh = beside.mesh if beside else device_mesh(config["parallel"]["mesh"])
    _check_devices(config, mesh, lanes or config["train"]["seeds"] > 1)
    dataset = beside.dataset if beside else data.load(config["data"])
    placed = beside.placed if beside else {}
    rules, lengths = make_rules(config, dataset.info), lengths_of(config, dataset)
    _check_plateaus(config, dataset)
    _warn_of_mini_batches(config, dataset)
    return Experiment(config, dataset, mesh, rules, lengths, placed=placed)


def _check_devices(config: Config, mesh: Devices, lanes: bool) -> None:
    """Refuses batches that do not divide; lanes take them whole."""
    train, batch = config["train"], config["data"]["batch_size"]
    if train["seeds"] > 1 and config["parallel"]["backend"] == "pmap":
        raise ConfigError("parallel.backend", "pmap", "mesh, where train.seeds is above 1")
    if lanes:
        check_batch("data.batch_size", batch, device_mesh(1), train["accumulate"])
        return
    check_batch("data.batch_size", batch, mesh, train["accumulate"])
    check_batch("data.eval_batch_size", config["data"]["eval_batch_size"], mesh)


def _check_plateaus(config: Config, dataset: Dataset) -> None:
    """Refuses a schedule that evaluations move where there are none."""
    plateaus = schedule_of(config).plateaus
    if plateaus and "validation" not in dataset.sizes:
        allowed = "where data have a validation split; set data.validation_fraction above 0"
        raise ConfigError(f"{plateaus[0]}.name", "reduce_on_plateau", allowed)


def _warn_of_mini_batches(config: Config, dataset: Dataset) -> None:
    """Warns where the optimizer compares the gradients of successive steps, and these are of other examples."""
    batch, whole = config["data"]["batch_size"], dataset.sizes["train"]
    if config["optimizer"]["name"] in ("rprop", "optax:rprop") and batch < whole:
        warnings.warn(
            f"optimizer.name: given 'rprop' with mini-batches of {batch} of {whole} examples, which turn the signs of "
            f"its gradients by chance; it is made for the whole set: data.batch_size={whole}",
            JaxtrainWarning,
            stacklevel=3,
        )


def _check_schedule_free(config: Config) -> None:
    """Refuses another average beside that of the optimizer, and warns of a rate that falls, whose place it takes."""
    name = config["optimizer"]["name"]
    if name not in ("schedule_free_sgd", "schedule_free_adamw"):
        return
    if config["train"]["ema"] is not None:
        raise ConfigError("train.ema", config["train"]["ema"], f"None with {name}, which keeps an average of its own")
    schedule = config["schedule"].get("optimizer", {}).get("learning_rate", {"name": "constant"})
    rises_alone = schedule["name"] in ("constant", "inverse_sqrt", "warmup_stable_decay")
    if not rises_alone:
        warnings.warn(
            f"schedule.optimizer.learning_rate: given {schedule['name']!r} beside {name}, whose average takes the "
            "place of a rate that falls; a warm-up alone is warmup_stable_decay with decay=0",
            JaxtrainWarning,
            stacklevel=3,
        )


def check_metrics(task: Config, chosen: str) -> None:
    """Refuses names of metrics that are none; what a task of a user's own measures shows when it is traced."""
    names = task.get("metrics", ())
    for name in names:
        METRICS.member(name, "task.metrics")
    judges = ("loss", *(name for name in names if name not in SEVERAL))
    if task["name"] in TASKS.members and chosen not in judges:
        hint = "it comes to several numbers" if chosen in names else nearest(chosen, judges)
        raise ConfigError("eval.metric", chosen, ", ".join(judges), hint)


@contextmanager
def floats_explained(config: Config) -> Iterator[None]:
    """Adds a note to JAX's errors about traced values: which floats are traced, and what to do."""
    try:
        yield
    except TypeError as error:
        if isinstance(error, jax.errors.JAXTypeError) or "Tracer" in str(error):
            error.add_note(
                "jaxtrain: a float of the config enters the program as a traced input, and here one shapes the program"
                " or decides in Python. Annotate that knob as int, bool or str in the signature of its member, or use"
                " it with jax.numpy alone. The floats of this run: " + ", ".join(configs.hyperparameters(config))
            )
        raise


def schedule_of(config: Config) -> Schedule:
    """Makes the schedules of a config."""
    return Schedule(configs.bind_schedules(config))


def make_rules(config: Config, info: data.DataInfo) -> Rules:
    """Makes the static half of a run; equal for configs that differ in floats alone."""
    optimizers = configs.family("optimizer")
    optimizer = Optimizer(optimizers.bind(config["optimizer"]), optimizers.bind_common(config["optimizer"]))
    schedule = schedule_of(config)
    return Rules(make_task(config, info), schedule, optimizer, config["train"]["accumulate"])


def lengths_of(config: Config, dataset: Dataset) -> Lengths:
    """Converts the durations of a config into steps of this dataset."""
    epoch = steps_per_epoch(dataset.sizes["train"], config["data"]["batch_size"])
    total = steps_of(config["train"]["duration"], steps_per_epoch=epoch)
    if total >= 2**31:
        raise ConfigError("train.duration", config["train"]["duration"], f"below {2**31:,} steps", f"it is {total:,}")

    def steps(text: str) -> int:
        return min(total, steps_of(text, steps_per_epoch=epoch, total=total))

    log, evaluation, checkpoint = (steps(config[section]["every"]) for section in ("log", "eval", "checkpoint"))
    patience = config["train"]["early_stopping"]
    return Lengths(total, log, evaluation, checkpoint, None if patience is None else steps(patience))


def check_fingerprint(dataset: Dataset, trained_on: str) -> None:
    """Refuses data that are not those which a run has been trained on."""
    if dataset.fingerprint != trained_on:
        raise DataError(
            f"data: given data with the fingerprint {dataset.fingerprint[:12]}; allowed: {trained_on[:12]}, which this "
            "run was trained on; bring them back, or give another --workdir"
        )
