"""Runners advance a single state, or several seeds or folds as lanes, behind one interface."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import jax
import numpy as np

from jaxtrain.core.batches import Batches
from jaxtrain.core.frozen import put_shared, take_shared
from jaxtrain.core.metric import Metrics
from jaxtrain.core.metric_names import FOLD, NORMS, SEED
from jaxtrain.core.spikes import steps_taken
from jaxtrain.core.state import TrainState
from jaxtrain.core.steps import CallOutput, StepFunction
from jaxtrain.parallel.mesh import TrainCall, compile_train_call, replicate
from jaxtrain.parallel.population import Population
from jaxtrain.parallel.width import fit_width
from jaxtrain.training.divergence import explain_divergence, find_last_finite
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.fine_tuning import load_initial_weights
from jaxtrain.training.host_metrics import add_host_metrics, measure_on_host, stack_lanes
from jaxtrain.training.shared_frozen import shares_frozen


class Runner(Protocol):
    """Makes, advances, evaluates and saves a training state, of one run or of lanes.

    Metrics are returned on the host, in the form of a single run.
    """

    def init(self) -> TrainState:
        """Makes the initial state, with the weights of another run if `checkpoint.init_from` names one."""
        ...

    def shapes(self) -> TrainState:
        """Returns the shapes and dtypes of the saved state."""
        ...

    def place(self, saved: TrainState) -> TrainState:
        """Places a saved state on the devices."""
        ...

    def fetch(self, state: TrainState) -> TrainState:
        """Returns the state to save, which is the same on any number of devices."""
        ...

    def call(self, state: TrainState, batches: Batches, steps: int) -> tuple[TrainState, CallOutput]:
        """Dispatches a call of up to k training steps; `state` is donated."""
        ...

    def finish_call(
        self, state: TrainState, output: CallOutput, batches: Batches, steps: int
    ) -> tuple[TrainState, CallOutput]:
        """Waits for a call; returns its output on the host, and the newest `state`, repaired where lanes diverged.

        `output`, `batches` and `steps` are those of the call; `state` may be that of a later call.
        """
        ...

    def evaluate(self, state: TrainState, split: str) -> Metrics:
        """Evaluates a whole split, also by the functions of `eval.host`."""
        ...

    def after_evaluation(self, state: TrainState, metrics: Metrics) -> TrainState:
        """Updates the plateau schedules with the metrics of an evaluation, by editing the state's hyperparameters."""
        ...

    def step_back(
        self, state: TrainState, output: CallOutput, batches: Batches, steps: int
    ) -> tuple[TrainState, int, CallOutput | None, str]:
        """Restores the last finite state of a call that diverged.

        Returns:
            The state, the number of finite steps of the call, their output (None if there are none), and the reason.
        """
        ...

    def diverged_lanes(self, state: TrainState) -> dict[int, int]:
        """Returns number of a lane -> its last finite step, for the lanes that diverged while others continue."""
        ...

    def one(self, state: TrainState, lane: int | None = None) -> TrainState:
        """Returns the state of one run on the devices: that of a lane, by default the first that has not diverged."""
        ...


@dataclass(frozen=True)
class Solo:
    """A single run."""

    experiment: Experiment
    step: StepFunction

    def init(self) -> TrainState:
        """Makes the initial state."""
        state = self.experiment.init()
        mesh = self.experiment.mesh
        section = self.experiment.config["checkpoint"]
        return load_initial_weights(state, section, self.experiment.rules, lambda tree: replicate(tree, mesh))

    def shapes(self) -> TrainState:
        """Returns the shapes of the state."""
        return self.experiment.state_shapes()

    def place(self, saved: TrainState) -> TrainState:
        """Replicates the state over the devices."""
        return replicate(saved, self.experiment.mesh)

    def fetch(self, state: TrainState) -> TrainState:
        """Returns the state unchanged."""
        return state

    @cached_property
    def _call(self) -> TrainCall:
        backend = self.experiment.config["parallel"]["backend"]
        return compile_train_call(self.experiment.rules, self.experiment.mesh, backend, self.step)

    def call(self, state: TrainState, batches: Batches, steps: int) -> tuple[TrainState, CallOutput]:
        """Dispatches a call."""
        return self._call(state, batches, steps)

    def finish_call(
        self, state: TrainState, output: CallOutput, batches: Batches, steps: int
    ) -> tuple[TrainState, CallOutput]:
        """Waits for the output of a call."""
        return state, jax.device_get(output)

    def evaluate(self, state: TrainState, split: str) -> Metrics:
        """Evaluates a split."""
        metrics = jax.device_get(self.experiment.evaluate(state, split))
        on_host = measure_on_host(self.experiment, state, split)
        return add_host_metrics(metrics, on_host, self.experiment.config["eval"])

    def after_evaluation(self, state: TrainState, metrics: Metrics) -> TrainState:
        """Edits the hyperparameters that plateau schedules change."""
        schedule = self.experiment.schedule
        metric = self.experiment.config["eval"]["metric"]
        if not schedule.plateaus:
            return state
        hparams = schedule.after_evaluation(jax.device_get(state.hparams), metrics[metric].loss())
        return state.replace(hparams=replicate(hparams, self.experiment.mesh))

    def step_back(
        self, state: TrainState, output: CallOutput, batches: Batches, steps: int
    ) -> tuple[TrainState, int, CallOutput | None, str]:
        """Finds the last finite state by replaying the call."""
        state, finite_steps, replayed = find_last_finite(self._call, state, output, batches)
        reason = explain_divergence(self.step, state, batches.take(finite_steps), self.experiment.rules)
        return state, finite_steps, replayed, reason

    def diverged_lanes(self, state: TrainState) -> dict[int, int]:
        """Returns an empty dict: a single run that diverges ends."""
        return {}

    def one(self, state: TrainState, lane: int | None = None) -> TrainState:
        """Returns the state."""
        return state


@dataclass(frozen=True)
class Lanes:
    """Runs that are lanes of one program: of consecutive seeds, or of one seed on the folds of the data.

    Metrics are merged over the lanes that have not diverged; each lane's own are named by `kind` and its number, as in
    "seed_3/loss" or "fold_0/loss". `seeds` holds the seed of each lane.
    """

    experiment: Experiment
    step: StepFunction
    kind: str
    numbers: range
    seeds: Sequence[int]

    @property
    def names(self) -> list[str]:
        """The prefix of each lane's numbers, such as "seed_3"."""
        return [f"{self.kind}{number}" for number in self.numbers]

    @cached_property
    def population(self) -> Population:
        """The program of the lanes, at the width of the config or the largest that fits in memory."""
        experiment = self.experiment
        return fit_width(
            Population(
                experiment.rules,
                experiment.mesh,
                len(self.seeds),
                step=self.step,
                share_frozen=shares_frozen(experiment, self.seeds),
            ),
            experiment.config["parallel"]["width"],
            experiment.hparams,
            experiment.batches(0, 0),
        )

    def init(self) -> TrainState:
        """Makes the initial states of the lanes."""
        states = self.population.init(self.seeds, self.experiment.hparams, self.experiment.example)
        section = self.experiment.config["checkpoint"]
        rules = self.experiment.rules
        return load_initial_weights(states, section, rules, self.population.spread, lanes=self.population.padded)

    def shapes(self) -> TrainState:
        """Returns the shapes of the lanes without padding, on a leading axis."""
        lanes = len(self.seeds)
        one = self.experiment.state_shapes()
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((lanes, *leaf.shape), leaf.dtype), one)

    def place(self, saved: TrainState) -> TrainState:
        """Pads the lanes to a multiple that the devices step at a time, and places them."""
        if self.population.share_frozen:
            saved = put_shared(saved, jax.tree.map(lambda leaf: leaf[0], saved.frozen))
        return self.population.place(saved)

    def fetch(self, state: TrainState) -> TrainState:
        """Returns the lanes on the host without padding, so that any number of devices can resume them.

        Frozen parameters have a lane axis there, also where the lanes share them: a saved state has one form.
        """
        lanes, shared = take_shared(self.population.fetch(state))
        if shared is None:
            return lanes
        return lanes.replace(frozen=jax.tree.map(lambda leaf: np.stack([leaf] * len(self.seeds)), shared))

    def call(self, state: TrainState, batches: Batches, steps: int) -> tuple[TrainState, CallOutput]:
        """Dispatches a call."""
        return self.population.call(state, batches, steps)

    def finish_call(
        self, state: TrainState, output: CallOutput, batches: Batches, steps: int
    ) -> tuple[TrainState, CallOutput]:
        """Waits for the output of a call, which is live while any lane is.

        A lane that diverged in the call is set to its last finite state, by replaying that lane only, and its finite
        steps are counted. So neither depends on how the run is divided into calls.
        """
        lanes_output = self.population.fetch(output)
        live = lanes_output.live
        finite_steps = np.array(lanes_output.kept)
        # A lane that was dead before the call has no counts: only those that died in this call are replayed.
        for lane in np.flatnonzero(~live & steps_taken(lanes_output.metrics)[:, 0]):
            own = jax.tree.map(lambda leaf, lane=lane: leaf[lane], lanes_output)
            state, finite_steps[lane] = self._restore_last_finite(state, int(lane), own, batches)
        counted = np.arange(batches.capacity) < finite_steps[:, None]
        lane = int(np.argmax(live))  # a live one: a dead lane has the scheduled values of an earlier step
        values = {name: value[lane] for name, value in lanes_output.values.items()}
        values |= self._plateau_values(lanes_output.values)
        metrics = self._merge(lanes_output.metrics, counted)
        gradients = jax.tree.map(lambda leaf: leaf[lane], lanes_output.gradients)
        return state, CallOutput(metrics, values, live.any(), finite_steps.max(), lanes_output.tried.max(), gradients)

    def _plateau_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns each lane's values of the floats with a plateau schedule, as "seed_3/optimizer.learning_rate"."""
        names = [section.removeprefix("schedule.") for section in self.experiment.schedule.plateaus]
        return {f"{own}/{name}": values[name][lane] for lane, own in enumerate(self.names) for name in names}

    def _restore_last_finite(
        self, state: TrainState, lane: int, output: CallOutput, batches: Batches
    ) -> tuple[TrainState, int]:
        """Replaces a diverged lane by its last finite state, as dead; returns the states and its finite steps."""
        one_lane, lane_state = self.population.gather(state, [lane])
        lane_state, finite_steps, _ = find_last_finite(one_lane.call, lane_state, output, batches.pick(lane))
        last = one_lane.fetch_lane(lane_state, 0).replace(live=np.array(False))
        return self.population.replace_lane(state, lane, last), finite_steps

    def evaluate(self, state: TrainState, split: str) -> Metrics:
        """Evaluates a split in every lane."""
        metrics = self.population.evaluate(state, self.experiment.eval_batches(split))
        live = self.population.fetch(state.live)
        on_host = [self._measure_on_host(state, lane, split) if alive else {} for lane, alive in enumerate(live)]
        metrics = add_host_metrics(self.population.fetch(metrics), stack_lanes(on_host), self.experiment.config["eval"])
        return self._merge(metrics, live)

    def _measure_on_host(self, state: TrainState, lane: int, split: str) -> Metrics:
        """Measures one lane by `eval.host`, as its solo run is: the predictions of one lane are held at a time."""
        if not self.experiment.config["eval"]["host"]:
            return {}
        return measure_on_host(self.experiment, self._place_lane(state, lane), split)

    def after_evaluation(self, state: TrainState, metrics: Metrics) -> TrainState:
        """Edits the hyperparameters of each lane, using its own metric."""
        schedule = self.experiment.schedule
        metric = self.experiment.config["eval"]["metric"]
        if not schedule.plateaus:
            return state
        losses = np.array([metrics[f"{own}/{metric}"].loss() for own in self.names], np.float32)
        edit = functools.partial(schedule.after_evaluation, loss=losses)
        return self.population.edit(state, edit)

    def step_back(
        self, state: TrainState, output: CallOutput, batches: Batches, steps: int
    ) -> tuple[TrainState, int, CallOutput | None, str]:
        """Explains the divergence of the lane that trained longest; `finish_call` has restored all lanes."""
        finite_steps = int(steps_taken(output.metrics).sum())
        longest = int(np.argmax(self.population.fetch(state.step)))
        last = self.population.fetch_lane(state, longest)
        own = batches.pick(longest)
        reason = explain_divergence(self.step, last, own.take(finite_steps), self.experiment.rules)
        word = self.kind.rstrip("_")
        return state, finite_steps, output, f"all {word}s diverged; {word} {self.numbers[longest]} {reason}"

    def diverged_lanes(self, state: TrainState) -> dict[int, int]:
        """Returns number -> its last finite step, for the lanes that diverged."""
        live, steps = self.population.fetch((state.live, state.step))
        lanes = zip(self.numbers, live, steps, strict=True)
        return {number: int(step) for number, alive, step in lanes if not alive}

    def one(self, state: TrainState, lane: int | None = None) -> TrainState:
        """Returns the state of a lane, by default the first live one."""
        chosen = int(np.argmax(self.population.fetch(state.live))) if lane is None else lane
        return self._place_lane(state, chosen)

    def _place_lane(self, state: TrainState, lane: int) -> TrainState:
        return replicate(self.population.fetch_lane(state, lane), self.experiment.mesh)

    def _merge(self, metrics: Metrics, counted: np.ndarray) -> Metrics:
        """Sums metrics over lanes where `counted`, bool (lanes, ...), holds, and adds each lane's own by name."""

        def zero_uncounted(leaf: Any) -> np.ndarray:
            return np.where(_expand_dims(counted, np.ndim(leaf)), leaf, np.zeros_like(leaf))

        by_lane = jax.tree.map(zero_uncounted, metrics)
        merged = jax.tree.map(lambda leaf: leaf.sum(axis=0), by_lane)
        by_name = {
            f"{own}/{name}": jax.tree.map(lambda leaf, lane=lane: leaf[lane], metric)
            for lane, own in enumerate(self.names)
            for name, metric in by_lane.items()
            if not name.startswith(NORMS)
        }
        return merged | by_name


def make_runner(experiment: Experiment, step: StepFunction) -> Runner:
    """Makes the runner of an experiment: `Lanes` for several seeds or folds, else `Solo`."""
    first = experiment.config["seed"]
    seeds = range(first, first + experiment.config["train"]["seeds"])
    if folds := len(experiment.dataset.folds):
        return Lanes(experiment, step, FOLD, range(folds), [first] * folds)
    return Lanes(experiment, step, SEED, seeds, seeds) if len(seeds) > 1 else Solo(experiment, step)


def _expand_dims(array: np.ndarray, rank: int) -> np.ndarray:
    """Appends axes of size 1, up to `rank` axes, so that the array broadcasts over trailing axes."""
    return array.reshape(*array.shape, *(1 for _ in range(rank - array.ndim)))
