"""Trains with every operation of a step watched: the first one that goes wrong is named, with its line."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtrain.config.debug_modes import without_debug_mode
from jaxtrain.config.defaults import Config
from jaxtrain.core.gradients import Axes
from jaxtrain.core.metric import Metrics
from jaxtrain.core.state import Batch, Rules, TrainState
from jaxtrain.core.steps import StepFunction, train_step
from jaxtrain.data import Source
from jaxtrain.files import remove_tree
from jaxtrain.storage.result import Result
from jaxtrain.training.debugging.watch import Site, watch
from jaxtrain.training.experiment import build
from jaxtrain.training.runners import make_runner
from jaxtrain.training.train import train_and_evaluate

TIMED = 5
"""Steps that are timed with and without."""


@dataclass
class Findings:
    """The watched operations by number from 1, and the first that went wrong at each step."""

    sites: list[Site] = field(default_factory=list)
    at: dict[int, int] = field(default_factory=dict)

    def note(self, code: np.ndarray, step: np.ndarray) -> None:
        """Notes the number of the operation that went wrong at a step; 0 if none did."""
        if code:
            self.at.setdefault(int(step), int(code))

    @property
    def first(self) -> tuple[int, Site] | None:
        """The first step at which an operation went wrong, and that operation; None if none did."""
        jax.effects_barrier()
        return min(((step, self.sites[code - 1]) for step, code in self.at.items()), default=None, key=lambda f: f[0])


def train_strictly(
    config: Config, workdir: Path, *, data: Source | None, say: Callable[[str], None], quiet: bool
) -> Result:
    """Trains in `debug/strict` of the run's directory, up to the first operation of a training step that goes wrong.

    Says what it costs. The result is "diverged" with the operation, its layers and its line of code as the reason. An
    operation goes wrong that gives what is not a number, takes an index out of bounds or divides by zero, also where
    the program would pass over it.
    """
    place = workdir / "debug" / "strict"
    ordinary = without_debug_mode(config, {"train.early_stopping": config["train"]["early_stopping"]})
    findings = Findings()
    step = watched_step(findings)
    say(cost_line(*(_seconds_of_step(ordinary, data, taken) for taken in (train_step, step))))
    findings.at.clear()
    remove_tree(place)
    result = train_and_evaluate(ordinary, place, data=data, step=step, quiet=quiet)
    if findings.first is None:
        say(f"strict: no operation went wrong in {result.step:,} steps")
        return result
    number, site = findings.first
    return replace(result, reason=f"strict: step {number}: {site}")


def watched_step(findings: Findings) -> StepFunction:
    """Returns the training step that notes which of its operations goes wrong first, and diverges there."""

    def step(
        state: TrainState,
        batch: Batch,
        *,
        rules: Rules,
        axis_name: Axes = (),
        measure_norms: bool | jax.Array = True,
    ) -> tuple[TrainState, Metrics]:
        plain = functools.partial(train_step, rules=rules, axis_name=axis_name)

        def take(state: TrainState, batch: Batch, measure_norms: Any) -> Any:
            return plain(state, batch, measure_norms=measure_norms)

        (stepped, metrics), code = watch(take, findings.sites)(state, batch, measure_norms)
        jax.debug.callback(findings.note, code, state.step)
        loss = metrics["loss"]
        ended = loss.replace(sum=jax.numpy.where(code == 0, loss.sum, jax.numpy.nan))
        return stepped, metrics | {"loss": ended}

    return step


def _seconds_of_step(config: Config, data: Source | None, step: StepFunction) -> float:
    """Returns the CPU seconds of a step, or those of the clock on an accelerator, without compilation."""
    experiment = build(config, data=data, folds=True)
    runner = make_runner(experiment, step)
    count = min(TIMED, experiment.capacity)
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    began = 0.0
    for _ in range(2):  # the first call compiles
        state = runner.init()
        batches = experiment.batches(0, count)
        jax.block_until_ready(state)
        began = clock()
        jax.block_until_ready(runner.call(state, batches, count))
    seconds = clock() - began
    experiment.close()
    return seconds / count


def cost_line(without: float, watched: float) -> str:
    """Says what the watching costs."""
    kind = "CPU ms" if jax.default_backend() == "cpu" else "ms"
    times = watched / max(without, 1e-9)
    return f"strict: {1e3 * watched:.3g} {kind} a step, {1e3 * without:.3g} without: {times:.2g} times as much"
