"""Runs each shipped config by its command and compares its figure on the test split, a mean over seeds, with a goal.

python benchmarks/configs.py [--only=adult,digits] [--seeds=3] [--folder=runs/configs] [--output=FILE.json] [--quick]

A run that was interrupted goes on where it stopped, and one that is done is read again: its directory lies in --folder.
Rows of other configs in the output file stay. JAXTRAIN_DATA names the folder of data.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timing
from timing import ROOT


class Goal(NamedTuple):
    """A metric of the test split, the figure to reach and the one to aim at; `falling` if lower is better."""

    metric: str
    reach: float
    aim: float | None = None
    falling: bool = False


GOALS = {
    "digits": Goal("accuracy", 0.983),
    "digits_folder": Goal("accuracy", 0.983),
    "fashion_mnist_mlp": Goal("accuracy", 0.89),
    "fashion_mnist_cnn": Goal("accuracy", 0.928),
    "fashion_mnist_resnet9": Goal("accuracy", 0.94),
    "adult": Goal("accuracy", 0.860, aim=0.864),
    "california_housing": Goal("r2", 0.84, aim=0.846),
    "nuclei_unet": Goal("image_dice", 0.90),
    "nuclei_boxes": Goal("mean_average_precision_50", 0.80),
    "shakespeare_gpt": Goal("loss", 1.75, aim=1.65, falling=True),
    "python_source_gpt": Goal("bits_per_byte", 2.1, falling=True),
    "cifar10_resnet9": Goal("accuracy", 0.70, aim=0.85),
}
"""The goal of each config; one that is not there is not run."""


def main() -> None:
    """Runs the chosen configs one after the other, and prints and saves the table after each."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("--only", help=f"names, separated by commas, of: {', '.join(GOALS)}")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each config (3), as lanes of one run")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "configs", help="folder of the runs")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="two steps of each, as a smoke test")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else [name for name in GOALS if config_of(name).exists()]
    if unknown := [name for name in chosen if name not in GOALS or not config_of(name).exists()]:
        sys.exit(f"--only: got {', '.join(unknown)}; expected configs of {', '.join(GOALS)} that are there")
    options.folder.mkdir(parents=True, exist_ok=True)
    write_pictures(options.folder.resolve())
    short = ["--config.train.duration=2 steps"] if options.quick else []
    rows = saved_rows(options.output)
    print(*timing.environment_lines(timing.environment()), sep="\n")
    for name in chosen:
        row = run(name, options.folder.resolve(), [f"--config.train.seeds={options.seeds}", *short])
        if row is not None:
            rows[name] = row
            results = {"title": timing.first_line(__doc__), "configs": rows, "environment": timing.environment()}
            timing.save(results, options.output)
    header = ["config", "metric", "mean", "lowest-highest", "goal", "", "seeds", "seconds"]
    print("", *timing.table([header, *(cells(name, row) for name, row in rows.items())]), sep="\n")


def config_of(name: str) -> Path:
    """Returns the file of a config."""
    return ROOT / "configs" / f"{name}.py"


def saved_rows(output: Path | None) -> dict[str, Any]:
    """Returns the rows of earlier calls."""
    return json.loads(output.read_text())["configs"] if output and output.exists() else {}


def write_pictures(folder: Path) -> None:
    """Writes the pictures that `digits_folder` reads, by the program that the README shows."""
    if not (folder / "pictures").exists():
        readme = (ROOT / "README.md").read_text()
        program = re.search(r"```python file=write_examples\.py\n(.*?)```", readme, re.DOTALL)
        assert program is not None
        subprocess.run([sys.executable, "-c", program[1]], cwd=folder, check=True)


def run(name: str, folder: Path, overrides: list[str]) -> dict[str, Any] | None:
    """Runs the command of a config, or goes on with it; returns its row, None if it failed, which is said."""
    workdir = folder / name
    data = Path(os.environ.get("JAXTRAIN_DATA", ROOT / "data")).resolve()
    paths = {"JAXTRAIN_DATA": str(data), "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), *sys.path[:1])))}
    arguments = [f"--config={config_of(name)}", f"--workdir={workdir}", *overrides]
    command = [sys.executable, "-m", "jaxtrain.main", *arguments]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **paths}, capture_output=True, text=True)
    if done.returncode:
        print(f"{name}: failed: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}", flush=True)
        return None
    row = row_of(GOALS[name], json.loads((workdir / "result.json").read_text()))
    print(f"{name}: {row['metric']} {row['mean']:.4f} in {row['seconds']:.0f} s", flush=True)
    return row | {"environment": timing.environment()}


def row_of(goal: Goal, result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the figures of a run: mean, lowest and highest of its seeds, the goal, and whether it is reached."""
    test = result["test"]
    each = [value for key, value in test.items() if key.startswith("seed_") and key.endswith(f"/{goal.metric}")]
    values = each or [test[goal.metric]]
    mean = statistics.fmean(values)
    reached = mean <= goal.reach if goal.falling else mean >= goal.reach
    figures = {"mean": mean, "lowest": min(values), "highest": max(values), "seeds": len(values)}
    others = {key: value for key, value in test.items() if "/" not in key and key != "step"}
    return {**goal._asdict(), **figures, "reached": reached, "seconds": result["seconds"], "test": others}


def cells(name: str, row: Mapping[str, Any]) -> list[str]:
    """Formats a row of the table."""
    goal = f"{'≤' if row['falling'] else '≥'} {row['reach']:g}"
    goal += "" if row["aim"] is None else f", aim {row['aim']:g}"
    span = f"{row['lowest']:.4f}-{row['highest']:.4f}"
    verdict = "reached" if row["reached"] else "MISSED"
    return [name, row["metric"], f"{row['mean']:.4f}", span, goal, verdict, str(row["seeds"]), f"{row['seconds']:.0f}"]


if __name__ == "__main__":
    main()
