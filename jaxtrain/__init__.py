"""jaxtrain: a functional training framework on JAX.

The public names are imported from their modules on first use, so that `import jaxtrain` itself is fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtrain.commands.evaluate import evaluate
    from jaxtrain.config.defaults import default_config
    from jaxtrain.config.resolve import load_config
    from jaxtrain.core.metric import Mean
    from jaxtrain.core.state import Rules, Task, TrainState, init_state
    from jaxtrain.core.steps import eval_step, train_call, train_step
    from jaxtrain.data.source import Source, Split
    from jaxtrain.errors import JaxtrainError
    from jaxtrain.export.loading import ExportedModel, load_export
    from jaxtrain.export.write import export_run
    from jaxtrain.lr_range.from_config import lr_range_test
    from jaxtrain.models.layers import dropout
    from jaxtrain.parallel.population import Population
    from jaxtrain.replay.pair import diff_runs
    from jaxtrain.replay.search_pair import diff_searches
    from jaxtrain.replay.step import replay_step
    from jaxtrain.search.run import run_search
    from jaxtrain.tasks import linen_task, make_task
    from jaxtrain.tasks.nnx_modules import nnx_task
    from jaxtrain.tasks.pytrees import pytree_task
    from jaxtrain.training.debugging.run import debug_run
    from jaxtrain.training.experiment import build
    from jaxtrain.training.generation import generate
    from jaxtrain.training.train import train_and_evaluate
    from jaxtrain.training.trained_run import Run, load_run

_HOMES = {
    "commands.evaluate": ("evaluate",),
    "config.defaults": ("default_config",),
    "config.resolve": ("load_config",),
    "core.metric": ("Mean",),
    "core.state": (
        "Rules",
        "Task",
        "TrainState",
        "init_state",
    ),
    "core.steps": (
        "eval_step",
        "train_call",
        "train_step",
    ),
    "data.source": (
        "Source",
        "Split",
    ),
    "errors": ("JaxtrainError",),
    "export.loading": (
        "ExportedModel",
        "load_export",
    ),
    "export.write": ("export_run",),
    "lr_range.from_config": ("lr_range_test",),
    "models.layers": ("dropout",),
    "parallel.population": ("Population",),
    "replay.pair": ("diff_runs",),
    "replay.search_pair": ("diff_searches",),
    "replay.step": ("replay_step",),
    "search.run": ("run_search",),
    "tasks": (
        "linen_task",
        "make_task",
    ),
    "tasks.nnx_modules": ("nnx_task",),
    "tasks.pytrees": ("pytree_task",),
    "training.debugging.run": ("debug_run",),
    "training.experiment": ("build",),
    "training.generation": ("generate",),
    "training.train": ("train_and_evaluate",),
    "training.trained_run": (
        "Run",
        "load_run",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ExportedModel",
    "JaxtrainError",
    "Mean",
    "Population",
    "Rules",
    "Run",
    "Source",
    "Split",
    "Task",
    "TrainState",
    "build",
    "debug_run",
    "default_config",
    "diff_runs",
    "diff_searches",
    "dropout",
    "eval_step",
    "evaluate",
    "export_run",
    "generate",
    "init_state",
    "linen_task",
    "load_config",
    "load_export",
    "load_run",
    "lr_range_test",
    "make_task",
    "nnx_task",
    "pytree_task",
    "replay_step",
    "run_search",
    "train_and_evaluate",
    "train_call",
    "train_step",
]


def __getattr__(name: str) -> Any:
    """Imports a public name from its module on first use."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'jaxtrain' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jaxtrain.{_HOME_OF[name]}"), name)
