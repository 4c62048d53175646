"""Fine-tuning: initializes a new run with the weights of another, or of a file."""

import functools
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtrain.core.averaging import schedule_free_x
from jaxtrain.core.state import Rules, TrainState
from jaxtrain.core.trees import match_paths, named_leaves
from jaxtrain.errors import ConfigError
from jaxtrain.files import reported_as
from jaxtrain.storage.ownership import read_owner
from jaxtrain.storage.safetensors_files import SUFFIX
from jaxtrain.training.bookkeeping import Bookkeeping
from jaxtrain.training.trained_run import open_checkpoints
from jaxtrain.training.weights_of_file import read_weights_of_file


def load_initial_weights(
    state: TrainState, section: Mapping[str, Any], rules: Rules, place: Callable[[Any], Any], lanes: int | None = None
) -> TrainState:
    """Replaces parameters and model state with those of `checkpoint.init_from`: a run at its best step, or a file.

    Uses the averaged parameters where a run has them. Parameters whose path matches the regular expression
    `checkpoint.init_except` keep their initial values. The optimizer state is initialized from the new parameters.

    Args:
        state: the initial state.
        section: the section `checkpoint` of the config.
        rules: the rules of the new run.
        place: places a tree on the devices as the state is placed.
        lanes: lanes of the state, padding included, which all get the same weights; None for a single run.

    Raises:
        ConfigError: no such run or file, or weights that do not fit; it lists every leaf that does not match.
    """
    pattern = section["init_except"]
    if section["init_from"] is None:
        if pattern is not None:
            hint = "Set checkpoint.init_from, or leave checkpoint.init_except out"
            raise ConfigError("checkpoint.init_except", pattern, "None where checkpoint.init_from is None", hint)
        return state
    weights = {"params": state.params, "model_state": state.model_state}
    source = _read_weights(section, dict(named_leaves(weights)))
    replaced = dict(named_leaves(weights))
    if pattern is not None:
        kept = jax.tree.leaves(match_paths("checkpoint.init_except", pattern, weights))
        replaced = {path: leaf for (path, leaf), keep in zip(replaced.items(), kept, strict=True) if not keep}
    if lanes is not None:
        source = {path: np.broadcast_to(leaf, (lanes, *leaf.shape)) for path, leaf in source.items()}
    _check(replaced, source, section["init_from"])
    leaves = [source[path] if path in replaced else leaf for path, leaf in named_leaves(weights)]
    loaded = place(jax.tree.unflatten(jax.tree.structure(weights), leaves))
    params = loaded["params"]
    model_state = loaded["model_state"]
    ema = None if state.ema is None else jax.tree.map(jax.numpy.copy, (params, model_state))
    state = state.replace(params=params, model_state=model_state, ema=ema)
    init = functools.partial(_init_optimizer, rules=rules)
    return state.replace(opt_state=place(jax.jit(jax.vmap(init) if lanes is not None else init)(state)))


def _init_optimizer(state: TrainState, *, rules: Rules) -> Any:
    """Makes the optimizer state from the loaded parameters: some optimizers keep a copy of the initial ones."""
    return rules.optimizer(rules.schedule(state.step, state.hparams)).init(state.params)


def _read_weights(section: Mapping[str, Any], wanted: Collection[str]) -> dict[str, np.ndarray]:
    """Reads path -> array of a run, or of a file whose arrays are named as the `wanted` paths or mapped to them."""
    path = Path(section["init_from"])
    if path.suffix == SUFFIX:
        return read_weights_of_file(path, section["init_names"], section["init_layout"], wanted)
    if section["init_names"] is not None:
        expected = f"None where checkpoint.init_from is no {SUFFIX} file"
        raise ConfigError("checkpoint.init_names", section["init_names"], expected)
    return _read_weights_of_run(path)


def _read_weights_of_run(run: Path) -> dict[str, np.ndarray]:
    """Reads path -> array of parameters and model state, averaged if available, at the best or else the newest step."""
    with reported_as(ConfigError, "checkpoint.init_from"):
        checkpoints = open_checkpoints(run, read_owner(run))
        exist = checkpoints.exist()
    if not exist:
        raise ConfigError("checkpoint.init_from", str(run), "the directory of a run with a saved checkpoint")
    leaves, memory = checkpoints.restore_leaves()
    best_step = Bookkeeping(**memory).best_step
    if best_step in checkpoints.steps():
        leaves, _ = checkpoints.restore_leaves(best_step)
    averaged = {"params": "ema/0", "model_state": "ema/1"}
    has_average = any(path.startswith("ema/") for path in leaves)
    weights = {}
    for name, average_name in averaged.items():
        prefix = (average_name if has_average else name) + "/"
        weights |= {
            f"{name}/{path.removeprefix(prefix)}": leaf for path, leaf in leaves.items() if path.startswith(prefix)
        }
    return weights if has_average else weights | _schedule_free_averages(leaves)


def _schedule_free_averages(leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Computes the averaged parameters of a schedule-free optimizer; empty for any other optimizer."""
    averages = {}
    for path, z in leaves.items():
        state, is_z, name = path.partition("/z/")
        if is_z and f"{state}/max_lr" in leaves and leaves[f"{state}/b1"].ndim == 0:  # lanes are rejected later
            averages[f"params/{name}"] = schedule_free_x(leaves[f"params/{name}"], z, leaves[f"{state}/b1"])
    return averages


def _check(replaced: Mapping[str, Any], source: Mapping[str, np.ndarray], run: str) -> None:
    """Rejects weights that do not fit, and lists them all."""
    wrong = [
        f"{path}: there {source[path].shape if path in source else 'nothing'}, here {leaf.shape}"
        for path, leaf in replaced.items()
        if path not in source or source[path].shape != leaf.shape or source[path].dtype != leaf.dtype
    ]
    if wrong:
        hint = f"Leave these out with checkpoint.init_except: {'; '.join(wrong)}"
        raise ConfigError("checkpoint.init_from", run, "weights of the same paths and shapes", hint)
