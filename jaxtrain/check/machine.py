"""Questions about the machine: compilations, waiting for data, time and memory of the run, half precision."""

import time

import numpy as np

from jaxtrain.check.answers import Answer, fault, not_asked, ok, warning
from jaxtrain.check.context import Context, as_array, jitted
from jaxtrain.check.rates import short_runs
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.parallel.memory import memory_limit
from jaxtrain.tasks import make_task
from jaxtrain.training.memory_plan import memory_by_kind

WAITING = 0.5
"""The share of a step that may be spent on gathering its batch, which happens beside the step before."""

PATIENCE = 10.0
"""Seconds that must be left to compile the program of the run for its memory."""

FAR = 0.1
"""The distance of outputs in bfloat16, relative to their spread, from which half precision is called unfit.

Those of an MLP on the digits are 0.004 apart.
"""


def retrace(context: Context) -> Answer:
    """Are steps compiled once?"""
    runs = short_runs(context)
    if 11 * runs.step_seconds > 0.3 * context.left:
        return not_asked("ten steps take too long")
    with count_compilations() as compiled:
        for _ in range(10):
            runs.run(1)
    text = f"{compiled.count} compilations in ten calls after the first"
    if compiled.count:
        return warning(
            text,
            "the program is compiled again and again: something in it, such as a new function or a Python number, "
            "differs each time",
            "Make the functions that build the task and the model return equal objects for equal settings",
        )
    return ok(text)


def waiting(context: Context) -> Answer:
    """Are batches gathered faster than steps take?"""
    runs = short_runs(context)
    experiment = context.experiment
    count = int(min(8, experiment.capacity))
    experiment.batches(0, count)
    began = time.perf_counter()
    experiment.batches(count, count)
    each = (time.perf_counter() - began) / count
    text = f"{1e3 * each:.3g} ms to gather a batch, {1e3 * runs.step_seconds:.3g} ms for its step"
    if each > 1e-3 and each > (1 + WAITING) * runs.step_seconds:
        return warning(
            text,
            "steps wait for their data",
            "Write the data to arrays once (the command prepare), or raise data.workers or data.cache",
        )
    return ok(text)


def duration(context: Context) -> Answer:
    """Does the whole run fit into memory, and how long does it take?"""
    runs = short_runs(context)
    total = context.experiment.lengths.total
    text = f"{total:,} steps of {1e3 * runs.step_seconds:.3g} ms: {_time(total * runs.step_seconds)} of steps"
    if context.left < PATIENCE:
        return ok(f"{text}; no time to ask for its memory, which the command plan tells")
    kinds = memory_by_kind(context.experiment)
    if kinds is None:
        return ok(f"{text}; this backend does not tell its memory")
    needed = sum(kinds.values())
    limit = memory_limit(context.experiment.mesh)
    text += f"; {needed / 2**20:,.1f} of {limit / 2**20:,.0f} MiB"
    if needed > limit:
        return fault(text, "the run does not fit into memory", "Lower data.batch_size, or raise train.accumulate")
    return ok(text)


def bfloat16(context: Context) -> Answer:
    """Are outputs in bfloat16 near those in float32?"""
    if context.config["train"]["precision"] != "bfloat16":
        return not_asked("the run computes in float32")
    full = {**context.config, "train": {**context.config["train"], "precision": "float32"}}
    predict = jitted(make_task(full, context.info).predict)
    inputs = context.batch["inputs"]
    exact = as_array(predict(context.params, context.state.model_state, inputs, context.values))
    spread = float(exact.std()) or 1.0
    apart = float(np.abs(exact - context.outputs).mean()) / spread
    text = f"outputs are {apart:.2g} deviations from those in float32"
    if not np.isfinite(apart) or apart > FAR:
        return warning(
            text,
            "a part of the model needs more than eight bits: a sum over many values, a norm, large numbers",
            "Compute that part in float32, or take train.precision=float32",
        )
    return ok(text)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
