"""Compares a whole run, with evaluation, logging and checkpoints, with its bare compiled calls and evaluations.

python benchmarks/run.py [--seconds=60] [--output=FILE.json] [--quick]
"""

import argparse
import contextlib
import math
import os
import tempfile
import time
from pathlib import Path

import images
import jax
import timing

from jaxtrain import build, train_and_evaluate
from jaxtrain.parallel.mesh import compile_train_call
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.feeds import CAPACITY

BAR = 0.95


def main() -> None:
    """Times whole runs and bare calls in turns."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("--seconds", type=float, default=60.0, help="least duration of a run (60)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="runs of one epoch, as a smoke test")
    options = parser.parse_args()
    short, notes = images.experiment("fashion_mnist_mlp", {"eval.every": "1 epochs", "train.duration": "1 epochs"})
    whole_run(
        short
    )  # compiles every program; the length of a run is an input of the program, so the long run reuses them
    second = bare_calls(short)
    epochs = 1 if options.quick else math.ceil(options.seconds / second)
    longer = build({**short.config, "train": {**short.config["train"], "duration": f"{epochs} epochs"}})
    steps = longer.lengths.total
    programs = {"ours": lambda: whole_run(longer), "theirs": lambda: bare_calls(longer)}
    took = timing.seconds_in_turns(programs, 1 if options.quick else options.rounds, warm=True)
    ours, theirs = ([steps / seconds for seconds in took[side]] for side in ("ours", "theirs"))
    ratio = timing.ratio(f"whole run, {epochs} epochs", "steps/s", ours, theirs, BAR, at_least=True)
    notes.append(
        f"{steps:,} steps a run; {min(took['ours']):.1f} s for the fastest, including reading the data and the test"
    )
    timing.report(
        "A whole run (ours) and bare calls with the same evaluations (theirs)", [ratio], notes, options.output
    )


def whole_run(experiment: Experiment) -> float:
    """Trains in a temporary directory, from reading the data to writing `result.json`; returns the seconds."""
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        began = time.perf_counter()
        with contextlib.redirect_stderr(nowhere):  # the output is formatted, then dropped
            train_and_evaluate(experiment.config, folder)
        return time.perf_counter() - began


def bare_calls(experiment: Experiment) -> float:
    """Takes the same steps in calls of maximal length, with the same evaluations; returns the seconds."""
    began = time.perf_counter()
    call = compile_train_call(experiment.rules, experiment.mesh, experiment.config["parallel"]["backend"])
    state = experiment.init()
    lengths = experiment.lengths
    at = 0
    output = None
    while at < lengths.total:
        end = min(lengths.total, at + CAPACITY, (at // lengths.eval + 1) * lengths.eval)
        state, output = call(state, experiment.batches(at, end - at), end - at)
        at = end
        if lengths.due(lengths.eval, at):
            jax.device_get(experiment.evaluate(state, "validation"))
    jax.device_get((output, experiment.evaluate(state, "test")))
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
