"""Fine-tuning: initializes a new run with the weights of another, or of a file."""

import functools
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtrain.core.averaging import schedule_free_x
from jaxtrain.core.frozen import SharedByLanes, join_params, split_like, take_shared
from jaxtrain.core.state import Rules, TrainState
from jaxtrain.core.trees import match_paths, named_leaves, replace_leaves
from jaxtrain.errors import ConfigError
from jaxtrain.files import reported_as
from jaxtrain.storage.ownership import read_owner
from jaxtrain.storage.safetensors_files import SUFFIX
from jaxtrain.tasks.lora import ALPHA, BASE, merge_leaves
from jaxtrain.training.bookkeeping import Bookkeeping
from jaxtrain.training.trained_run import open_checkpoints
from jaxtrain.training.weights_of_file import read_weights_of_file

FROZEN = "frozen/"
"""Prefix of the frozen parameters in a checkpoint."""

PARAMS = "params/"
"""Prefix of the trained parameters in a checkpoint, and of all of them among weights."""


def load_initial_weights(
    state: TrainState, section: Mapping[str, Any], rules: Rules, place: Callable[[Any], Any], lanes: int | None = None
) -> TrainState:
    """Replaces parameters and model state with those of `checkpoint.init_from`: a run at its best step, or a file.

    Uses the averaged parameters where a run has them, and adds the adapters of an adapted run to its weights.
    Parameters whose path matches the regular expression `checkpoint.init_except` keep their initial values. The
    optimizer state is initialized from the new parameters.

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
    own, shared = take_shared(state)
    params = join_params(own.params, own.frozen if shared is None else shared)
    is_adapted = ALPHA in own.hparams
    base = params[BASE] if is_adapted else params
    held_once = shared[BASE] if shared is not None and is_adapted else shared
    alike = {f"params/{path}" for path, _ in named_leaves(held_once)}
    loaded = _loaded({"params": base, "model_state": own.model_state}, section, lanes, alike)
    params = {**params, BASE: loaded["params"]} if is_adapted else loaded["params"]
    trained, frozen = split_like(state, params)
    parts = {"params": trained, "model_state": loaded["model_state"]}
    state = state.replace(**place({**parts, "frozen": frozen if shared is None else SharedByLanes(frozen)}))
    if state.ema is not None:
        state = state.replace(ema=jax.tree.map(jax.numpy.copy, (state.params, state.model_state)))
    init = functools.partial(_init_optimizer, rules=rules)
    opt_state = jax.jit(jax.vmap(init) if lanes is not None else init)(state.replace(frozen=None))
    return state.replace(opt_state=place(opt_state))


def _loaded(weights: Any, section: Mapping[str, Any], lanes: int | None, alike: Collection[str]) -> Any:
    """Returns the weights with those of `checkpoint.init_from`, repeated for each lane except at the paths `alike`."""
    pattern = section["init_except"]
    replaced = dict(named_leaves(weights))
    source = _read_weights(section, replaced)
    if pattern is not None:
        kept = jax.tree.leaves(match_paths("checkpoint.init_except", pattern, weights))
        replaced = {path: leaf for (path, leaf), keep in zip(replaced.items(), kept, strict=True) if not keep}
    if lanes is not None:
        own = source.keys() - set(alike)
        source |= {path: np.broadcast_to(source[path], (lanes, *source[path].shape)) for path in own}
    _check(replaced, source, section["init_from"])
    return replace_leaves(weights, {path: source[path] for path in replaced})


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
    """Reads path -> array of parameters and model state at the best or else the newest step.

    They are averaged if available, and adapters are added to the weights that they adapt.
    """
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
    weights = {f"params/{path.removeprefix(FROZEN)}": leaf for path, leaf in leaves.items() if path.startswith(FROZEN)}
    for name, average_name in averaged.items():
        prefix = (average_name if has_average else name) + "/"
        weights |= {
            f"{name}/{path.removeprefix(prefix)}": leaf for path, leaf in leaves.items() if path.startswith(prefix)
        }
    weights = weights if has_average else weights | _schedule_free_averages(leaves)
    alpha = leaves.get(f"hparams/{ALPHA}")
    return (
        weights if alpha is None else _merged(weights, alpha.flat[0])
    )  # the same in all lanes, which are rejected later


def _merged(weights: Mapping[str, np.ndarray], alpha: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the weights of an adapted run as those of its own task."""
    others = {path: leaf for path, leaf in weights.items() if not path.startswith(PARAMS)}
    params = {path.removeprefix(PARAMS): leaf for path, leaf in weights.items() if path.startswith(PARAMS)}
    return others | {f"{PARAMS}{path}": leaf for path, leaf in merge_leaves(params, alpha).items()}


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
