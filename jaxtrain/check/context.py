"""The context of a question: data, task, state and compiled functions, each made when it is first asked for."""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.config.defaults import Config
from jaxtrain.core.frozen import join_params
from jaxtrain.core.state import Task, TrainState
from jaxtrain.core.steps import StepFunction, train_step
from jaxtrain.core.trees import named_leaves
from jaxtrain.data import Source
from jaxtrain.data.dataset import Dataset, Rows
from jaxtrain.data.info import DataInfo
from jaxtrain.parallel.mesh import replicate
from jaxtrain.tasks import TASKS, make_task
from jaxtrain.tasks.inputs import normalise_inputs
from jaxtrain.training.experiment import Experiment, build
from jaxtrain.training.fine_tuning import load_initial_weights

Made = TypeVar("Made")

SECONDS = 180.0
"""Seconds of all questions together, unless the config says otherwise."""

QUICK_STEP = 5e-3
"""Seconds of a step below which they get QUICK_SECONDS."""

QUICK_SECONDS = 60.0

MOST_ROWS = 10_000
"""Examples of a split that are looked at."""

MOST_ELEMENTS = 2**24
"""Numbers of the inputs of those examples: fewer of them are read where examples are large."""

HALF = 32
"""Examples of each half of the batch that questions about the model use."""

HALF_ELEMENTS = 2**17
"""Numbers of the inputs of a half: fewer examples are used where they are large."""


class Context:
    """A config and what the questions may ask of it; everything is made when it is first needed, and kept.

    `began` and `seconds` bound the time: a question that takes long looks at `left`.
    """

    def __init__(
        self,
        config: Config,
        *,
        data: Source | None = None,
        step: StepFunction = train_step,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Takes a resolved config, data given in Python, a step of the user's own, and where progress is told."""
        self.config = config
        self.step = step
        self.say = say
        self.seconds: float = config["check"]["seconds"] or SECONDS
        self.began = time.perf_counter()
        self._data = data
        self._kept: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """Returns what `make` makes, which is made once and then shared by the questions that ask for this name."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    @property
    def left(self) -> float:
        """The seconds that are left for all questions."""
        return self.began + self.seconds - time.perf_counter()

    def learn_pace(self, step_seconds: float) -> None:
        """Takes note of the time of a step: where steps are quick, all questions get less time."""
        if step_seconds < QUICK_STEP and self.config["check"]["seconds"] is None:
            self.seconds = QUICK_SECONDS

    @functools.cached_property
    def experiment(self) -> Experiment:
        """The experiment; its own checks of a user's functions are left to the questions, which say more."""
        return build(self.config, data=self._data, judge_task=False)

    @property
    def has_given_data(self) -> bool:
        """Whether the data were given in Python."""
        return self._data is not None

    @property
    def dataset(self) -> Dataset:
        """The data."""
        return self.experiment.dataset

    @property
    def info(self) -> DataInfo:
        """The description of the data."""
        return self.dataset.info

    @functools.cache  # noqa: B019 (a context lives as long as the command)
    def places(self, split: str) -> np.ndarray:
        """Returns the places of the examples of a split that are looked at, evenly spaced."""
        size = self.dataset.sizes[split]
        elements = max(1, int(np.prod(self.info.input_shape)))
        count = max(1, min(size, MOST_ROWS, MOST_ELEMENTS // elements))
        return np.unique(np.linspace(0, size - 1, count).round().astype(np.int64))

    @functools.cache  # noqa: B019
    def rows(self, split: str) -> Rows:
        """Returns those examples as they are in a batch."""
        return self.dataset.read(split, self.places(split))

    @functools.cache  # noqa: B019
    def seen(self, split: str) -> np.ndarray:
        """Returns their inputs as the model sees them; the columns of a table stay in one array."""
        inputs = self.rows(split)["inputs"]
        return np.asarray(inputs if self.info.layout else normalise_inputs(inputs, self.info))

    @property
    def labels(self) -> np.ndarray | None:
        """The training labels (n,) of the examples looked at; None where targets are no single label."""
        if self.info.classes is None or self.info.target_shape or self.info.vocabulary is not None:
            return None
        return np.asarray(self.rows("train")["targets"])

    @property
    def task_name(self) -> str:
        """The name of the task."""
        return self.config["task"]["name"]

    # ------------------------------------------------------------------ the model at its initial weights

    @functools.cached_property
    def state(self) -> TrainState:
        """The initial state, with the weights that the run starts from."""
        experiment = self.experiment
        place = functools.partial(replicate, mesh=experiment.mesh)
        return load_initial_weights(experiment.init(), self.config["checkpoint"], experiment.rules, place)

    @functools.cached_property
    def params(self) -> Any:
        """All initial parameters, frozen ones among them."""
        return join_params(self.state.params, self.state.frozen)

    @functools.cached_property
    def named_params(self) -> dict[str, np.ndarray]:
        """Path -> initial parameters."""
        return {path: np.asarray(leaf) for path, leaf in named_leaves(self.params)}

    @functools.cached_property
    def values(self) -> dict[str, Any]:
        """The hyperparameters of step 0."""
        hparams = {name: jnp.asarray(value) for name, value in self.experiment.hparams.items()}
        return dict(self.experiment.rules.schedule(jnp.zeros((), jnp.int32), hparams))

    @functools.cached_property
    def quiet_values(self) -> dict[str, Any]:
        """The same without dropout, smoothing and decay."""
        return {name: jnp.zeros(()) if is_regulariser(name) else value for name, value in self.values.items()}

    @functools.cached_property
    def quiet_task(self) -> Task:
        """The task without augmentation; a task that augments by itself, such as contrastive, stays."""
        if not any(isinstance(entry, Mapping) for entry in self.config["augment"].values()):
            return self.experiment.rules.task
        return self._without_augmentation(self.config)

    def _without_augmentation(self, config: Config) -> Task:
        """Returns the task of a config without its augmentations; one that augments by itself keeps them."""
        if TASKS.takes(self.task_name, "augmentation"):
            return make_task(config, self.info)
        return make_task({**config, "augment": {"order": None, "seed": None}}, self.info)

    @functools.cached_property
    def half(self) -> int:
        """The number of examples in each half of `batch`."""
        elements = max(1, int(np.prod(self.info.input_shape)))
        return max(2, min(HALF, HALF_ELEMENTS // elements, self.dataset.sizes["train"] // 3))

    def take(self, start: int, count: int) -> dict[str, np.ndarray]:
        """Returns `count` training examples, beginning with the one at place `start` of a fixed random order."""
        size = self.dataset.sizes["train"]
        order = np.random.default_rng(0).permutation(size)
        return self.dataset.read("train", order[np.arange(start, start + count) % size])

    @functools.cached_property
    def parts(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Three sets of `half` training examples each: first, second and third."""
        return (self.take(0, self.half), self.take(self.half, self.half), self.take(2 * self.half, self.half))

    @functools.cached_property
    def batch(self) -> dict[str, np.ndarray]:
        """The first and the second part, with a mask of ones."""
        return joined(self.parts[0], self.parts[1])

    @functools.cached_property
    def _evaluate(self) -> Any:
        def loss(params: Any, model_state: Any, batch: Any, key: jax.Array, values: Any) -> Any:
            result, (_, metrics) = self.quiet_task.loss(params, model_state, batch, key, values, False)
            return result, metrics["loss"]

        return jitted(loss)

    def evaluate(self, batch: Any, *, key: int = 0, params: Any = None) -> tuple[float, float]:
        """Returns (loss, the metric "loss") of a batch in evaluation, at the initial parameters or others."""
        chosen = self.params if params is None else params
        loss, metric = self._evaluate(chosen, self.state.model_state, batch, jax.random.key(key), self.values)
        return float(loss), float(metric.sum) / max(float(metric.count), 1e-30)

    @functools.cached_property
    def _train_loss(self) -> Any:
        def loss(params: Any, model_state: Any, batch: Any, key: jax.Array, values: Any) -> Any:
            return self.quiet_task.loss(params, model_state, batch, key, values, True)[0]

        return loss

    @functools.cached_property
    def _measure(self) -> Any:
        return jitted(self._train_loss)

    def train_loss(self, batch: Any, params: Any = None) -> float:
        """Returns the loss of a batch in training, without dropout, smoothing and augmentation."""
        chosen = self.params if params is None else params
        return float(self._measure(chosen, self.state.model_state, batch, jax.random.key(0), self.quiet_values))

    def train_loss_at(self, params: Any) -> float:
        """Returns `train_loss` of `batch` at parameters that may have another type than those of the run."""
        own = jax.tree.map(lambda leaf, own: jnp.asarray(leaf, own.dtype), params, self.params)
        return self.train_loss(self.batch, own)

    def loss_in_float64(self, params: Any) -> float:
        """Returns `train_loss` of `batch`, computed in float64 from parameters; nan for a task that cannot do so.

        The data stay as they are.
        """
        return float("nan") if self._loss_in_float64 is None else self._loss_in_float64(params)

    @functools.cached_property
    def _loss_in_float64(self) -> Callable[[Any], float] | None:
        task = self._without_augmentation({**self.config, "train": {**self.config["train"], "precision": "float64"}})

        def loss(params: Any, model_state: Any, batch: Any, key: jax.Array, values: Any) -> Any:
            with jax.numpy_dtype_promotion("standard"):  # targets and masks are float32
                return task.loss(params, model_state, batch, key, values, True)[0]

        compiled = jitted(loss)

        def measure(params: Any) -> float:
            with jax.enable_x64(True):
                given, state, values = _in_float64((params, self.state.model_state, self.quiet_values))
                return float(compiled(given, state, self.batch, jax.random.key(0), values))

        try:
            measure(self.params)
        except Exception:  # of a task of the user's own that insists on float32
            return None
        return measure

    @functools.cached_property
    def _gradients(self) -> Any:
        return jitted(jax.grad(self._train_loss, allow_int=True))

    def gradients(self, params: Any = None) -> dict[str, np.ndarray]:
        """Returns path -> gradient of `train_loss` on `batch`."""
        chosen = self.params if params is None else params
        found = self._gradients(chosen, self.state.model_state, self.batch, jax.random.key(0), self.quiet_values)
        return {path: np.asarray(leaf) for path, leaf in named_leaves(found) if leaf.dtype != jax.dtypes.float0}

    @functools.cached_property
    def _predict(self) -> Any:
        task = self.experiment.rules.task
        return jitted(lambda params, model_state, inputs, values: task.predict(params, model_state, inputs, values))

    def predict(self, inputs: Any, params: Any = None) -> Any:
        """Returns the outputs of the task for inputs as they are in a batch, or normalised floats."""
        chosen = self.params if params is None else params
        return jax.device_get(self._predict(chosen, self.state.model_state, inputs, self.values))

    @functools.cached_property
    def outputs(self) -> np.ndarray:
        """The outputs for `batch`, as one array (batch, ...)."""
        return as_array(self.predict(self.batch["inputs"]))

    def perturbed(self, scale: float, seed: int = 0) -> Any:
        """Returns the parameters with noise of `scale` times the deviation of each, or times a dense layer's."""
        generator = np.random.default_rng(seed)

        def perturb(leaf: Any) -> Any:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                return leaf
            host = np.asarray(leaf, np.float64)
            own = float(host.std()) if host.size > 1 else 0.0
            spread = max(own, 0.1 / np.sqrt(max(1.0, np.prod(host.shape[:-1], dtype=float))))
            return jnp.asarray(host + generator.normal(0.0, scale * spread, host.shape), leaf.dtype)

        return jax.tree.map(perturb, self.params)


def _in_float64(tree: Any) -> Any:
    """Returns the floats of a tree as float64, on the host; the rest stays."""

    def cast(leaf: Any) -> Any:
        return np.asarray(leaf, np.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def joined(first: Mapping[str, Any], second: Mapping[str, Any], mask: tuple[float, float] = (1, 1)) -> dict[str, Any]:
    """Returns two sets of examples as one batch; `mask` holds the weight of each."""
    batch = {name: np.concatenate([first[name], second[name]]) for name in first}
    sizes = (len(first["inputs"]), len(second["inputs"]))
    return batch | {"mask": np.repeat(np.asarray(mask, np.float32), sizes)}


def is_regulariser(name: str) -> bool:
    """Tells whether a float makes training harder than the task is: dropout, smoothing, decay of the weights."""
    knob = name.rpartition(".")[2]
    return "drop" in knob or "smoothing" in knob or knob in ("weight_decay", "l2", "l1") or knob == "stochastic_depth"


def as_array(outputs: Any) -> np.ndarray:
    """Returns outputs as one float array (batch, ...); those of several leaves are flattened and joined."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(outputs)]
    if len(leaves) == 1:
        return leaves[0]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def jitted(function: Callable[..., Any]) -> Any:
    """Compiles a function that runs a few times: lightly optimised on a CPU, products in full float32."""
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    compiled = jax.jit(function, compiler_options=options)

    def call(*arguments: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return compiled(*arguments)

    return call
