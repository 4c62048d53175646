"""The plan of a run: its schedules, parameters, FLOP, memory and time, before training."""

import functools
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.config.defaults import Config
from jaxtrain.config.durations import seconds_of
from jaxtrain.core.frozen import join_params
from jaxtrain.core.steps import train_step
from jaxtrain.data.order import steps_per_epoch
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.parallel.memory import memory_limit
from jaxtrain.training.checks import explain_jax_errors
from jaxtrain.training.continuation import read_continued
from jaxtrain.training.experiment import Experiment, build
from jaxtrain.training.guard_rule import step_flops
from jaxtrain.training.memory_plan import batch_sizes, bytes_of_batch, largest_batch, memory_by_kind, most_lanes
from jaxtrain.training.runners import make_runner
from jaxtrain.training.signals import Interruption
from jaxtrain.training.timed_duration import with_timed_duration

CURVE_POINTS = 10_000  # most points of a curve; a longer run is sampled at evenly spaced steps
TIMED_STEPS = 3


@dataclass(frozen=True)
class Curves:
    """Scheduled floats over a run: `values` maps a name to its values, (n,), at `steps`, (n,)."""

    steps: np.ndarray
    values: dict[str, np.ndarray]


@dataclass(frozen=True)
class Timing:
    """Seconds of compilation, of a step, and of an evaluation of the validation split (None without one)."""

    compilation: float
    step: float
    evaluation: float | None


@dataclass(frozen=True)
class Plan:
    """Size, cost and memory of a run. Fields are None where the compiler does not report them.

    Attributes:
        parameters: number of parameters by top-level module, of one seed.
        frozen: those of them that are not trained.
        flops: FLOP of a step of one seed, without norms.
        guards_steps: whether each step is judged before its update is kept, or each call, for divergence.
        memory: kind -> bytes on each device, all seeds together.
        limit: bytes available on each device.
        timing: measured times, all seeds together; None if the run does not fit.
        largest_batch: the largest batch size that fits, 0 if none fits; at most `batch_cap`, the training split.
        lanes: the most lanes that fit, 0 if none fits; at most `memory_plan.MAX_LANES`.
        begin: the step at which the run begins: 0, or that of the run which it continues.
        timed: how the number of steps follows from a duration that is a time; None for other durations.
    """

    device: str
    devices: int
    seeds: int
    batch: int
    steps: int
    steps_per_epoch: float
    evaluations: int
    curves: Curves
    parameters: dict[str, int]
    frozen: int
    flops: float
    guards_steps: bool
    memory: dict[str, int] | None
    limit: int
    timing: Timing | None
    largest_batch: int | None
    batch_cap: int
    lanes: int | None
    begin: int
    timed: str | None

    @property
    def total_memory(self) -> int | None:
        """Total bytes on each device."""
        return None if self.memory is None else sum(self.memory.values())

    @property
    def epochs(self) -> float:
        """Number of epochs, passes over the training split."""
        return self.steps / self.steps_per_epoch

    @property
    def epochs_left(self) -> float:
        """Number of epochs that the run trains itself."""
        return (self.steps - self.begin) / self.steps_per_epoch

    @property
    def epoch_seconds(self) -> tuple[float, float] | None:
        """Seconds of an epoch, as (steps, evaluations)."""
        if self.timing is None:
            return None
        evaluations = self.evaluations / self.epochs
        return self.timing.step * self.steps_per_epoch, (self.timing.evaluation or 0.0) * evaluations


def plan(config: Config, *, limit: int | None = None) -> Plan:
    """Plans a resolved config without training it.

    Memory comes from the compiler's analysis and is not allocated; a few steps are run and timed if the run fits.
    `limit` is the bytes available on each device (None: the memory that is free). Raises the errors that `train` would
    raise before its first step.
    """
    with explain_jax_errors(config), closing(build(config)) as experiment:
        begin = _begin(experiment)
        limit = memory_limit(experiment.mesh) if limit is None else limit
        with count_compilations() as compiled:
            memory = memory_by_kind(experiment)
            # Seeds that do not fit as one vmapped program are stepped fewer at a time, down to the smallest width.
            least = bytes_of_batch(experiment, config["data"]["batch_size"]) if config["train"]["seeds"] > 1 else None
        fits = memory is None or (least or sum(memory.values())) <= limit
        experiment, timed = _with_duration(experiment, fits)
        return Plan(
            device=experiment.mesh.devices.flat[0].device_kind,
            devices=experiment.mesh.size,
            seeds=config["train"]["seeds"],
            batch=config["data"]["batch_size"],
            steps=experiment.lengths.total,
            steps_per_epoch=_per_epoch(experiment),
            evaluations=-(-experiment.lengths.total // experiment.lengths.eval),
            curves=scheduled_values(experiment),
            parameters=_parameters(experiment),
            frozen=sum(leaf.size for leaf in jax.tree.leaves(experiment.state_shapes().frozen)),
            flops=step_flops(experiment.rules, experiment.state_shapes(), experiment.batch_shapes),
            guards_steps=experiment.rules.guard_steps,
            memory=memory,
            limit=limit,
            timing=_timing(experiment, compiled.seconds) if fits else None,
            largest_batch=largest_batch(experiment, limit),
            batch_cap=batch_sizes(experiment)[-1],
            lanes=most_lanes(experiment, limit),
            begin=begin,
            timed=timed,
        )


def _with_duration(experiment: Experiment, fits: bool) -> tuple[Experiment, str | None]:
    """Returns the experiment with the number of steps of a duration that is a time, and a line on it."""
    text = experiment.config["train"]["duration"]
    if seconds_of(text) is None:
        return experiment, None
    if not fits:
        return experiment, f"{text}: not timed, so that the schedules are those of one epoch"
    lines: list[str] = []
    timed = with_timed_duration(
        experiment, train_step, began=time.perf_counter(), stop=Interruption(), say=lines.append
    )
    return timed, f"{lines[0]}; a run times itself again"


def _begin(experiment: Experiment) -> int:
    """Returns the step at which the run begins; raises the errors of a run that cannot be continued."""
    if experiment.config["checkpoint"]["continue_from"] is None:
        return 0
    return read_continued(experiment, make_runner(experiment, train_step).shapes()).step


def scheduled_values(experiment: Experiment) -> Curves:
    """Evaluates the run's own schedules over all its steps, vmapped."""
    total = experiment.lengths.total
    steps = np.unique(np.linspace(0, total - 1, min(total, CURVE_POINTS)).round().astype(np.int32))
    hparams = {name: jnp.asarray(value) for name, value in experiment.hparams.items()}
    plateaus = experiment.schedule.plateaus

    def scheduled(step: jax.Array) -> dict[str, jax.Array]:
        values = experiment.rules.schedule(step, hparams)
        return {name: values[name] for name in experiment.schedule.targets}

    values: dict[str, np.ndarray] = jax.device_get(jax.jit(jax.vmap(scheduled))(steps))
    labels = {
        name: f"{name} (without plateau reductions)" if f"schedule.{name}" in plateaus else name for name in values
    }
    return Curves(steps, {labels[name]: value for name, value in values.items()})


def _per_epoch(experiment: Experiment) -> float:
    return steps_per_epoch(experiment.dataset.epoch_examples, experiment.config["data"]["batch_size"])


def _parameters(experiment: Experiment) -> dict[str, int]:
    """Counts the parameters of each top-level module; a tree that is no dict counts as one module, "params"."""
    state = experiment.state_shapes()
    params = join_params(state.params, state.frozen)
    named = params if isinstance(params, dict) else {"params": params}
    return {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in named.items()}


def _timing(experiment: Experiment, compilation: float) -> Timing:
    """Times TIMED_STEPS steps, as the difference of a call with one more and a call of one: call overhead cancels."""
    runner = make_runner(experiment, train_step)
    has_validation = "validation" in experiment.dataset.sizes

    def call(steps: int) -> None:
        nonlocal state
        state, output = runner.call(state, experiment.batches(0, steps), steps)
        jax.block_until_ready(output)

    def evaluate() -> None:
        runner.evaluate(state, "validation")

    with count_compilations() as compiled:
        state = runner.init()
        call(1)
        if has_validation:
            evaluate()
    longer, shorter = (_least_seconds(functools.partial(call, steps)) for steps in (TIMED_STEPS + 1, 1))
    step = (longer - shorter) / TIMED_STEPS if longer > shorter else longer / (TIMED_STEPS + 1)
    return Timing(compilation + compiled.seconds, step, _least_seconds(evaluate) if has_validation else None)


def _least_seconds(call: Callable[[], object]) -> float:
    """Returns the shortest of up to three calls, within about a second; other processes can only add to the time."""
    seconds: list[float] = []
    while len(seconds) < 3 and sum(seconds) < 1.0:
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
