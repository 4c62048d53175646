"""Measures how near runs whose duration is a time end to it, from the start of the command to its end.

python benchmarks/duration.py [--runs=20] [--seconds=60] [--output=FILE.json] [--quick]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import images
import timing
from timing import ROOT

EARLY = -0.05
LATE = 0.02

CONFIGS = ("fashion_mnist_mlp", "fashion_mnist_cnn", "digits")


def main() -> None:
    """Runs the configs in turns; prints the deviation of each run from its duration, and how many are in the bounds."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of a run (60)")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="one run of 40 seconds, as a smoke test")
    options = parser.parse_args()
    runs, seconds = (1, 40.0) if options.quick else (options.runs, options.seconds)
    notes = images.use_data()
    where = timing.environment()
    print(*timing.environment_lines(where), *notes, sep="\n")
    # A quick run takes the data of scikit-learn, which are always there.
    configs = CONFIGS[-1:] if options.quick else CONFIGS
    made = [timed_run(configs[i % len(configs)], seconds) for i in range(runs)]
    held = sum(EARLY <= run.deviation <= LATE for run in made)
    print(f"{held} of {runs} within {EARLY:.0%} and +{LATE:.0%} of {seconds:g} s")
    results = {"notes": notes, "held": held, "runs": [asdict(run) for run in made], "environment": where}
    timing.save(results, options.output)


@dataclass(frozen=True)
class Run:
    """A run: its config, its seconds, its deviation as a part of the duration, and the load of the machine before."""

    config: str
    seconds: float
    deviation: float
    load: float


def timed_run(name: str, seconds: float) -> Run:
    """Runs the command with a duration."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        arguments = [f"--config={ROOT / 'configs' / f'{name}.py'}", f"--workdir={folder}/run"]
        duration = f"--config.train.duration={seconds:g} seconds"
        began = time.perf_counter()
        command = [sys.executable, "-m", "jaxtrain.main", *arguments, duration]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        took = time.perf_counter() - began
    run = Run(name, took, took / seconds - 1, load)
    print(f"{name:<20}{took:8.1f} s{run.deviation:+8.1%}   load {load:.1f} before", flush=True)
    return run


if __name__ == "__main__":
    main()
