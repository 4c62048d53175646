"""jaxtrain: a functional training framework on JAX.

What researchers import is here, and loaded when it is first used, so that `import jaxtrain` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtrain.config import default_config, load_config
    from jaxtrain.data import Source, Split
    from jaxtrain.errors import JaxtrainError
    from jaxtrain.experiment import build
    from jaxtrain.metrics import Mean
    from jaxtrain.runs import Run, evaluate, load_run
    from jaxtrain.state import Rules, Task, TrainState, init_state
    from jaxtrain.steps import eval_step, train_call, train_step
    from jaxtrain.tasks import linen_task, make_task
    from jaxtrain.train import train_and_evaluate

_HOMES = {
    "config": ("default_config", "load_config"),
    "data": ("Source", "Split"),
    "errors": ("JaxtrainError",),
    "experiment": ("build",),
    "metrics": ("Mean",),
    "runs": ("Run", "evaluate", "load_run"),
    "state": ("Rules", "Task", "TrainState", "init_state"),
    "steps": ("eval_step", "train_call", "train_step"),
    "tasks": ("linen_task", "make_task"),
    "train": ("train_and_evaluate",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "JaxtrainError",
    "Mean",
    "Rules",
    "Run",
    "Source",
    "Split",
    "Task",
    "TrainState",
    "build",
    "default_config",
    "eval_step",
    "evaluate",
    "init_state",
    "linen_task",
    "load_config",
    "load_run",
    "make_task",
    "train_and_evaluate",
    "train_call",
    "train_step",
]


def __getattr__(name: str) -> Any:
    """Imports a public name from its module when it is first asked for."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'jaxtrain' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jaxtrain.{_HOME_OF[name]}"), name)
