"""Loads trained runs for prediction or evaluation."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.config.defaults import Config
from jaxtrain.config.hparams import hyperparameters
from jaxtrain.config.seeds import lane_count
from jaxtrain.core.averaging import evaluation_weights
from jaxtrain.core.state import Rules, Task, TrainState, init_state
from jaxtrain.core.steps import predict_step
from jaxtrain.data.encoded import warn_of_unknown
from jaxtrain.data.info import DataInfo
from jaxtrain.data.new_inputs import as_new_inputs, as_stored_integers
from jaxtrain.data.tables import Table
from jaxtrain.errors import StorageError, UsageError, Words, one_of
from jaxtrain.optimizers.schedules import schedule_of
from jaxtrain.parallel.mesh import device_mesh, replicate
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.storage.ownership import Owner, read_owner, saved_config
from jaxtrain.trackers.progress import plain_lines
from jaxtrain.training.bookkeeping import Bookkeeping
from jaxtrain.training.checks import check_float64
from jaxtrain.training.experiment import make_rules
from jaxtrain.training.generation import generate

PIECES = (1, 8, 64)
"""Sizes, below `data.eval_batch_size`, to which the examples of a prediction are padded: at most four programs."""


@dataclass(frozen=True)
class Run:
    """A trained run: its config, rules and state, that of the best step if there was a validation split."""

    workdir: Path
    config: Config
    info: DataInfo
    rules: Rules
    step: int
    state: TrainState

    @property
    def task(self) -> Task:
        """The task: its functions init, loss and predict; that of a regression has standardised targets (`info`)."""
        return self.rules.task

    def predict(self, inputs: Any, *, allow_nan: bool = False) -> np.ndarray:
        """Predicts from raw inputs (n, ...), in the units of the data files, with averaged parameters if there are any.

        A run that was trained on a table takes columns by name, too: a mapping or a data frame. Returns float32 logits
        (n, classes) for classification, and for regression float64 values in the units of the targets. Compiles at most
        four programs, whatever n. Raises DataError for inputs that are no plain array of numbers, such as a masked or a
        sparse one, and for examples of another shape, or other columns, than those of the training data. Unless
        `allow_nan`, it also raises for numbers that are not finite, and for a number that is missing in a column that
        misses none in training.
        """
        given = as_new_inputs(inputs, self.info, allow_nan=allow_nan)
        plain = self.info.encode(given) if isinstance(given, Table) else as_stored_integers(given, self.info)
        most = self.config["data"]["eval_batch_size"]
        pieces = [self._predict_piece(plain[begin : begin + most]) for begin in range(0, max(1, len(plain)), most)]
        predictions = np.concatenate(pieces)
        return self.info.restore_targets(predictions) if self.info.standardised else predictions

    def predict_files(self, *files: str | Path, allow_nan: bool = False) -> np.ndarray:
        """Predicts from files like those of training: pictures, one an example, or tables, with or without a target.

        Raises DataError naming file and row; for `allow_nan` see `predict`.
        """
        from jaxtrain.data.new_files import read_inputs  # with all readers, which training has no use for

        inputs = read_inputs(self.config["data"], self.info, files, allow_nan=allow_nan)
        return self.predict(inputs, allow_nan=allow_nan)

    def generate(
        self, prompt: str, length: int = 200, temperature: float = 1.0, top_k: int | None = None, seed: int = 0
    ) -> str:
        """Returns `length` tokens of text that continue a prompt, for a run that was trained on a text.

        The model sees as many tokens as in training. For `temperature`, `top_k` and `seed` see `jaxtrain.generate`.
        Warns of characters that training lacked. Raises UsageError for a run on other data, and for an empty prompt.
        """
        vocabulary = self.info.vocabulary
        if vocabulary is None:
            raise UsageError("generate", Words("a run that was not trained on a text"), "one that was")
        given = vocabulary.encode(prompt)
        warn_of_unknown(given, vocabulary, "prompt")
        values = self.rules.schedule(self.state.step, self.state.hparams)
        drawn = generate(
            self.task,
            (*evaluation_weights(self.state), values),
            given[None],
            length,
            context=self.info.input_shape[0],
            temperature=temperature,
            top_k=top_k,
            seed=seed,
        )
        return vocabulary.decode(drawn[0])

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, or of several labels, in the order of the logits, else numbers as text."""
        return self.info.class_names or self.info.target_names or tuple(map(str, range(self.info.classes or 0)))

    def _predict_piece(self, inputs: np.ndarray) -> np.ndarray:
        """Predicts from at most `data.eval_batch_size` examples, padded to one of the sizes that are compiled."""
        most = self.config["data"]["eval_batch_size"]
        size = min(most, next((size for size in PIECES if len(inputs) <= size), most))
        prepared = self.info.prepare(inputs)
        self.info.check_codes(prepared)
        padded = np.concatenate([prepared, np.zeros((size - len(inputs), *prepared.shape[1:]), prepared.dtype)])
        return np.asarray(self._predict(self.state, padded))[: len(inputs)]

    @functools.cached_property
    def _predict(self) -> Callable[[TrainState, np.ndarray], jax.Array]:
        return jax.jit(functools.partial(predict_step, rules=self.rules))


def load_run(
    workdir: str | Path, seed: int | None = None, trust: Sequence[str] = (), *, fold: int | None = None
) -> Run:
    """Loads a run at its best step, or at its newest if it was never evaluated; changes no file.

    `seed` selects one seed of a run of several, and `fold` one fold (None: the first). `trust` lists modules whose
    functions the config of a run that another user made may name. Raises UsageError if the directory holds no run, or
    the run has no such seed or fold, StorageError if it has no checkpoint, and ConfigError if it names functions that
    are not trusted.
    """
    workdir = Path(workdir)
    config, bookkeeping, checkpoints = open_run(workdir, trust)
    folds = bookkeeping.folds or [bookkeeping.info]
    lanes = lane_count(config)
    first = config["seed"]
    seed_lane = _lane("seed", seed, range(first, first + config["train"]["seeds"]), workdir)
    if fold is not None and config["data"]["folds"] is None:
        raise UsageError("fold", fold, f"none, as {workdir} was trained without folds", "Leave it out")
    first_fold = config["data"]["fold"] or 0  # one that was trained alone keeps its number
    fold_lane = _lane("fold", fold, range(first_fold, first_fold + len(folds)), workdir)
    lane = max(seed_lane, fold_lane)  # the one that the run has several of
    info = DataInfo.from_json(folds[fold_lane])
    rules = make_rules(config, info)
    shapes = _state_shapes(config, info, rules)
    if lanes > 1:
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((lanes, *leaf.shape), leaf.dtype), shapes)
    step, state = restore_best(checkpoints, bookkeeping, shapes)
    if lanes > 1:
        state = jax.tree.map(lambda leaf: leaf[lane], state)
    return Run(workdir, config, info, rules, step, replicate(state, device_mesh(1)))


def _lane(key: str, number: int | None, numbers: range, workdir: Path) -> int:
    """Returns the lane of a number, the first for None; raises UsageError for one that the run does not have."""
    if number is not None and number not in numbers:
        raise UsageError(key, number, f"{one_of(map(str, numbers))}, the {key}s of {workdir}")
    return 0 if number is None else number - numbers.start


def open_run(workdir: Path, trust: Sequence[str] = ()) -> tuple[Config, Bookkeeping, Checkpoints]:
    """Reads the config and the newest bookkeeping of a run, and opens its checkpoints."""
    owner = read_owner(workdir)
    if owner is None:
        got = Words("a directory without config.json")
        raise UsageError(str(workdir), got, "the directory of a run")
    config = saved_config(workdir, owner, trust)
    check_float64(config)
    checkpoints = open_checkpoints(workdir, owner)
    newest = checkpoints.newest_memory()
    if newest is None:
        raise StorageError(str(checkpoints.directory), Words("no checkpoint"), "at least one", "Train the run first")
    return config, Bookkeeping(**newest), checkpoints


def open_checkpoints(workdir: Path, owner: Owner | None) -> Checkpoints:
    """Opens the checkpoints of a run to read them."""
    run = owner.id if owner else None
    return Checkpoints(workdir / "checkpoints", keep=1, say=plain_lines(quiet=False).say, run=run)


def restore_best(checkpoints: Checkpoints, bookkeeping: Bookkeeping, shapes: TrainState) -> tuple[int, TrainState]:
    """Restores (step, state) of the best step, or of the newest if the run was never evaluated."""
    restored = checkpoints.restore(shapes, bookkeeping.best_step, set_aside=False)
    assert restored is not None
    return restored.step, restored.state


def _state_shapes(config: Config, info: DataInfo, rules: Rules) -> TrainState:
    """Returns the shapes and dtypes of a run's state, from the description of its data."""
    targets = jnp.int32 if info.classes is not None else info.floats
    batch = {
        "inputs": jax.ShapeDtypeStruct((1, *info.input_shape), info.input_dtype),
        "targets": jax.ShapeDtypeStruct((1, *info.target_shape), targets),
        **{name: jax.ShapeDtypeStruct((1, *shape), dtype) for name, shape, dtype in info.extra},
    }
    names = [*hyperparameters(config), "train.total_steps", *schedule_of(config).initial_plateau_state]
    hparams = dict.fromkeys(
        names, jax.ShapeDtypeStruct((), np.float64 if config["train"]["precision"] == "float64" else np.float32)
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    try:
        return jax.eval_shape(functools.partial(init_state, rules=rules), key, batch, hparams)
    except KeyError as error:
        if info.extra or not error.args or error.args[0] in batch:
            raise
        got = Words(f"a run whose task reads the field {error.args[0]!r}, which earlier versions did not describe")
        raise UsageError("data", got, "a run that describes its further fields", "Train it again") from error
