"""What steps the lanes of a search: many as one program, or those that are too big one by one over all devices."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from jaxtrain.config.registry import Values
from jaxtrain.core.batches import Batches
from jaxtrain.core.state import Batch, TrainState
from jaxtrain.core.steps import CallOutput, Metrics
from jaxtrain.parallel.mesh import compile_eval_call, compile_init, compile_train_call, replicate
from jaxtrain.training.experiment import Experiment


class Lanes(Protocol):
    """What a `Population` does for a search; states on the host have a leading axis of lanes."""

    @property
    def lanes(self) -> int:
        """How many lanes are stepped at once."""
        ...

    @property
    def padded(self) -> int | None:
        """Lanes of the states on the devices, padding included; None where they have no axis of lanes."""
        ...

    def spread(self, tree: Any) -> Any:
        """Places a tree on the devices as the states lie."""
        ...

    def with_lanes(self, lanes: int) -> "Lanes":
        """Returns the same program with no more than so many lanes in it."""
        ...

    def init(self, seeds: Any, hparams: Mapping[str, Any], example: Batch) -> TrainState:
        """Makes the states of seeds (lanes,) and hyperparameters name -> (lanes,)."""
        ...

    def call(self, states: TrainState, batches: Batches, steps: int) -> tuple[TrainState, CallOutput]:
        """Takes up to k steps in every lane; the states that are given are used up."""
        ...

    def evaluate(self, states: TrainState, batches: Batches) -> Metrics:
        """Measures the batches in every lane."""
        ...

    def edit(self, states: TrainState, edit: Callable[[Values], Values]) -> TrainState:
        """Returns the states with the hyperparameters of live lanes edited on the host, as name -> (lanes,)."""
        ...

    def fetch(self, tree: Any) -> Any:
        """Brings states, or what a call or an evaluation reports, to the host."""
        ...

    def place(self, states: Any) -> TrainState:
        """Places states from the host on the devices."""
        ...


@dataclass(frozen=True)
class OneByOne:
    """A single lane, whose batches are spread over all devices: for models that do not fit on one beside others."""

    experiment: Experiment
    lanes: int = 1
    padded: int | None = None

    def spread(self, tree: Any) -> Any:
        """Places a tree whole on every device."""
        return replicate(tree, self.experiment.mesh)

    def with_lanes(self, lanes: int) -> "OneByOne":
        """Returns the program: it holds one lane."""
        return self

    def init(self, seeds: Any, hparams: Mapping[str, Any], example: Batch) -> TrainState:
        """Makes the state."""
        own = {name: np.float32(np.reshape(value, -1)[0]) for name, value in hparams.items()}
        key = jax.random.key(np.reshape(seeds, -1)[0])
        return compile_init(self.experiment.rules, self.experiment.mesh)(key, example, own)

    def call(self, states: TrainState, batches: Batches, steps: int) -> tuple[TrainState, CallOutput]:
        """Takes the steps."""
        return compile_train_call(self.experiment.rules, self.experiment.mesh, "mesh")(states, batches, steps)

    def evaluate(self, states: TrainState, batches: Batches) -> Metrics:
        """Measures the batches."""
        return compile_eval_call(self.experiment.rules, self.experiment.mesh)(states, batches)

    def edit(self, states: TrainState, edit: Callable[[Values], Values]) -> TrainState:
        """Edits the hyperparameters, which have a lane axis of 1 on the host, while the run is alive."""
        if not self.fetch(states.live)[0]:
            return states
        edited = edit(self.fetch(states.hparams))
        return states.replace(hparams=self.spread({name: np.float32(value[0]) for name, value in edited.items()}))

    def fetch(self, tree: Any) -> Any:
        """Brings a tree to the host, with a lane axis of 1."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[None], jax.device_get(tree))

    def place(self, states: Any) -> TrainState:
        """Places the state whole on every device."""
        return self.spread(jax.tree.map(lambda leaf: np.array(leaf[0]), states))
