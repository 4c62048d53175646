"""Training longer: a run that continues from the whole state of another run, with its own schedule and duration."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.config.defaults import Config
from jaxtrain.config.hparams import hyperparameters
from jaxtrain.config.identity import difference, in_words
from jaxtrain.core.state import TrainState
from jaxtrain.core.trees import named_leaves
from jaxtrain.errors import ConfigError, UsageError, Words
from jaxtrain.optimizers.schedules import schedule_of
from jaxtrain.optimizers.schedules.plateau import INITIAL_STATE
from jaxtrain.storage.checkpoint_files import Leaves
from jaxtrain.training.bookkeeping import Bookkeeping
from jaxtrain.training.checks import check_fingerprint
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.trained_run import open_run

KEY = "checkpoint.continue_from"
HPARAMS = "hparams/"


class Continued(NamedTuple):
    """The state of another run (NumPy arrays), the step at which it continues, and a line that says how."""

    state: TrainState
    step: int
    line: str


class _Source(NamedTuple):
    """The run that is continued; `floats` are those of its state, of the first seed that has not diverged."""

    place: str
    config: Config
    bookkeeping: Bookkeeping
    leaves: Leaves
    step: int
    lane: int | None
    floats: dict[str, np.ndarray]


def read_continued(experiment: Experiment, shapes: TrainState) -> Continued:
    """Reads the newest state of the run `checkpoint.continue_from`, for the run that continues it.

    Step, parameters, optimizer state, averages, random key and the state of plateau schedules are those of the other
    run. The floats, and the total number of steps, are those of the new config. Its schedules are functions of the step
    and that total, so each continues at its value for this step.

    Args:
        experiment: the experiment of the new run.
        shapes: the shapes and dtypes of its state.

    Raises:
        ConfigError: no such run, another seed, a state that does not fit (it lists every leaf that differs), a float
            on which the optimizer built its state, or a duration that the other run has reached.
        DataError: the data are not those that the other run was trained on.
        StorageError: the other run has no checkpoint that can be read.
    """
    source = _read(Path(experiment.config["checkpoint"]["continue_from"]))
    check_fingerprint(experiment.dataset, source.bookkeeping.fingerprint, f"that {KEY} was trained on", "Take its data")
    _check_seeds(experiment.config, source)
    _check_leaves(source, shapes)
    _check_duration(experiment, source)
    _check_judged(experiment, source)
    hparams = _hparams(experiment, source, shapes)
    leaves = [
        hparams[path.removeprefix(HPARAMS)] if path.startswith(HPARAMS) else source.leaves[path]
        for path, _ in named_leaves(shapes)
    ]
    state: TrainState = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    _check_built_on(experiment, source, _lane(state.params, source.lane))
    return Continued(state, source.step, _line(experiment, source, _lane(hparams, source.lane)))


def _read(place: Path) -> _Source:
    try:
        config, _, checkpoints = open_run(place)
    except UsageError as error:
        raise ConfigError(KEY, str(place), "the directory of a run with a saved checkpoint") from error
    leaves, memory = checkpoints.restore_leaves()
    live = leaves["live"]
    if not live.any():
        hint = "Continue one of which a seed is left"
        raise ConfigError(KEY, Words(f"{place}, whose seeds all diverged"), "a run that can go on", hint)
    lane = int(np.argmax(live)) if live.ndim else None
    floats = {path.removeprefix(HPARAMS): leaf for path, leaf in leaves.items() if path.startswith(HPARAMS)}
    step = int(np.max(leaves["step"]))  # lanes that diverged stay at an earlier one
    return _Source(str(place), config, Bookkeeping(**memory), leaves, step, lane, _lane(floats, lane))


def _lane(tree: Any, lane: int | None) -> Any:
    """Returns one lane of a tree of arrays; the tree itself for a single run."""
    return tree if lane is None else jax.tree.map(lambda leaf: leaf[lane], tree)


def _check_seeds(config: Config, source: _Source) -> None:
    """Rejects other seeds: the random key is a part of the state."""
    for key, ours, theirs in (
        ("train.seeds", config["train"]["seeds"], source.config["train"]["seeds"]),
        ("seed", config["seed"], source.config["seed"]),
    ):
        if ours != theirs:
            raise ConfigError(key, ours, f"{theirs}, as in {source.place}, whose random numbers go on")


def _check_leaves(source: _Source, shapes: TrainState) -> None:
    """Rejects a state that does not fit, and lists every leaf that differs. The floats may differ."""
    there = {path: _spec(leaf) for path, leaf in source.leaves.items() if not path.startswith(HPARAMS)}
    here = {path: _spec(leaf) for path, leaf in named_leaves(shapes) if not path.startswith(HPARAMS)}
    wrong = [
        f"{path}: there {there.get(path, 'nothing')}, here {here.get(path, 'nothing')}"
        for path in here | there
        if here.get(path) != there.get(path)
    ]
    if wrong:
        got = Words(f"{source.place}, whose state differs ({'; '.join(wrong)})")
        hint = "Take its model, optimizer and train.ema, or its weights alone, by checkpoint.init_from"
        raise ConfigError(KEY, got, "a run with the same model, optimizer and averages", hint)


def _spec(leaf: Any) -> str:
    return f"{np.dtype(leaf.dtype).name}{tuple(leaf.shape)}"


def _check_duration(experiment: Experiment, source: _Source) -> None:
    if experiment.lengths.total <= source.step:
        expected = f"more than the {source.step:,} steps that {source.place} has taken"
        hint = "Lengthen it: it counts from the first step of that run"
        raise ConfigError("train.duration", experiment.config["train"]["duration"], expected, hint)


def _check_judged(experiment: Experiment, source: _Source) -> None:
    """Rejects another measure where a plateau schedule continues: it compares with the best value that it has seen."""
    plateaus = [section for section in experiment.schedule.plateaus if f"{section}.best" in source.floats]
    if plateaus and (differing := difference(_measure(experiment.config), _measure(source.config))):
        got = Words(f"another measure ({in_words(differing)})")
        expected = f"that of {source.place}, with whose best value reduce_on_plateau compares"
        raise ConfigError(plateaus[0], got, expected, "Take the same, or another schedule")


def _measure(config: Config) -> Config:
    """Returns the part of a config that decides what the value of an evaluation means."""
    section = config["eval"]
    metric = section["metric"]
    on_host = {name: section[name] for name in ("host", "higher_is_better") if section["higher_is_better"] is not None}
    return {
        "eval": {"metric": metric, **on_host},
        **({"task": config["task"], "loss": config["loss"]} if metric == "loss" else {}),
    }


def _hparams(experiment: Experiment, source: _Source, shapes: TrainState) -> dict[str, np.ndarray]:
    """Returns the floats of the new run, in the shape of its lanes, with the state of plateaus that continue."""
    floats = {name: np.broadcast_to(value, shapes.hparams[name].shape) for name, value in experiment.hparams.items()}
    going = [
        f"{section}.{name}"
        for section in experiment.schedule.plateaus
        for name in (*INITIAL_STATE, "scale")
        if f"{section}.best" in source.floats
    ]
    return floats | {name: source.leaves[HPARAMS + name] for name in going}


def _check_built_on(experiment: Experiment, source: _Source, params: Any) -> None:
    """Rejects another value of a float on which the optimizer built its state: it would have no effect."""
    ours = experiment.hparams
    for name, value in hyperparameters(experiment.config).items():
        theirs = source.floats.get(name)
        if not name.startswith("optimizer.") or theirs is None or theirs == ours[name]:
            continue
        with_ours = _initial(experiment, params, ours)
        with_theirs = _initial(experiment, params, {**ours, name: theirs})
        if any(not np.array_equal(a, b) for a, b in zip(with_ours, with_theirs, strict=True)):
            expected = f"{theirs:.7g}, as in {source.place}: the optimizer built its state on it"
            raise ConfigError(name, value, expected)


def _initial(experiment: Experiment, params: Any, hparams: Mapping[str, Any]) -> list[np.ndarray]:
    """Returns the leaves of the optimizer's state before the first step, on the host."""
    values = experiment.rules.schedule(jnp.int32(0), hparams)
    return jax.device_get(jax.tree.leaves(experiment.rules.optimizer(values).init(params)))


def _line(experiment: Experiment, source: _Source, hparams: Mapping[str, Any]) -> str:
    """Returns one line: the step at which the run continues, the values that change there, and what stays behind."""
    before = schedule_of(source.config)(jnp.int32(max(source.step - 1, 0)), source.floats)
    after = experiment.rules.schedule(jnp.int32(source.step), hparams)
    parts = [f"continues {source.place} at step {source.step:,} of {experiment.lengths.total:,}"]
    parts += [
        f"{name} goes on at {float(after[name]):.4g} after {float(before[name]):.4g}"
        for name in _told(experiment, before, after)
    ]
    if best := source.bookkeeping.best:
        parts.append(f"its best evaluation, {best['metric']} {best['value']:.4g} at step {best['step']:,}, stays there")
    return "; ".join(parts)


def _told(experiment: Experiment, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yields the learning rate, and every other float of the optimizer or with a schedule whose value changes."""
    for name in sorted(before.keys() & after.keys(), key=lambda name: name != "optimizer.learning_rate"):
        is_applied = name.startswith("optimizer.") or name in experiment.schedule.targets
        if name == "optimizer.learning_rate" or (is_applied and not np.isclose(before[name], after[name])):
            yield name
