"""Measures speed, compile time, memory and FLOP/s of a config on the current device.

python benchmarks/throughput.py --config=configs/x.py [--config.a.b=value ...] [--seconds=5] [--output=FILE.json]
"""

import argparse
import functools
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import timing

from jaxtrain import build, load_config
from jaxtrain.commands.options import split_overrides
from jaxtrain.core.steps import train_call
from jaxtrain.errors import JaxtrainError
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.parallel.mesh import compile_train_call
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.feeds import CAPACITY
from jaxtrain.training.guard_rule import step_flops
from jaxtrain.training.loop import CALL_SECONDS


def main() -> int:
    """Measures one config; returns 0, or the exit code of its error."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("--config", type=Path, required=True, help="a .py file with get_config(), or a config.json")
    parser.add_argument("--seconds", type=float, default=5.0, help="least time to measure (5)")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="one call, as a smoke test")
    try:
        overrides, rest = split_overrides(sys.argv[1:])
        options = parser.parse_args(rest)
        experiment = build(load_config(options.config, overrides))
        figures = measure(experiment, 0.0 if options.quick else options.seconds)
    except JaxtrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    where = timing.environment()
    lines = timing.table([[name, f"{value:,.3f}" if value is not None else "-"] for name, value in figures.items()])
    given = {"config": str(options.config), "overrides": {name: str(value) for name, value in overrides.items()}}
    print("\n".join([f"{options.config} {overrides or ''}".strip(), *timing.environment_lines(where), "", *lines]))
    timing.save({**given, "figures": figures, "environment": where}, options.output)
    return 0


def measure(experiment: Experiment, seconds: float) -> dict[str, float | None]:
    """Returns figure -> value; None where the device or backend does not report it."""
    compile_seconds, per_step = _time_calls(experiment, seconds)
    flops = step_flops(experiment.rules, experiment.state_shapes(), experiment.batch_shapes)
    batch_size = experiment.config["data"]["batch_size"]
    return {
        "examples/s": batch_size / per_step,
        "ms/step": 1e3 * per_step,
        "compile seconds": compile_seconds,
        "MiB of each device, as compiled": _memory(experiment),
        "GFLOP/step": flops / 1e9,
        "GFLOP/s": flops / per_step / 1e9,
    }


def _time_calls(experiment: Experiment, seconds: float) -> tuple[float, float]:
    """Returns the seconds of compilation, and the seconds per step without it (median over calls)."""
    call = compile_train_call(experiment.rules, experiment.mesh, experiment.config["parallel"]["backend"])
    state = experiment.init()
    at = 0
    steps = 1
    took: list[float] = []

    def time_call(state: Any) -> tuple[Any, float]:
        began = time.perf_counter()
        state, output = call(state, experiment.batches(at, steps), steps)
        jax.device_get(output)
        return state, time.perf_counter() - began

    with count_compilations() as compiled:
        state, _ = time_call(state)
    state, one = time_call(state)
    at = 2
    steps = max(1, min(CAPACITY, int(CALL_SECONDS / one)))
    while sum(took) < seconds or not took:
        state, spent = time_call(state)
        took.append(spent)
        at += steps
    return compiled.seconds, float(np.median(took)) / steps


def _memory(experiment: Experiment) -> float | None:
    """Returns the planned MiB per device of the compiled call: arguments + temporaries + outputs - aliases."""
    if experiment.config["parallel"]["backend"] != "mesh":
        return None
    program = jax.jit(functools.partial(train_call, rules=experiment.rules), donate_argnums=0)
    compiled = program.lower(experiment.init(), experiment.batches(0, 1), np.int32(1)).compile()
    sizes = compiled.memory_analysis()
    if sizes is None:
        return None
    kept = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return (kept + sizes.temp_size_in_bytes) / 2**20


if __name__ == "__main__":
    sys.exit(main())
