"""Fine-tuning: a fresh state that starts from the weights of another run."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtrain.core.averaging import average
from jaxtrain.core.state import Rules, TrainState
from jaxtrain.core.trees import matching, named_leaves
from jaxtrain.errors import ConfigError
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.trackers.progress import plain_lines


def load_initial_weights(
    state: TrainState, section: Mapping[str, Any], rules: Rules, place: Callable[[Any], Any], lanes: int | None = None
) -> TrainState:
    """Replaces parameters and model state by those of the run `checkpoint.init_from`, at its best step.

    The optimizer starts anew from them. `place` puts a tree where the state lies; with `lanes`, every one of these gets
    the same weights.

    Averaged parameters are taken where the run has them. Parameters whose path matches the regular expression
    `checkpoint.init_except` keep their initial values. ConfigError lists every leaf that does not match.
    """
    pattern = section["init_except"]
    if section["init_from"] is None:
        if pattern is not None:
            raise ConfigError("checkpoint.init_except", pattern, "None, or a run in checkpoint.init_from beside it")
        return state
    source = _weights(Path(section["init_from"]))
    weights = {"params": state.params, "model_state": state.model_state}
    wanted = dict(named_leaves(weights))
    if pattern is not None:
        kept = jax.tree.leaves(matching("checkpoint.init_except", pattern, weights))
        wanted = {path: leaf for (path, leaf), stays in zip(wanted.items(), kept, strict=True) if not stays}
    if lanes is not None:
        source = {path: np.broadcast_to(leaf, (lanes, *leaf.shape)) for path, leaf in source.items()}
    _check(wanted, source, section["init_from"])
    leaves = [source[path] if path in wanted else leaf for path, leaf in named_leaves(weights)]
    taken = place(jax.tree.unflatten(jax.tree.structure(weights), leaves))
    params, model_state = taken["params"], taken["model_state"]
    ema = None if state.ema is None else jax.tree.map(jax.numpy.copy, (params, model_state))
    state = state.replace(params=params, model_state=model_state, ema=ema)
    start = functools.partial(_optimizer_start, rules=rules)
    return state.replace(opt_state=place(jax.jit(jax.vmap(start) if lanes is not None else start)(state)))


def _optimizer_start(state: TrainState, *, rules: Rules) -> Any:
    """Makes the optimizer's state of these parameters: some keep a copy of them, or measure the way from them."""
    return rules.optimizer(rules.schedule(state.step, state.hparams)).init(state.params)


def _weights(run: Path) -> dict[str, np.ndarray]:
    """Reads parameters and model state of a run's best step, else its newest: the averaged ones where there are any."""
    checkpoints = Checkpoints(run / "checkpoints", keep=1, say=plain_lines(quiet=False).say)
    if not checkpoints.exist():
        raise ConfigError("checkpoint.init_from", str(run), "the directory of a run that has saved a checkpoint")
    leaves, memory = checkpoints.restore_leaves()
    best = memory["best"]
    if best is not None and best["step"] in checkpoints.steps():
        leaves, _ = checkpoints.restore_leaves(best["step"])
    averaged = {"params": "ema/0", "model_state": "ema/1"}
    has_average = any(path.startswith("ema/") for path in leaves)
    found = {}
    for name, place in averaged.items():
        prefix = (place if has_average else name) + "/"
        found |= {
            f"{name}/{path.removeprefix(prefix)}": leaf for path, leaf in leaves.items() if path.startswith(prefix)
        }
    return found if has_average else found | _schedule_free(leaves)


def _schedule_free(leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the averages that a schedule-free optimizer kept, of the parameters that it moved."""
    found = {}
    for path, z in leaves.items():
        state, is_z, name = path.partition("/z/")
        if is_z and f"{state}/max_lr" in leaves and leaves[f"{state}/b1"].ndim == 0:  # lanes are refused later
            found[f"params/{name}"] = average(leaves[f"params/{name}"], z, leaves[f"{state}/b1"])
    return found


def _check(wanted: Mapping[str, Any], source: Mapping[str, np.ndarray], run: str) -> None:
    """Refuses weights that do not fit, and lists them all."""
    wrong = [
        f"{path}: there {source[path].shape if path in source else 'nothing'}, here {leaf.shape}"
        for path, leaf in wanted.items()
        if path not in source or source[path].shape != leaf.shape or source[path].dtype != leaf.dtype
    ]
    if wrong:
        hint = f"{'; '.join(wrong)}. Leave these out with checkpoint.init_except"
        raise ConfigError("checkpoint.init_from", run, "a run whose weights have the same shapes", hint)
