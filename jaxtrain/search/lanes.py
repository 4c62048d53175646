"""Programs that step the lanes of a search: many lanes together, or one at a time over all devices."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from jaxtrain.config.registry import Values
from jaxtrain.core.batches import Batches
from jaxtrain.core.frozen import map_lanes, put_shared, take_shared
from jaxtrain.core.metric import Metrics
from jaxtrain.core.state import Batch, TrainState
from jaxtrain.core.steps import CallOutput
from jaxtrain.parallel.mesh import compile_eval_call, compile_init, compile_train_call, replicate
from jaxtrain.training.experiment import Experiment


class Lanes(Protocol):
    """The part of `Population` that a search uses; states on the host have a leading axis of lanes."""

    @property
    def lanes(self) -> int:
        """The number of lanes that are stepped together."""
        ...

    @property
    def padded(self) -> int | None:
        """The number of lanes of the states on the devices, padding included; None if they have no lane axis."""
        ...

    @property
    def padding_is_free(self) -> bool:
        """Whether lanes of padding take no time."""
        ...

    def spread(self, tree: Any) -> Any:
        """Places a tree on the devices with the sharding of the states."""
        ...

    def with_lanes(self, lanes: int) -> "Lanes":
        """Returns the same program, holding at most `lanes` lanes."""
        ...

    def init(self, seeds: Any, hparams: Mapping[str, Any], example: Batch) -> TrainState:
        """Makes the states of seeds (lanes,) and hyperparameters name -> (lanes,)."""
        ...

    def call(self, states: TrainState, batches: Batches, steps: int) -> tuple[TrainState, CallOutput]:
        """Takes up to k steps in every lane; `states` are donated."""
        ...

    def evaluate(self, states: TrainState, batches: Iterable[Batches]) -> Metrics:
        """Evaluates the batches in every lane."""
        ...

    def edit(self, states: TrainState, edit: Callable[[Values], Values]) -> TrainState:
        """Returns the states with the hyperparameters of live lanes edited on the host, as name -> (lanes,)."""
        ...

    def fetch(self, tree: Any) -> Any:
        """Copies states, or the output of a call or an evaluation, to the host."""
        ...

    def place(self, states: Any) -> TrainState:
        """Places host states on the devices."""
        ...


@dataclass(frozen=True)
class OneByOne:
    """A single lane with its batches split over all devices: for models too large for a lane on each device."""

    experiment: Experiment
    share_frozen: bool = False
    lanes: int = 1
    padded: int | None = None
    padding_is_free: bool = False

    def spread(self, tree: Any) -> Any:
        """Replicates a tree over the devices."""
        return replicate(tree, self.experiment.mesh)

    def with_lanes(self, lanes: int) -> "OneByOne":
        """Returns this program, which holds one lane."""
        return self

    def init(self, seeds: Any, hparams: Mapping[str, Any], example: Batch) -> TrainState:
        """Makes the state of the one lane."""
        own = {name: np.float32(np.reshape(value, -1)[0]) for name, value in hparams.items()}
        key = jax.random.key(np.reshape(seeds, -1)[0])
        state = compile_init(self.experiment.rules, self.experiment.mesh)(key, example, own)
        return self._apart(state)

    def _apart(self, state: TrainState) -> TrainState:
        """Puts the frozen parameters apart, as those of lanes that share them are."""
        return put_shared(state, state.frozen) if self.share_frozen else state

    def _whole(self, states: TrainState) -> TrainState:
        """Inverts `_apart`."""
        own, frozen = take_shared(states)
        return own.replace(frozen=frozen) if self.share_frozen else own

    def call(self, states: TrainState, batches: Batches, steps: int) -> tuple[TrainState, CallOutput]:
        """Takes the steps."""
        call = compile_train_call(self.experiment.rules, self.experiment.mesh, "mesh")
        state, output = call(self._whole(states), batches, steps)
        return self._apart(state), output

    def evaluate(self, states: TrainState, batches: Iterable[Batches]) -> Metrics:
        """Evaluates the batches."""
        return compile_eval_call(self.experiment.rules, self.experiment.mesh)(self._whole(states), batches)

    def edit(self, states: TrainState, edit: Callable[[Values], Values]) -> TrainState:
        """Edits the hyperparameters, which have a lane axis of 1 on the host; does nothing if the run diverged."""
        if not self.fetch(states.live)[0]:
            return states
        edited = edit(self.fetch(states.hparams))
        return states.replace(hparams=self.spread({name: np.float32(value[0]) for name, value in edited.items()}))

    def fetch(self, tree: Any) -> Any:
        """Copies a tree to the host, with a lane axis of 1."""
        return map_lanes(lambda leaf: np.asarray(leaf)[None], jax.device_get(tree))

    def place(self, states: Any) -> TrainState:
        """Replicates the state over the devices."""
        return self.spread(map_lanes(lambda leaf: np.array(leaf[0]), states))
