"""What the loop of a run moves: one state, or the lanes of several seeds. The loop does not know which."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import jax
import numpy as np

from jaxtrain.core.batches import Batches
from jaxtrain.core.metric import NORMS, SEED
from jaxtrain.core.state import TrainState
from jaxtrain.core.steps import CallOutput, Metrics, StepFunction
from jaxtrain.parallel.mesh import TrainCall, compiled_train_call, replaced_lane, replicate
from jaxtrain.parallel.population import Population, fitted
from jaxtrain.training.divergence import explain_divergence, find_last_finite
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.fine_tuning import load_initial_weights


class Runner(Protocol):
    """Makes, moves, measures and stores what is trained; metrics come back on the host, in the form of a single run."""

    def init(self) -> TrainState:
        """Makes the state before the first step, from another run's weights where the config says so."""
        ...

    def shapes(self) -> TrainState:
        """Returns shapes and dtypes of the state as it is saved."""
        ...

    def place(self, saved: TrainState) -> TrainState:
        """Places a saved state on the devices."""
        ...

    def fetch(self, state: TrainState) -> TrainState:
        """Returns the state as it is saved."""
        ...

    def call(self, state: TrainState, batches: Batches, steps: int) -> tuple[TrainState, CallOutput]:
        """Sends a call of steps over the training split; the state that is given is used up."""
        ...

    def finish_call(
        self, state: TrainState, output: CallOutput, batches: Batches, steps: int
    ) -> tuple[TrainState, CallOutput]:
        """Waits for what a call reports; `state` is the newest, and comes back, put right where lanes have died."""
        ...

    def evaluate(self, state: TrainState, split: str) -> Metrics:
        """Measures a whole split."""
        ...

    def after_evaluation(self, state: TrainState, metrics: Metrics) -> TrainState:
        """Tells the schedules that evaluations move what one has found; they edit the state's hyperparameters."""
        ...

    def step_back(
        self, state: TrainState, output: CallOutput, batches: Batches, steps: int
    ) -> tuple[TrainState, int, CallOutput | None, str]:
        """Goes back from a call that left the finite numbers: (state, steps that stay, what they report, why)."""
        ...

    def diverged_seeds(self, state: TrainState) -> dict[int, int]:
        """Returns seed -> the last step that was kept, for seeds that were left behind."""
        ...


@dataclass(frozen=True)
class Solo:
    """One run."""

    experiment: Experiment
    step: StepFunction

    def init(self) -> TrainState:
        """Makes the state."""
        state, mesh = self.experiment.init(), self.experiment.mesh
        section = self.experiment.config["checkpoint"]
        return load_initial_weights(state, section, self.experiment.rules, lambda tree: replicate(tree, mesh))

    def shapes(self) -> TrainState:
        """Returns the shapes of the state."""
        return self.experiment.state_shapes()

    def place(self, saved: TrainState) -> TrainState:
        """Places the state whole on every device."""
        return replicate(saved, self.experiment.mesh)

    def fetch(self, state: TrainState) -> TrainState:
        """Returns the state as it is."""
        return state

    @cached_property
    def _call(self) -> TrainCall:
        backend = self.experiment.config["parallel"]["backend"]
        return compiled_train_call(self.experiment.rules, self.experiment.mesh, backend, self.step)

    def call(self, state: TrainState, batches: Batches, steps: int) -> tuple[TrainState, CallOutput]:
        """Sends a call."""
        return self._call(state, batches, steps)

    def finish_call(
        self, state: TrainState, output: CallOutput, batches: Batches, steps: int
    ) -> tuple[TrainState, CallOutput]:
        """Waits for a call."""
        return state, jax.device_get(output)

    def evaluate(self, state: TrainState, split: str) -> Metrics:
        """Measures a split."""
        return jax.device_get(self.experiment.evaluate(state, split))

    def after_evaluation(self, state: TrainState, metrics: Metrics) -> TrainState:
        """Edits the hyperparameters."""
        schedule, metric = self.experiment.schedule, self.experiment.config["eval"]["metric"]
        if not schedule.plateaus:
            return state
        hparams = schedule.after_evaluation(jax.device_get(state.hparams), metrics[metric].loss())
        return state.replace(hparams=replicate(hparams, self.experiment.mesh))

    def step_back(
        self, state: TrainState, output: CallOutput, batches: Batches, steps: int
    ) -> tuple[TrainState, int, CallOutput | None, str]:
        """Finds the last finite state by replays, and says what the next step did to it."""
        state, finite, replayed = find_last_finite(self._call, state, batches, steps)
        return (
            state,
            finite,
            replayed,
            explain_divergence(self.step, state, batches.take(finite), self.experiment.rules),
        )

    def diverged_seeds(self, state: TrainState) -> dict[int, int]:
        """Returns nothing: a single run that diverges has ended."""
        return {}


@dataclass(frozen=True)
class Seeds:
    """The runs of `train.seeds` seeds as lanes of one program, from `seed` upwards.

    Metrics are those of all seeds that are alive together, and each seed's own as "seed_3/loss".
    """

    experiment: Experiment
    step: StepFunction

    @property
    def seeds(self) -> range:
        """The seeds, a lane each."""
        first = self.experiment.config["seed"]
        return range(first, first + self.experiment.config["train"]["seeds"])

    @cached_property
    def population(self) -> Population:
        """The program of the lanes, as wide as the config says or the memory allows."""
        found, config = self.experiment, self.experiment.config
        return fitted(
            Population(found.rules, found.mesh, len(self.seeds), step=self.step),
            config["parallel"]["width"],
            found.hparams,
            found.batches(0, 0),
        )

    def init(self) -> TrainState:
        """Makes the lanes."""
        states = self.population.init(self.seeds, self.experiment.hparams, self.experiment.example)
        section, rules = self.experiment.config["checkpoint"], self.experiment.rules
        return load_initial_weights(states, section, rules, self.population.spread, lanes=self.population.padded)

    def shapes(self) -> TrainState:
        """Returns the shapes of the lanes, without padding."""
        lanes = len(self.seeds)
        one = self.experiment.state_shapes()
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((lanes, *leaf.shape), leaf.dtype), one)

    def place(self, saved: TrainState) -> TrainState:
        """Pads the lanes to what the devices take, and places them."""
        return self.population.placed(saved)

    def fetch(self, state: TrainState) -> TrainState:
        """Returns the lanes on the host, without padding, so that another number of devices can go on with them."""
        return self.population.reported(state)

    def call(self, state: TrainState, batches: Batches, steps: int) -> tuple[TrainState, CallOutput]:
        """Sends a call."""
        return self.population.call(state, batches, steps)

    def finish_call(
        self, state: TrainState, output: CallOutput, batches: Batches, steps: int
    ) -> tuple[TrainState, CallOutput]:
        """Waits for a call, alive while one seed is.

        A lane that died in it goes to its last finite state, by replays of that lane alone, and counts its finite
        steps: so neither depends on how the run is cut into calls.
        """
        found = self.population.reported(output)
        kept = np.where(found.live, steps, 0)
        for lane in np.flatnonzero(~found.live & (found.metrics["loss"].count[:, 0] > 0)):
            state, kept[lane] = self._restore_last_finite(state, int(lane), batches, steps)
        counted = np.arange(batches.capacity) < kept[:, None]
        lane = int(np.argmax(found.live))  # a lane that is dead stands at the values of an earlier step
        values = {name: value[lane] for name, value in found.values.items()} | self._own_values(found.values)
        return state, CallOutput(self._merge(found.metrics, counted), values, found.live.any())

    def _own_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Names each seed's own values of the floats that evaluations move: "seed_3/optimizer.learning_rate"."""
        moved = [section.removeprefix("schedule.") for section in self.experiment.schedule.plateaus]
        return {f"{SEED}{seed}/{name}": values[name][lane] for lane, seed in enumerate(self.seeds) for name in moved}

    def _restore_last_finite(
        self, state: TrainState, lane: int, batches: Batches, steps: int
    ) -> tuple[TrainState, int]:
        narrow, alone = self.population.gather(state, [lane])
        alone, finite, _ = find_last_finite(narrow.call, alone, batches, steps)
        last = narrow.solo(alone, 0).replace(live=np.array(False))
        return replaced_lane(state, lane, last, self.experiment.mesh), finite

    def evaluate(self, state: TrainState, split: str) -> Metrics:
        """Measures a split in every lane."""
        found = self.population.evaluate(state, self.experiment.eval_batches(split))
        return self._merge(self.population.reported(found), self.population.reported(state.live))

    def after_evaluation(self, state: TrainState, metrics: Metrics) -> TrainState:
        """Edits the hyperparameters of each lane by its own seed's number."""
        schedule, metric = self.experiment.schedule, self.experiment.config["eval"]["metric"]
        if not schedule.plateaus:
            return state
        losses = np.array([metrics[f"{SEED}{seed}/{metric}"].loss() for seed in self.seeds], np.float32)
        edit = functools.partial(schedule.after_evaluation, loss=losses)
        return self.population.edited(state, edit)

    def step_back(
        self, state: TrainState, output: CallOutput, batches: Batches, steps: int
    ) -> tuple[TrainState, int, CallOutput | None, str]:
        """Says that no seed is left, and what ended the one that lasted longest; all stand at their last finite one."""
        finite = int((output.metrics["loss"].count > 0).sum())
        longest = int(np.argmax(self.population.reported(state.step)))
        last = self.population.solo(state, longest)
        why = explain_divergence(self.step, last, batches.take(finite), self.experiment.rules)
        return state, finite, output, f"no seed is left; seed {self.seeds[longest]} {why}"

    def diverged_seeds(self, state: TrainState) -> dict[int, int]:
        """Returns seed -> the last step that was kept, for the lanes that left the finite numbers."""
        live, steps = self.population.reported((state.live, state.step))
        return {seed: int(step) for seed, alive, step in zip(self.seeds, live, steps, strict=True) if not alive}

    def _merge(self, metrics: Metrics, counted: np.ndarray) -> Metrics:
        """Adds the lanes together where they are counted, (lanes, ...), and names each one's own."""
        kept = jax.tree.map(
            lambda leaf: np.where(_expand_to_rank_of(counted, leaf), leaf, np.zeros_like(leaf)), metrics
        )
        merged = jax.tree.map(lambda leaf: leaf.sum(axis=0), kept)
        own = {
            f"{SEED}{seed}/{name}": jax.tree.map(lambda leaf, lane=lane: leaf[lane], metric)
            for lane, seed in enumerate(self.seeds)
            for name, metric in kept.items()
            if not name.startswith(NORMS)
        }
        return merged | own


def make_runner(experiment: Experiment, step: StepFunction) -> Runner:
    """Chooses what the loop moves: several seeds are lanes of one program."""
    return (Seeds if experiment.config["train"]["seeds"] > 1 else Solo)(experiment, step)


def _expand_to_rank_of(counted: np.ndarray, leaf: Any) -> np.ndarray:
    """Gives the leading axes of a leaf to what is counted, so that it spreads over the others."""
    return counted.reshape(*counted.shape, *(1 for _ in range(np.ndim(leaf) - counted.ndim)))
