"""Builds a task from a Flax NNX module."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flax import nnx

from jaxtrain.config.registry import Values
from jaxtrain.core.state import Task
from jaxtrain.core.trees import named_leaves, replace_leaves
from jaxtrain.tasks.linen import LossFunction, linen_task

MakeModule = Callable[[Values, nnx.Rngs], nnx.Module]
"""(values, rngs) -> the module, whose call maps inputs (batch, ...) to outputs."""


def nnx_task(make: MakeModule, loss: LossFunction, metrics: tuple[str, ...] = (), **options: Any) -> Task:
    """Builds a task from an NNX module, made inside the trace from each step's values, and a loss per example.

    Variables of the type `nnx.Param` are trained; all others, such as the statistics of a batch norm, are the model
    state. Both are dicts of path -> array. In training the module is called after its `train()`, with keys of the step
    for dropout; else after its `eval()`. `nnx.Dropout` takes a Python float: for a rate that is a hyperparameter, call
    `jaxtrain.dropout`. The other arguments are those of `linen_task`.
    """
    return linen_task(lambda values: NNXModule(make, values), loss, metrics, **options)


@dataclass(frozen=True, eq=False)
class NNXModule:
    """An NNX module with the `init` and `apply` of a Linen module."""

    make: MakeModule
    values: Values

    def init(self, rngs: Any, *inputs: Any, **options: Any) -> dict[str, Any]:
        """Makes the variables from the key "params"; the module, which knows its own shapes, is not called."""
        del inputs, options
        _, params, _, state = _split(self.make(self.values, nnx.Rngs(rngs["params"])))
        return {"params": _arrays(params)} | _model_state(state)

    def apply(self, variables: Any, inputs: Any, train: bool = False, rngs: Any = None, mutable: Any = False) -> Any:
        """Calls the module with these variables; with a list in `mutable`, returns (outputs, updated model state)."""
        # XLA removes from the program what `make` draws, since it is replaced here.
        structure, params, random, state = _split(self.make(self.values, nnx.Rngs(0, **(rngs or {}))))
        params = _replaced(params, variables["params"])
        state = _replaced(state, variables.get("state", {}))
        module: Any = nnx.merge(structure, params, random, state)
        if train:
            module.train()
        else:
            module.eval()
        outputs = module(inputs)
        if mutable is False:
            return outputs
        return outputs, _model_state(_split(module)[3]) if mutable else {}


def _split(module: nnx.Module) -> tuple[Any, nnx.State, nnx.State, nnx.State]:
    """Returns the structure of a module, its parameters, its random keys and its other variables."""
    structure, params, random, *others = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return structure, params, random, others[0]


def _arrays(state: nnx.State) -> dict[str, Any]:
    return dict(named_leaves(nnx.to_pure_dict(state)))


def _model_state(state: nnx.State) -> dict[str, Any]:
    """Returns the variables that a module keeps beside its parameters; {} if there are none."""
    arrays = _arrays(state)
    return {"state": arrays} if arrays else {}


def _replaced(state: nnx.State, arrays: Mapping[str, Any]) -> nnx.State:
    """Returns the state with these arrays, path -> array, in the place of its own."""
    pure = nnx.to_pure_dict(state)
    nnx.replace_by_pure_dict(state, replace_leaves(pure, arrays))
    return state
