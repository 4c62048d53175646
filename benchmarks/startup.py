"""Times process start to --help, and to the first training step compared with a plain JAX, Flax and optax script.

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

HELP_BAR = 0.5
STEP_BAR = 1.3
TOTAL_STEPS = 4219  # of configs/fashion_mnist_mlp.py, for the schedule of the bare script
HEAVY = ("jax", "flax", "optax", "orbax", "numpy", "tensorboardX", "tqdm", "matplotlib", "sklearn", "jaxtrain.trackers")
IMPORTED = f"""
import contextlib, io, sys
from jaxtrain.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["--help"])
print(" ".join(name for name in {HEAVY!r} if name in sys.modules))
"""


def main() -> None:
    """Times --help, then both programs to their first step with a cold and a warm compilation cache."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="one round that counts as it is, as a smoke test")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    data = images.use_data()
    help_seconds = _help_seconds(rounds)
    notes = [
        *data,
        f"--help: {help_seconds:.3f} s (bar {HELP_BAR} s, {'holds' if help_seconds <= HELP_BAR else 'MISSED'}); "
        f"of {', '.join(HEAVY)} it imports: {_heavy_imports() or 'none'}",
        "first step: until the process prints the metrics of step 1; ours also opens run directory and trackers",
    ]
    with tempfile.TemporaryDirectory() as folder:
        ratios = first_steps(Path(folder), rounds, fills=not options.quick)
    timing.report(
        "Process start to first completed step (ours) and a bare script's (theirs)", ratios, notes, options.output
    )


def first_steps(folder: Path, rounds: int, *, fills: bool) -> list[timing.Ratio]:
    """Times both programs in turns with a cold compilation cache (theirs: none) and with a warm one.

    With `fills`, a first round, which is not counted, fills the warm cache and the file cache of the system.
    """
    data = Path(os.environ.get("JAXTRAIN_DATA", "data"), "fashion_mnist")
    bare = [sys.executable, str(ROOT / "benchmarks" / "bare_start.py"), str(data), str(TOTAL_STEPS)]
    warm_cache = folder / "warm"
    took: dict[str, list[float]] = {name: [] for name in ("cold ours", "cold theirs", "warm ours", "warm theirs")}
    for i in range(fills + rounds):
        seconds_of = {
            "cold ours": first_step(_our_command(folder / f"cold{i}"), {"XDG_CACHE_HOME": str(folder / f"cache{i}")}),
            "cold theirs": first_step(bare, {}),
            "warm ours": first_step(_our_command(folder / f"warm{i}"), {"XDG_CACHE_HOME": str(warm_cache)}),
            "warm theirs": first_step([*bare, str(warm_cache / "bare")], {}),
        }
        for name, seconds in seconds_of.items():
            if i >= fills:
                took[name].append(seconds)
    return [
        timing.ratio(f"first step, {kind} cache", "s", took[f"{kind} ours"], took[f"{kind} theirs"], STEP_BAR)
        for kind in ("cold", "warm")
    ]


def _our_command(workdir: Path) -> list[str]:
    """Returns the command as a user types it, logging every step so that the first step is printed at once."""
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
    """Starts a process, waits for its line about step 1, kills it, and returns the seconds."""
    hidden = ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | dict(variables)
    began = time.perf_counter()
    printed = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            if line.lstrip().startswith("step ") and "loss" in line:
                seconds = time.perf_counter() - began
                process.kill()
                return seconds
    raise RuntimeError(f"{' '.join(command)} ended without a step:\n{''.join(printed)}")


def _help_seconds(rounds: int) -> float:
    command = [sys.executable, "-m", "jaxtrain.main", "--help"]
    took = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        took.append(time.perf_counter() - began)
    return statistics.median(took[1:])


def _heavy_imports() -> str:
    """Returns the heavy packages that --help imports."""
    done = subprocess.run([sys.executable, "-c", IMPORTED], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
