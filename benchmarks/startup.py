"""From the start of the process: --help, and the first completed step against a script in plain JAX, Flax and optax.

python benchmarks/startup.py [--output=FILE.json] [--quick]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import images
import timing
from timing import ROOT

HELP_BAR, STEP_BAR = 0.5, 1.3
TOTAL_STEPS = 4219  # of configs/fashion_mnist_mlp.py; for the bare script's schedule
HEAVY = ("jax", "flax", "optax", "orbax", "numpy", "tensorboardX", "tqdm", "matplotlib", "sklearn", "jaxtrain.trackers")
IMPORTED = f"""
import contextlib, io, sys
from jaxtrain.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["--help"])
print(" ".join(name for name in {HEAVY!r} if name in sys.modules))
"""


def main() -> None:
    """Times --help, then both programs to their first step, without and with compiled programs from the cache."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    parser.add_argument("--quick", action="store_true", help="one round, to see that everything runs")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    data = images.use_data()
    help_seconds = _help_seconds(rounds)
    notes = [
        *data,
        f"--help: {help_seconds:.3f} s (bar {HELP_BAR} s, {'holds' if help_seconds <= HELP_BAR else 'MISSED'}); "
        f"of {', '.join(HEAVY)} it imports: {_imported() or 'none'}",
        "first step: until the process prints the numbers of step 1; ours also opens the run's directory and trackers",
    ]
    with tempfile.TemporaryDirectory() as folder:
        ratios = first_steps(Path(folder), rounds)
    timing.report(
        "Process start to first completed step (ours) and a bare script's (theirs)", ratios, notes, options.output
    )


def first_steps(folder: Path, rounds: int) -> list[timing.Ratio]:
    """Times both programs in turns: with an empty cache of compiled programs (theirs: without one), then a full one."""
    data = Path(os.environ.get("JAXTRAIN_DATA", "data"), "fashion_mnist")
    bare = [sys.executable, str(ROOT / "benchmarks" / "bare_start.py"), str(data), str(TOTAL_STEPS)]
    warm_cache = folder / "warm"
    took: dict[str, list[float]] = {name: [] for name in ("cold ours", "cold theirs", "warm ours", "warm theirs")}
    for i in range(rounds + 1):
        found = {
            "cold ours": first_step(_ours(folder / f"cold{i}"), {"XDG_CACHE_HOME": str(folder / f"cache{i}")}),
            "cold theirs": first_step(bare, {}),
            "warm ours": first_step(_ours(folder / f"warm{i}"), {"XDG_CACHE_HOME": str(warm_cache)}),
            "warm theirs": first_step([*bare, str(warm_cache / "bare")], {}),
        }
        for name, seconds in found.items():
            if i > 0:  # the first round fills the warm cache, and the system's own cache of files
                took[name].append(seconds)
    return [
        timing.ratio(f"first step, {kind} cache", "s", took[f"{kind} ours"], took[f"{kind} theirs"], STEP_BAR)
        for kind in ("cold", "warm")
    ]


def _ours(workdir: Path) -> list[str]:
    """The command a user types, and a row logged for every step: the first one ends the wait."""
    config = ROOT / "configs" / "fashion_mnist_mlp.py"
    return [
        sys.executable,
        "-m",
        "jaxtrain.main",
        f"--config={config}",
        f"--workdir={workdir}",
        "--config.log.every=1 steps",
    ]


def first_step(command: Sequence[str], variables: Mapping[str, str]) -> float:
    """Returns the seconds from the start of a process to its line about step 1, and ends the process."""
    hidden = ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | dict(variables)
    began, said = time.perf_counter(), []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if line.lstrip().startswith("step ") and "loss" in line:
                seconds = time.perf_counter() - began
                process.kill()
                return seconds
    raise RuntimeError(f"{' '.join(command)} ended without a step:\n{''.join(said)}")


def _help_seconds(rounds: int) -> float:
    command = [sys.executable, "-m", "jaxtrain.main", "--help"]
    took = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        took.append(time.perf_counter() - began)
    return statistics.median(took[1:])


def _imported() -> str:
    """Returns which of the heavy packages --help imports."""
    found = subprocess.run([sys.executable, "-c", IMPORTED], cwd=ROOT, check=True, capture_output=True, text=True)
    return found.stdout.strip()


if __name__ == "__main__":
    main()
