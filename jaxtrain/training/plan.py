"""A plan of a run: its schedules, size, work, memory and time, before anything is trained."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.config.defaults import Config
from jaxtrain.core.steps import train_step
from jaxtrain.data.batches import steps_per_epoch
from jaxtrain.parallel.compilation import counted
from jaxtrain.parallel.memory import memory_limit
from jaxtrain.parallel.mesh import device_mesh, whole_shapes
from jaxtrain.training.checks import explain_traced_floats
from jaxtrain.training.experiment import Experiment, build
from jaxtrain.training.memory_plan import batch_sizes, bytes_of_batch, largest_batch, memory_by_kind, most_lanes
from jaxtrain.training.runners import make_runner

CURVE_POINTS = 10_000  # of a curve: a longer run is drawn at so many of its steps


TIMED_STEPS = 3  # steps


@dataclass(frozen=True)
class Curves:
    """What the scheduled floats are: `values` maps a name to (n,) numbers, at the `steps` (n,)."""

    steps: np.ndarray
    values: dict[str, np.ndarray]


@dataclass(frozen=True)
class Timing:
    """Seconds of all compilation, of a step, and of an evaluation of the validation split (None: there is none)."""

    compilation: float
    step: float
    evaluation: float | None


@dataclass(frozen=True)
class Plan:
    """What a config comes to, in numbers.

    `parameters` by top-level module and `flops` of a step are those of one seed; `memory`, kind -> bytes on a device,
    and `timing` those of all seeds together. None stands where the compiler says nothing, or, for `timing`, where the
    run does not fit. `largest_batch` and `lanes` are 0 where not even the least fits; neither is searched further than
    to `batch_cap`, the training split, and `memory_plan.MAX_LANES`.
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
    flops: float | None
    memory: dict[str, int] | None
    limit: int
    timing: Timing | None
    largest_batch: int | None
    batch_cap: int
    lanes: int | None

    @property
    def total_memory(self) -> int | None:
        """Bytes on each device, all kinds together."""
        return None if self.memory is None else sum(self.memory.values())

    @property
    def epochs(self) -> float:
        """Passes over the training split."""
        return self.steps / self.steps_per_epoch

    @property
    def epoch_seconds(self) -> tuple[float, float] | None:
        """Seconds of an epoch: in steps, and in evaluations."""
        if self.timing is None:
            return None
        evaluations = self.evaluations / self.epochs
        return self.timing.step * self.steps_per_epoch, (self.timing.evaluation or 0.0) * evaluations


def plan(config: Config, *, limit: int | None = None) -> Plan:
    """Plans a resolved config; nothing is trained.

    The compiler is asked what programs would need, without placing anything; only a few steps are timed, where they
    fit. `limit`: the bytes that may be planned for on each device (None: what is free there). Raises what `train`
    would raise before its first step.
    """
    with explain_traced_floats(config):
        experiment = build(config)
        experiment.rows(0, 1, 1)  # refuses a batch larger than the data before anything is compiled
        limit = memory_limit(experiment.mesh) if limit is None else limit
        with counted() as compiled:
            memory = memory_by_kind(experiment)
            # Lanes that are too wide to fit are stepped fewer at a time.
            least = bytes_of_batch(experiment, config["data"]["batch_size"]) if config["train"]["seeds"] > 1 else None
        fits = memory is None or (least or sum(memory.values())) <= limit
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
            flops=_flops(experiment),
            memory=memory,
            limit=limit,
            timing=_timing(experiment, compiled.seconds) if fits else None,
            largest_batch=largest_batch(experiment, limit),
            batch_cap=batch_sizes(experiment)[-1],
            lanes=most_lanes(experiment, limit),
        )


def scheduled_values(experiment: Experiment) -> Curves:
    """Asks the schedule itself for every scheduled float over the whole run, all steps at once."""
    total = experiment.lengths.total
    steps = np.unique(np.linspace(0, total - 1, min(total, CURVE_POINTS)).round().astype(np.int32))
    hparams = {name: jnp.asarray(value) for name, value in experiment.hparams.items()}
    moved = experiment.schedule.plateaus

    def scheduled(step: jax.Array) -> dict[str, jax.Array]:
        values = experiment.rules.schedule(step, hparams)
        return {name: values[name] for name in experiment.schedule.targets}

    values: dict[str, np.ndarray] = jax.device_get(jax.jit(jax.vmap(scheduled))(steps))
    shown = {name: f"{name}, then moved by evaluations" if f"schedule.{name}" in moved else name for name in values}
    return Curves(steps, {shown[name]: value for name, value in values.items()})


def _per_epoch(experiment: Experiment) -> float:
    return steps_per_epoch(experiment.dataset.sizes["train"], experiment.config["data"]["batch_size"])


def _parameters(experiment: Experiment) -> dict[str, int]:
    """Counts the parameters below each top-level name; a tree without names counts as one."""
    params = experiment.state_shapes().params
    named = params if isinstance(params, dict) else {"params": params}
    return {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in named.items()}


def _flops(experiment: Experiment) -> float | None:
    """Asks the compiler for the work of one step of one seed, compiled for one device, without its norms."""
    state = whole_shapes(experiment.state_shapes(), device_mesh(1))
    size = experiment.config["data"]["batch_size"]
    batch = jax.eval_shape(lambda batches: batches.take(0), experiment.batch_shapes(size))
    lowered = jax.jit(functools.partial(train_step, rules=experiment.rules, measure_norms=False)).lower(state, batch)
    # Where the compiler puts a library's call in a product's place, its work is seen before compilation alone.
    analyses = (lowered.compile().cost_analysis(), lowered.cost_analysis())
    found = max(float((analysis or {}).get("flops", 0.0)) for analysis in analyses)
    return found if found > 0 else None  # one that does not know says 0, or less


def _timing(experiment: Experiment, compilation: float) -> Timing:
    """Times three steps, as the difference of calls of four and of one: what a call itself costs counts for nothing."""
    runner, evaluated = make_runner(experiment, train_step), "validation" in experiment.dataset.sizes

    def call(steps: int) -> None:
        nonlocal state
        state, output = runner.call(state, experiment.batches(0, steps), steps)
        jax.block_until_ready(output)

    def evaluate() -> None:
        runner.evaluate(state, "validation")

    with counted() as compiled:
        state = runner.init()
        call(1)
        if evaluated:
            evaluate()
    with_overhead, overhead = (_least_seconds(functools.partial(call, steps)) for steps in (TIMED_STEPS + 1, 1))
    step = (with_overhead - overhead) / TIMED_STEPS if with_overhead > overhead else with_overhead / (TIMED_STEPS + 1)
    return Timing(compilation + compiled.seconds, step, _least_seconds(evaluate) if evaluated else None)


def _least_seconds(call: Callable[[], object]) -> float:
    """Calls up to three times, but not again after a second: other processes only ever add to the time."""
    seconds: list[float] = []
    while len(seconds) < 3 and sum(seconds) < 1.0:
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
