"""Measures how much host memory a batch of a search with many model widths takes, beyond one with one width.

python benchmarks/search_memory.py [--trials=300] [--output=FILE.json] [--quick]
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import timing  # before jax: puts this clone first on the path

from jaxtrain import default_config, run_search
from jaxtrain.config.resolve import resolve_config

BAR = 300.0
NARROWEST = 8


def main() -> None:
    """Runs both searches, each in a process of its own, and reports the difference of their peaks."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--widths", type=int, help="run one search of this many widths here, and print its peak")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="a few trials, as a smoke test")
    options = parser.parse_args()
    if options.widths is not None:
        print(peak(options.widths))
        return
    trials = 2 if options.quick else options.trials
    peaks = {"one width": _peak_of(1), f"{trials} widths": _peak_of(trials)}
    one, many = peaks.values()
    where = timing.environment()
    rows = [[name, f"{megabytes:,.0f} MB at the peak"] for name, megabytes in peaks.items()]
    rows.append(["growth", f"{many - one:,.0f} MB (bar {BAR:,.0f} MB, {'holds' if many - one < BAR else 'MISSED'})"])
    title = f"Host memory of a search of {trials} trials, each of another width"
    print("\n".join([title, *timing.environment_lines(where), "", *timing.table(rows)]))
    timing.save({"title": title, "megabytes": {**peaks, "growth": many - one}, "environment": where}, options.output)


def _peak_of(widths: int) -> float:
    """Returns the peak of a search in a new process, in MB."""
    command = [sys.executable, __file__, f"--widths={widths}"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak(widths: int) -> float:
    """Searches this many widths of a small MLP in one batch; returns the peak memory of this process in MB."""
    space = {"model": {"hidden": ("choice", tuple((NARROWEST + i,) for i in range(widths)))}}
    overrides = {
        "data.name": "digits",
        "model.name": "mlp",
        "train.duration": "20 steps",
        "eval.every": "20 steps",
        "track.tensorboard": False,
        "search.sampler": "grid",
        "search.trials": widths,
        "search.batch": widths,
        "search.compare_seeds": 0,
    }
    config = resolve_config({**default_config().to_dict(), "search": {"space": space}}, overrides).config
    with tempfile.TemporaryDirectory() as folder:
        run_search(config, folder, quiet=True)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
