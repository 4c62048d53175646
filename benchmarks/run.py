"""Compares a whole run, with evaluation, logging and checkpoints, with its bare compiled calls and evaluations.

It also compares what the loop of a run takes with a hand-written program that places the same raw bytes, and a run
that is logged every 2 steps with one that is logged once. Each is timed by its own clock, in turns; on a machine with
other work compare the lowest and highest ratio before you trust the middle one. Last, the command with everything
shown of a run (`track`) is compared with the command without, in CPU seconds from the start of the process to its exit:
runs of many steps; runs of few steps, whose difference is what a run takes once; and the calls of both in one process.

python benchmarks/run.py [PART ...] [--seconds=60] [--output=FILE.json] [--quick]
"""

import argparse
import contextlib
import dataclasses
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import by_hand
import images
import jax
import jax.numpy as jnp
import timing

from jaxtrain import build, train_and_evaluate
from jaxtrain.parallel.mesh import compile_train_call
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.feeds import CAPACITY

BAR = 0.95
SHORT_BAR = 1.25  # of 1,404 steps of the MLP by hand
LONG_BAR = 1.05  # of 20,000
LOGGED_BAR = 1.10  # logged every 2 steps, of logged once
TRACKED_BAR = 1.02  # CPU seconds of a run of at least a minute with all that is shown of it, of one without
TRACKED = ("fashion_mnist_mlp", "fashion_mnist_cnn")
FEW_STEPS = 60  # of a run that shows as much as a long one: as many rows, pictures and histograms
STEPS_A_CALL = 100
CALLS = 20
PROBED_SECONDS = 2.0  # steps are timed for as long as this, since the data are placed first
SHOWN = {"track.layers": True}
NOT_SHOWN = {
    "track.tensorboard": False,
    "track.pictures": None,
    "track.histograms": None,
    "track.performance": False,
}
SIDES = {"ours": SHOWN, "theirs": NOT_SHOWN}


def main() -> None:
    """Times the chosen parts, by default all."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("parts", nargs="*", metavar="PART", help="of calls, hand, logged, tracking (all)")
    parser.add_argument("--seconds", type=float, default=60.0, help="least duration of a run (60)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="runs of one epoch, as a smoke test")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    by_hand = {20: SHORT_BAR} if options.quick else {1_404: SHORT_BAR, 20_000: LONG_BAR}
    parts: dict[str, timing.Part] = {
        "calls": lambda: with_bare_calls(options.seconds, rounds),
        "hand": lambda: ([with_hand_written(steps, rounds, bar) for steps, bar in by_hand.items()], []),
        "logged": lambda: ([logged_often(4 if options.quick else 100, rounds)], []),
        "tracking": lambda: with_tracking(options.seconds, rounds),
    }
    ratios, notes = timing.run_parts(parts, options.parts)
    timing.report("A whole run (ours) and bare calls with the same evaluations (theirs)", ratios, notes, options.output)


def with_bare_calls(seconds: float, rounds: int) -> tuple[list[timing.Ratio], list[str]]:
    """Compares whole runs of the MLP with bare calls."""
    short, notes = images.experiment("fashion_mnist_mlp", {"eval.every": "1 epochs", "train.duration": "1 epochs"})
    # Compiles every program; the length of a run is an input of the program, so the long run reuses them.
    whole_run(short)
    second = bare_calls(short)
    epochs = 1 if images.QUICK else math.ceil(seconds / second)
    longer = build({**short.config, "train": {**short.config["train"], "duration": f"{epochs} epochs"}})
    steps = longer.lengths.total
    programs = {"ours": lambda: whole_run(longer), "theirs": lambda: bare_calls(longer)}
    took = timing.seconds_in_turns(programs, rounds, warm=True)
    ours, theirs = ([steps / seconds for seconds in took[side]] for side in ("ours", "theirs"))
    ratio = timing.ratio(f"whole run, {epochs} epochs", "steps/s", ours, theirs, BAR, at_least=True)
    fastest = (
        f"{steps:,} steps a run; {min(took['ours']):.1f} s for the fastest, including reading the data and the test"
    )
    return [ratio], [*notes, fastest]


def with_hand_written(steps: int, rounds: int, bar: float) -> timing.Ratio:
    """Compares the loop of a run of the MLP with a scan by hand; both place the raw bytes and take the same steps."""
    experiment = loop_experiment("fashion_mnist_mlp", steps, f"{steps} steps")
    host = experiment.dataset.split("train")
    rows = experiment.batches(0, min(steps, CAPACITY)).rows
    calls = -(-steps // CAPACITY)
    program = BytesProgram(steps)
    data = jax.device_put(host)
    by_scan = program.compile(data["inputs"], data["targets"], rows)

    def theirs() -> float:
        began = time.perf_counter()
        jax.block_until_ready(jax.device_put(host))
        for _ in range(calls):
            by_scan()
        return (time.perf_counter() - began) * steps / (calls * len(rows))

    took = own_seconds({"ours": lambda: loop_seconds(experiment), "theirs": theirs}, rounds)
    return timing.ratio(f"MLP, {steps:,} steps, by hand", "s", took["ours"], took["theirs"], bar)


def logged_often(steps: int, rounds: int) -> timing.Ratio:
    """Compares a run of the CNN that is logged every 2 steps with one that is logged once."""
    often, once = (loop_experiment("fashion_mnist_cnn", steps, log) for log in ("2 steps", f"{steps} steps"))
    took = own_seconds({"ours": lambda: loop_seconds(often), "theirs": lambda: loop_seconds(once)}, rounds)
    return timing.ratio(f"CNN, {steps} steps, logged once", "s", took["ours"], took["theirs"], LOGGED_BAR)


def tracked(config: str, steps: int, rounds: int, bar: float | None = TRACKED_BAR) -> list[timing.Ratio]:
    """Compares the command with everything that a run shows at default intervals with the command without.

    Each side begins every other round. Compares CPU seconds and seconds.
    """
    took: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    for number in range(rounds):
        for side in sorted(SIDES, reverse=number % 2 == 1):
            took[side].append(command_seconds(config, steps, SIDES[side]))
    name = f"{config}, {steps:,} steps, not tracked"
    (ours_cpu, ours_wall), (theirs_cpu, theirs_wall) = (zip(*took[side], strict=True) for side in ("ours", "theirs"))
    return [
        timing.ratio(name, "CPU s", ours_cpu, theirs_cpu, bar),
        timing.ratio(name, "s", ours_wall, theirs_wall),
    ]


def tracked_calls(config: str, calls: int, steps: int) -> timing.Ratio:
    """Compares CPU seconds of the calls that a run makes, with norms by layer and samples of gradients and without."""
    programs = {side: bare_call(config, steps, overrides) for side, overrides in SIDES.items()}
    took: dict[str, list[float]] = {side: [] for side in programs}
    for counts in [False, *[True] * calls]:
        for side, program in programs.items():
            began = time.process_time()
            program()
            if counts:
                took[side].append(time.process_time() - began)
    return timing.ratio(f"{config}, a call of {steps} steps, not tracked", "CPU s", took["ours"], took["theirs"])


def bare_call(config: str, steps: int, overrides: Mapping[str, object]) -> Callable[[], None]:
    """Compiles the call of a run, and returns what takes it on."""
    experiment = images.experiment(config, {"train.duration": f"{steps} steps", **overrides})[0]
    call = compile_train_call(experiment.rules, experiment.mesh, experiment.config["parallel"]["backend"])
    batches = experiment.batches(0, steps)
    state = experiment.init()

    def advance() -> None:
        nonlocal state
        state, output = call(state, batches, steps)
        jax.block_until_ready((state, output))

    return advance


def with_tracking(seconds: float, rounds: int) -> tuple[list[timing.Ratio], list[str]]:
    """Compares runs of the MLP and the CNN with and without what is shown of them."""
    names = TRACKED[: 1 if images.QUICK else None]
    calls, steps = (1, 2) if images.QUICK else (CALLS, STEPS_A_CALL)
    found: list[timing.Ratio] = []
    for name in names:
        found.append(tracked_calls(name, calls, steps))
        found += [] if images.QUICK else tracked(name, FEW_STEPS, 2 * rounds, bar=None)
        found += tracked(name, steps_in(name, seconds), rounds)
    return found, []


def steps_in(config: str, seconds: float) -> int:
    """Returns the number of steps that take so many seconds."""
    tried = 4 if images.QUICK else 100
    while (took := loop_seconds(loop_experiment(config, tried, f"{tried} steps"))) < PROBED_SECONDS:
        if images.QUICK:
            return 20
        tried *= 4
    return math.ceil(seconds * tried / took)


def command_seconds(config: str, steps: int, overrides: Mapping[str, object]) -> tuple[float, float]:
    """Returns the CPU seconds and the seconds of the command, from the start of its process to its exit."""
    more = {"train.duration": f"{steps} steps", **overrides}
    with tempfile.TemporaryDirectory() as folder:
        chosen = [f"--config.{name}={value}" for name, value in more.items()]
        file = timing.ROOT / "configs" / f"{config}.py"
        words = [
            sys.executable,
            "-m",
            "jaxtrain.main",
            f"--config={file}",
            f"--workdir={folder}/run",
            "--quiet",
            *chosen,
        ]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        subprocess.run(words, cwd=timing.ROOT, check=True)
        wall = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


@dataclasses.dataclass(frozen=True)
class BytesProgram(by_hand.Program):
    """The hand-written MLP on raw bytes, which it scales in the step."""

    def step(self, state: dict[str, Any], images: jax.Array, labels: jax.Array) -> tuple[dict[str, Any], Any]:
        """Takes one step."""
        return super().step(state, images.astype(jnp.float32) / 127.5 - 1.0, labels)


def loop_experiment(config: str, steps: int, log: str) -> Experiment:
    """Builds a run that is evaluated and saved only at its end."""
    never = {"eval.every": f"{steps} steps", "checkpoint.every": f"{steps} steps"}
    return images.experiment(config, {"train.duration": f"{steps} steps", "log.every": log, **never})[0]


def loop_seconds(experiment: Experiment) -> float:
    """Returns the seconds of the steps of a run by its own clock, with the placing of data and without compilation."""
    with tempfile.TemporaryDirectory() as folder:
        result = train_and_evaluate(experiment.config, folder, quiet=True)
    return 1e-3 * result.throughput["milliseconds_per_step"] * result.step


def own_seconds(programs: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Runs programs that time themselves in turns; the first round warms them up and is not counted."""
    took: dict[str, list[float]] = {name: [] for name in programs}
    for counts in [False, *[True] * rounds]:
        for name, program in programs.items():
            seconds = program()
            if counts:
                took[name].append(seconds)
    return took


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
