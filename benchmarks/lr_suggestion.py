"""Measures the regret of the suggested learning rate, and of other rules, against a dense grid trained in full.

python benchmarks/lr_suggestion.py [--count=150] [--held-out=60] [--folder=DIR] [--output=FILE.json] [--quick]

Regret is (loss - lowest of the grid) / (untrained - lowest), on validation, by the best evaluation of a run and by its
last. The rule was chosen on the development combinations; those held out have other data sets and are only reported on.
Each combination is kept in a file of the folder, from which an interrupted benchmark resumes.

A rate found by any means has regret, since the lowest of a grid is partly luck. How much that is, the best rate of the
same grid trained with other seeds shows, on held-out combinations: no rule can be expected to do better.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timing  # before jax: puts this clone first on the path

from jaxtrain.commands.options import use_a_host_device_per_core

use_a_host_device_per_core()  # before JAX starts, like the command

import jax  # noqa: E402
import numpy as np  # noqa: E402
from suggestion_tasks import (  # noqa: E402
    OPTIMIZERS,
    SEEDS,
    Combination,
    combinations,
    experiment,
    ramp,
    train_rates,
)

from jaxtrain.lr_range.from_config import run_range_test  # noqa: E402

GRID = np.geomspace(1e-5, 10.0, 31)
TEST_SEED = 100  # so that the range test draws other weights than the full trainings
OURS = "suggestion"
VALLEY = "valley, ramp"
MINIMUM = "minimum/10"
USUAL = "usual default"
FLOOR = "grid, other seeds"
DATA_SEEDS = 10
GOALS = {"best": (0.004, 0.015, 0.05), "last": (0.010, 0.05, 0.20)}
"""Median, 90 % and worst regret of the suggestion on held-out combinations."""


def main() -> None:
    """Runs combinations that have no file yet; reports development and held-out ones apart."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("--count", type=int, default=150, help="development combinations (150)")
    parser.add_argument("--held-out", type=int, default=60, help="combinations of other data sets (60)")
    parser.add_argument("--minutes", type=float, default=60.0, help="start no combination after these (60)")
    parser.add_argument("--folder", type=Path, help="keeps each combination, and resumes from there")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="one combination of each kind with a few rates and steps")
    options = parser.parse_args()
    ends = time.monotonic() + 60 * options.minutes
    counts = (1, 1) if options.quick else (options.count, options.held_out)
    groups = [combinations(counts[0], held_out=False), combinations(counts[1], held_out=True)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        held_out = set(groups[1])
        in_turns = itertools.chain.from_iterable(itertools.zip_longest(*groups))
        for combination in filter(None, in_turns):  # so that both groups are served where time ends first
            if time.monotonic() < ends:
                _measure_once(combination, folder, options.quick, floor=combination in held_out)
        outcomes = [[_read(folder, each) for each in group if _path(folder, each).exists()] for group in groups]
    spread = data_spread(groups[0][0], 2 if options.quick else DATA_SEEDS, options.quick)
    _report(dict(zip(("development", "held out"), outcomes, strict=True)), spread, options.output)


def _path(folder: Path, combination: Combination) -> Path:
    return folder / f"{combination.name}.json"


def _read(folder: Path, combination: Combination) -> dict[str, Any]:
    return json.loads(_path(folder, combination).read_text())


def _measure_once(combination: Combination, folder: Path, quick: bool, *, floor: bool) -> None:
    """Measures what the combination's file does not hold yet, and writes it there."""
    path = _path(folder, combination)
    found = _read(folder, combination) if path.exists() else measure(combination, quick)
    if floor and FLOOR not in found["rates"]:
        found = measure_floor(combination, found, quick)
    elif path.exists():
        return
    timing.save(found, path)
    jax.clear_caches()
    print(_line(found), flush=True)


def measure(combination: Combination, quick: bool) -> dict[str, Any]:
    """Runs the range test, trains the grid and the suggested rates in full, and compares their losses."""
    built = experiment(combination, steps=20 if quick else None)
    grid = GRID[::6] if quick else GRID
    began = time.perf_counter()
    result = run_range_test(_tester(built, quick), lambda line: None)
    seconds = {"test": time.perf_counter() - began}
    rules = {OURS: result.suggestion, MINIMUM: None, USUAL: OPTIMIZERS[combination.optimizer][1]}
    if result.reading and result.reading.rules:
        rules[MINIMUM] = result.reading.rules[MINIMUM]
    ramped = ramp(_tester(built, quick))
    rates = {name: [rate] for name, rate in rules.items() if rate is not None} | {VALLEY: ramped}
    began = time.perf_counter()
    trained = train_rates(built, np.concatenate([grid, *rates.values()]))
    seconds["grid"] = time.perf_counter() - began
    regrets = {kind: _regrets(getattr(trained, kind), trained.untrained, len(grid)) for kind in GOALS}
    found: dict[str, Any] = {"combination": combination._asdict(), "seconds": seconds, "rates": rates, "regret": {}}
    at = len(grid)
    for name, each in rates.items():
        found["regret"][name] = {kind: float(np.mean(regrets[kind][at : at + len(each)])) for kind in GOALS}
        at += len(each)
    best = float(grid[_best_place({kind: each[: len(grid)] for kind, each in regrets.items()})])
    interval = result.interval
    return found | {
        "best_rate": best,
        "interval": interval,
        "covered": bool(interval and interval[0] <= best <= interval[1]),
        "reliable": result.reliable,
        "grid": {"rates": grid.tolist(), **{kind: regrets[kind][: len(grid)].tolist() for kind in GOALS}},
    }


def measure_floor(combination: Combination, found: Mapping[str, Any], quick: bool) -> dict[str, Any]:
    """Returns a measurement with the best rate of the same grid under other seeds, and its regret."""
    grid = np.asarray(found["grid"]["rates"])
    trained = train_rates(experiment(combination, steps=20 if quick else None), grid, first_seed=SEEDS)
    at = _best_place({kind: _regrets(getattr(trained, kind), trained.untrained, len(grid)) for kind in GOALS})
    regret = {kind: found["grid"][kind][at] for kind in GOALS}
    return {
        **found,
        "rates": {**found["rates"], FLOOR: [float(grid[at])]},
        "regret": {**found["regret"], FLOOR: regret},
    }


def _best_place(regrets: Mapping[str, np.ndarray]) -> int:
    """Returns the place of the least regret, of which that by the last evaluation counts a quarter, as in the goals."""
    return int(np.argmin(np.maximum(regrets["best"], regrets["last"] / 4)))


def _tester(built: Any, quick: bool) -> Any:
    """Returns the experiment with other seeds for the range test, and in a quick run fewer rates."""
    section = {**built.config["lr_range"], **({"rates": 8, "seeds": 1} if quick else {})}
    return replace(built, config={**built.config, "seed": TEST_SEED, "lr_range": section})


def _regrets(losses: np.ndarray, untrained: float, grid: int) -> np.ndarray:
    """Returns (loss - lowest of the grid) / (untrained - lowest), at most 100, so that a mean exists."""
    lowest = losses[:grid].min()
    return np.minimum((losses - lowest) / (untrained - lowest), 100.0)


def data_spread(combination: Combination, seeds: int, quick: bool) -> float:
    """Returns the standard deviation of the suggestion over data seeds, in decades."""
    suggestions = []
    for seed in range(seeds):
        tester = _tester(experiment(combination, data_seed=seed, steps=20 if quick else None), quick)
        if (rate := run_range_test(tester, lambda line: None).suggestion) is not None:
            suggestions.append(np.log10(rate))
    return float(np.std(suggestions))


def _line(found: Mapping[str, Any]) -> str:
    name = Combination(**found["combination"]).name
    regrets = (f"{rule} {regret['best']:.3f} / {regret['last']:.3f}" for rule, regret in found["regret"].items())
    seconds = found["seconds"]
    return f"{name}: {', '.join(regrets)}; {seconds['test']:.1f} s of {seconds['grid']:.1f} s"


def _report(groups: Mapping[str, Sequence[Mapping[str, Any]]], spread: float, output: Path | None) -> None:
    """Prints a table for each group; saves both with the combinations as JSON."""
    where = timing.environment()
    title = "Regret of a suggested rate by a run's best evaluation and by its last: median, 90 %, worst"
    print("\n".join([title, *timing.environment_lines(where)]))
    summaries = {name: _summary(group) for name, group in groups.items() if group}
    for name, summary in summaries.items():
        rows = [["rule", "best: median", "90 %", "worst", "last: median", "90 %", "worst"]]
        rows += [[rule, *(f"{x:.3f}" for kind in GOALS for x in each[kind])] for rule, each in summary["rules"].items()]
        print("\n".join(["", f"{name}: {summary['combinations']} combinations", *timing.table(rows)]))
        print(
            f"the interval covers the best rate in {summary['covered']:.0%}, its median width is "
            f"{summary['decades']:.2f} decades; reliable {summary['reliable']:.0%}; "
            f"seconds of the tests to those of the grids {summary['test to grid']:.2f}"
        )
        print("; ".join(f"{goal}: {'holds' if held else 'MISSED'}" for goal, held in summary["holds"].items()))
    print(f"spread over data seeds: {spread:.2f} decades")
    timing.save(
        {"title": title, "summaries": summaries, "spread": spread, "combinations": groups, "environment": where}, output
    )


def _summary(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the quantiles of each rule over combinations, and which goals the suggestion meets."""

    def quantiles(rule: str, kind: str) -> list[float]:
        regrets = [found["regret"][rule][kind] for found in group if rule in found["regret"]]
        return [float(np.quantile(regrets, share)) for share in (0.5, 0.9, 1.0)]

    measured = [rule for rule in (OURS, VALLEY, MINIMUM, USUAL, FLOOR) if any(rule in each["regret"] for each in group)]
    rules = {rule: {kind: quantiles(rule, kind) for kind in GOALS} for rule in measured}
    covered = float(np.mean([found["covered"] for found in group]))
    widths = [np.log10(found["interval"][1] / found["interval"][0]) for found in group if found["interval"]]
    seconds = [sum(found["seconds"][part] for found in group) for part in ("test", "grid")]
    holds = {
        f"{name} regret by the {kind} at most {goal}": rules[OURS][kind][at] <= goal
        for kind, goals in GOALS.items()
        for at, (name, goal) in enumerate(zip(("median", "90 %", "worst"), goals, strict=True))
    }
    for rule in (VALLEY, MINIMUM, USUAL):
        beaten = all(rules[OURS][kind][at] <= rules[rule][kind][at] for kind in GOALS for at in (0, 2))
        holds[f"beats {rule} in median and worst"] = beaten
    return {
        "combinations": len(group),
        "rules": rules,
        "covered": covered,
        "decades": float(np.median(widths)) if widths else float("nan"),
        "reliable": float(np.mean([found["reliable"] for found in group])),
        "test to grid": seconds[0] / seconds[1],
        "holds": holds | {"covers in 85 to 97 %": 0.85 <= covered <= 0.97},
    }


if __name__ == "__main__":
    main()
