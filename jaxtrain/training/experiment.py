"""An experiment: dataset, devices, rules and durations, built from a resolved config."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from jaxtrain.config.debug_modes import reject_debug_modes
from jaxtrain.config.defaults import Config, family
from jaxtrain.config.hparams import hyperparameters
from jaxtrain.config.identity import to_json
from jaxtrain.config.registry import Values
from jaxtrain.config.seeds import check_seeds, lane_count
from jaxtrain.core.batches import Batches
from jaxtrain.core.extra_arguments import uses_argument
from jaxtrain.core.metric import Mean
from jaxtrain.core.state import Batch, Rules, TrainState, init_state
from jaxtrain.core.steps import train_step
from jaxtrain.data import Source
from jaxtrain.data import load as load_data
from jaxtrain.data.dataset import Dataset
from jaxtrain.data.info import DataInfo
from jaxtrain.data.order import check_batch_size
from jaxtrain.optimizers import FrozenPaths, Optimizer
from jaxtrain.optimizers.schedules import Schedule, schedule_of
from jaxtrain.parallel.mesh import Devices, compile_eval_call, compile_init, compile_predict, device_mesh, lower_init
from jaxtrain.tasks import make_task, needs_of
from jaxtrain.tasks.lora import BASE
from jaxtrain.training.augment_checks import check_augment, check_views
from jaxtrain.training.checks import (
    check_adadelta,
    check_continuation,
    check_devices,
    check_float64,
    check_folds,
    check_metrics,
    check_plateaus,
    check_schedule_free,
    check_smoothing,
    warn_of_mini_batches,
)
from jaxtrain.training.feed_choice import make_feed
from jaxtrain.training.feeds import Feed, Pieces
from jaxtrain.training.guard_rule import guards_steps
from jaxtrain.training.lengths import Lengths, lengths_of
from jaxtrain.training.size_checks import check_sizes
from jaxtrain.training.target_checks import check_targets
from jaxtrain.training.task_checks import check_task


@dataclass(frozen=True, eq=False)
class Experiment:
    """Config, dataset, devices, rules, durations and feed of a run.

    `suggested` holds floats that a learning-rate range test chose in place of the config's. `device_splits` caches the
    splits that were placed on devices, and `feeds` the feeds by section of the config and devices: experiments that are
    built beside each other share them.
    """

    config: Config
    dataset: Dataset
    mesh: Devices
    rules: Rules
    lengths: Lengths
    suggested: Mapping[str, float] = field(default_factory=dict)
    device_splits: dict[tuple[str, Devices], dict[str, jax.Array]] = field(default_factory=dict, repr=False)
    feeds: dict[tuple[str, Devices], Feed] = field(default_factory=dict, repr=False)

    @property
    def tracked(self) -> "Experiment":
        """The experiment whose calls also return what `track` shows of layers."""
        track = self.config["track"]
        shown = {"norms_by_layer": track["layers"], "samples_gradients": track["histograms"] is not None}
        return replace(self, rules=self.rules._replace(**shown))

    @property
    def hparams(self) -> dict[str, np.floating]:
        """Every float input of the program: the config's, the total number of steps, and the state of plateaus."""
        run = {"train.total_steps": self.lengths.total} | self.schedule.initial_plateau_state
        floats = hyperparameters(self.config) | run | dict(self.suggested)
        kind = np.float64 if self.config["train"]["precision"] == "float64" else np.float32
        return {name: kind(value) for name, value in floats.items()}

    @functools.cached_property
    def schedule(self) -> Schedule:
        """The schedules of the config; the rules of a range test have a schedule of their own."""
        return schedule_of(self.config)

    @functools.cached_property
    def frozen_depends_on_floats(self) -> bool:
        """Tells whether a hyperparameter shapes the initial frozen parameters; traced once."""

        def frozen(hparams: Mapping[str, jax.Array], key: jax.Array) -> Any:
            return init_state(key, self.example, hparams, rules=self.rules).frozen

        return uses_argument(frozen, self.hparams, jax.eval_shape(lambda: jax.random.key(0)))

    @property
    def example(self) -> dict[str, np.ndarray]:
        """A batch of one training example, from which the model infers the shapes of its parameters."""
        return self.dataset.example

    @property
    def batch_shapes(self) -> Batch:
        """The shapes and dtypes of a training batch."""
        size = self.config["data"]["batch_size"]
        return {name: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype) for name, leaf in self.example.items()}

    def init(self) -> TrainState:
        """Makes the initial state, on the devices."""
        return compile_init(self.rules, self.mesh)(*self._given_to_init())

    def lower_init(self) -> Any:
        """Lowers the program of `init`, which its method `compile` compiles."""
        return lower_init(self.rules, self.mesh, *self._given_to_init())

    def _given_to_init(self) -> tuple[jax.Array, Batch, Values]:
        """Returns (key, batch, hparams), of which the initial state is made."""
        return jax.random.key(self.config["seed"]), self.example, self.hparams

    def state_shapes(self) -> TrainState:
        """Returns the shapes and dtypes of the state, without allocating it."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        return jax.eval_shape(compile_init(self.rules, self.mesh), key, self.example, self.hparams)

    @functools.cached_property
    def feed(self) -> Feed:
        """Makes the batches: on the devices if they hold the data, else on the host."""
        section = self.config["data"]
        key = (to_json(section), self.mesh)
        if key not in self.feeds:
            self.feeds[key] = make_feed(section, self.dataset, self.mesh, self.device_splits)
        return self.feeds[key]

    def close(self) -> None:
        """Ends the threads that read ahead; batches that are asked for later start them again."""
        for feed in self.feeds.values():
            feed.close()

    @property
    def capacity(self) -> int:
        """The most steps of one call."""
        return self.feed.capacity

    def batches(self, step: int, count: int, capacity: int | None = None) -> Batches:
        """Returns the training batches of `count` steps starting at `step`, with rows for `capacity` steps."""
        return self.feed.batches(step, count, capacity or self.capacity)

    def eval_batches(self, split: str) -> Pieces:
        """Returns the batches that cover a split once, in pieces; the last batch is padded with masked rows."""
        return self.feed.eval_batches(split)

    def evaluate(self, state: TrainState, split: str) -> dict[str, Mean]:
        """Dispatches the evaluation of a whole split; the metrics returned are device arrays still being computed."""
        return compile_eval_call(self.rules, self.mesh)(state, self.eval_batches(split))

    def predict(self, state: TrainState, split: str) -> Any:
        """Predicts a whole split, on the host and in the units of its targets, as `Run.predict` returns them."""
        pieces = compile_predict(self.rules, self.mesh)(state, self.eval_batches(split))
        predictions = jax.tree.map(lambda *leaves: np.concatenate(leaves), *pieces)
        info = self.dataset.info
        return info.restore_targets(predictions) if info.standardised else predictions


def build(
    config: Config,
    *,
    lanes: bool = False,
    folds: bool = False,
    beside: Experiment | None = None,
    data: Source | None = None,
    cut: Callable[[Dataset], Dataset] | None = None,
    judge_task: bool = True,
) -> Experiment:
    """Builds the experiment of a resolved config, and reads its data.

    A duration that is a time counts as one epoch, until `training/timed_duration.py` fixes the number of steps.
    Checks that need only the config run before the data are read.

    Args:
        config: a resolved config.
        lanes: whether the experiment is trained only as lanes, so that batches need not divide over the devices.
        folds: whether all folds of `data.folds` may be trained together.
        beside: an experiment on the same data and devices, whose dataset and placed splits are reused.
        data: data given in Python; None: those that the config names.
        cut: returns the part of the dataset that is used; its description stays that of all data.
        judge_task: whether a task, model, loss or metric of the user's own is checked.

    Raises:
        ConfigError: an invalid config, or one that does not suit the data or devices.
        DataError: data that cannot be read or used.
    """
    reject_debug_modes(config)
    check_float64(config, lanes)
    check_metrics(config)
    check_smoothing(config)
    check_views(config)
    check_schedule_free(config)
    check_adadelta(config)
    check_continuation(config)
    mesh = beside.mesh if beside else device_mesh(config["parallel"]["mesh"])
    check_seeds(config, "train.seeds")
    check_folds(config, together=folds)
    check_devices(config, mesh, lanes or lane_count(config) > 1)
    dataset = beside.dataset if beside else load_data(config["data"], data, **needs_of(config))
    dataset = dataset.in_float64() if config["train"]["precision"] == "float64" else dataset
    if not beside:
        check_targets(config, dataset)
    dataset = cut(dataset) if cut else dataset
    shared = {"device_splits": beside.device_splits, "feeds": beside.feeds} if beside else {}
    check_batch_size(config["data"]["batch_size"], min(fold.sizes["train"] for fold in dataset.folds or (dataset,)))
    rules = make_rules(config, dataset.info)
    lengths = lengths_of(config, dataset)
    check_plateaus(config, dataset)
    warn_of_mini_batches(config, dataset)
    experiment = Experiment(config, dataset, mesh, rules, lengths, **shared)
    state = experiment.state_shapes()
    check_sizes(config, mesh, state, experiment.example)
    if guards_steps(rules, state, experiment.batch_shapes):
        experiment = replace(experiment, rules=rules._replace(guard_steps=True))
    if judge_task:
        check_task(experiment.rules, config, dataset, experiment.hparams)
    check_augment(config, rules, dataset.info, state, experiment.example)
    if config["data"]["batch_size"] == config["train"]["accumulate"]:
        _trace_one_example(experiment, state)
    return experiment


def _trace_one_example(experiment: Experiment, state: TrainState) -> None:
    """Traces a step of a batch of one: batch norm rejects it, before anything is compiled."""
    step = functools.partial(train_step, rules=experiment.rules._replace(accumulate=1), measure_norms=False)
    jax.eval_shape(step, state, experiment.example)


def make_rules(config: Config, info: DataInfo) -> Rules:
    """Makes the static part of a run; configs that differ only in floats give equal rules."""
    optimizers = family("optimizer")
    optimizer = Optimizer(optimizers.bind(config["optimizer"]), optimizers.bind_common(config["optimizer"]))
    schedule = schedule_of(config)
    return Rules(
        make_task(config, info),
        schedule,
        optimizer.of_trained(),
        accumulate=config["train"]["accumulate"],
        is_frozen=_frozen(config),
        skips_spikes=config["train"]["on_spike"] is not None,
    )


def _frozen(config: Config) -> FrozenPaths | None:
    """Returns which parameters are frozen: those of `optimizer.frozen`, and the base of adapters."""
    patterns = [config["optimizer"]["frozen"], f"^{BASE}/" if config["lora"]["paths"] else None]
    given = tuple(pattern for pattern in patterns if pattern is not None)
    return FrozenPaths(given) if given else None
