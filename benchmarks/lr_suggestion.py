"""Measures the regret of each range-test rule against a dense grid of learning rates trained in full.

python benchmarks/lr_suggestion.py [digits_mlp ...] [--optimizers adam ...] [--output=FILE.json] [--quick]
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import timing  # before jax: puts this clone first on the path

from jaxtrain.commands.options import use_a_host_device_per_core

use_a_host_device_per_core()  # before JAX starts, like the command

import numpy as np  # noqa: E402
from suggestion_tasks import OPTIMIZERS, TASKS, experiment, ramp, train_rates  # noqa: E402

from jaxtrain.lr_range.from_config import run_range_test  # noqa: E402
from jaxtrain.parallel.compilation import count_compilations  # noqa: E402

GRID = np.geomspace(1e-5, 10.0, 25)
TEST_SEED = 100  # so that the range test draws other weights than the full trainings
DEFAULT = "near_minimum"
VALLEY = "valley, ramp"
REGRET_BAR = 0.5
COST_BAR = 0.10


@dataclass
class Outcome:
    """Results of one task and optimizer.

    rates: rule -> suggested rates, one per draw; best, lowest: the best rate of the grid and its loss; spread:
    standard deviation over seeds at that rate, relative to the loss; seconds: part -> wall time with compilation;
    compiling: part -> compilation alone; regret, loss_of_metric: rule -> mean over its rates.
    """

    task: str
    optimizer: str
    rates: dict[str, list[float]]
    best: float
    lowest: float
    spread: float
    agreed: bool
    seconds: dict[str, float]
    compiling: dict[str, float]
    regret: dict[str, float] = field(default_factory=dict)
    loss_of_metric: dict[str, float] = field(default_factory=dict)
    grid: dict[str, list[float]] = field(default_factory=dict)


def main() -> None:
    """Runs tasks and optimizers in sequence; reports development and held-out tasks separately."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)} (all)")
    parser.add_argument("--optimizers", nargs="*", choices=list(OPTIMIZERS), default=list(OPTIMIZERS))
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="two tasks with a few rates and steps")
    options = parser.parse_args()
    if unknown := set(options.tasks) - set(TASKS):
        parser.error(f"given {', '.join(sorted(unknown))}; allowed: {', '.join(TASKS)}")
    names = options.tasks or (["breast_cancer_mlp", "diabetes_mlp"] if options.quick else list(TASKS))
    outcomes = []
    for name in names:
        for optimizer in options.optimizers[: 1 if options.quick else None]:
            outcomes.append(outcome(name, optimizer, options.quick))
            print(_line(outcomes[-1]), flush=True)
    _report(outcomes, options.output)


def outcome(name: str, optimizer: str, quick: bool) -> Outcome:
    """Runs the range test, trains the grid and the suggested rates in full, and compares their losses."""
    built = experiment(name, optimizer, quick)
    grid = GRID[::6] if quick else GRID
    tester = replace(built, config={**built.config, "seed": TEST_SEED})
    (result, test_seconds, test_compiling) = _time(lambda: run_range_test(tester))
    (ramped, ramp_seconds, ramp_compiling) = _time(lambda: ramp(tester))
    (full, grid_seconds, grid_compiling) = _time(lambda: train_rates(built, grid))
    assert result.reading is not None
    rates = {rule: [rate] for rule, rate in result.reading.rules.items()} | {VALLEY: ramped}
    losses, metric = train_rates(built, np.concatenate(list(rates.values())))
    best = int(np.argmin(full[0].mean(axis=1)))
    lowest = float(full[0][best].mean())
    made = Outcome(
        name,
        optimizer,
        rates,
        best=float(grid[best]),
        lowest=lowest,
        spread=float(full[0][best].std(ddof=1) / lowest),
        agreed=result.agreed,
        seconds={"test": test_seconds, "ramp": ramp_seconds, "grid": grid_seconds},
        compiling={"test": test_compiling, "ramp": ramp_compiling, "grid": grid_compiling},
        grid={"rates": grid.tolist(), "losses": _finite(full[0].mean(axis=1))},
    )
    at = 0
    for rule, each in rates.items():
        of_rule = slice(at, at + len(each))
        at += len(each)
        made.regret[rule] = float(np.mean([_regret(row.mean(), made) for row in losses[of_rule]]))
        made.loss_of_metric[rule] = float(full[1].mean(axis=1).max() - metric[of_rule].mean())
    return made


def _regret(loss: float, made: Outcome) -> float:
    """Returns the excess of a loss over the lowest of the grid, relative to it; 0 if within the spread of the seeds."""
    regret = float(loss / made.lowest - 1.0)
    return 0.0 if regret < made.spread else regret


def _time(program: Callable[[], Any]) -> tuple[Any, float, float]:
    """Runs a program; returns its result, its wall time, and the part of it spent in compilation, in seconds."""
    began = time.perf_counter()
    with count_compilations() as compiled:
        result = program()
    return result, time.perf_counter() - began, compiled.seconds


def _line(made: Outcome) -> str:
    return (
        f"{made.task} {made.optimizer}: best rate {made.best:.2g}, loss {made.lowest:.4g}; "
        + ", ".join(f"{rule} {made.regret[rule]:.3g} at {made.rates[rule][0]:.2g}" for rule in (DEFAULT, VALLEY))
        + f"; {made.seconds['test']:.1f} s of {made.seconds['grid']:.1f} s"
    )


def _report(outcomes: Sequence[Outcome], output: Path | None) -> None:
    """Prints one table for the development tasks and one for the held-out tasks; saves both as JSON."""
    where = timing.environment()
    title = "Regret of each rule: loss at its rate / lowest loss of the grid - 1, mean over seeds"
    print("\n".join([title, *timing.environment_lines(where)]))
    summaries = {}
    for group, held_out in (("development", False), ("held out", True)):
        chosen = [made for made in outcomes if TASKS[made.task].held_out == held_out]
        if chosen:
            summaries[group] = _summary(chosen)
            print("\n".join(["", *_lines(group, chosen, summaries[group])]))
    each = [{**vars(made), "held_out": TASKS[made.task].held_out} for made in outcomes]
    timing.save({"title": title, "summaries": summaries, "outcomes": _plain(each), "environment": where}, output)


def _summary(chosen: Sequence[Outcome]) -> dict[str, Any]:
    """Returns the median and worst of each rule over tasks and optimizers, and the time relative to the grid."""
    rules = {
        rule: {
            "median regret": statistics.median(made.regret[rule] for made in chosen),
            "worst regret": max(made.regret[rule] for made in chosen),
            "median loss of metric": statistics.median(made.loss_of_metric[rule] for made in chosen),
            "worst loss of metric": max(made.loss_of_metric[rule] for made in chosen),
        }
        for rule in chosen[0].regret
    }
    seconds = {part: sum(made.seconds[part] for made in chosen) for part in ("test", "ramp", "grid")}
    running = {part: seconds[part] - sum(made.compiling[part] for made in chosen) for part in seconds}
    ours = rules[DEFAULT]
    theirs = rules[VALLEY]
    return {
        "rules": _plain(rules),
        "seconds": seconds,
        "test to grid": seconds["test"] / seconds["grid"],
        "test to grid without compilation": running["test"] / running["grid"],
        "agreed": sum(made.agreed for made in chosen) / len(chosen),
        "holds": {
            "median at most half of valley's": ours["median regret"] <= REGRET_BAR * theirs["median regret"],
            "worst at most valley's": ours["worst regret"] <= theirs["worst regret"],
            "at most a tenth of the grid's seconds": seconds["test"] / seconds["grid"] <= COST_BAR,
        },
    }


def _lines(group: str, chosen: Sequence[Outcome], summary: Mapping[str, Any]) -> list[str]:
    rows = [["rule", "median regret", "worst", "median loss of metric", "worst"]]
    rows += [
        [rule, *("inf" if value is None else f"{value:.3f}" for value in numbers.values())]
        for rule, numbers in summary["rules"].items()
    ]
    seconds = summary["seconds"]
    cost = (
        f"seconds with compilation: test {seconds['test']:.1f}, ramp {seconds['ramp']:.1f}, "
        f"grid {seconds['grid']:.1f}; "
        f"test to grid {summary['test to grid']:.3f}, without compilation "
        f"{summary['test to grid without compilation']:.3f}; agreed {summary['agreed']:.0%}"
    )
    bars = "; ".join(f"{bar}: {'holds' if held else 'MISSED'}" for bar, held in summary["holds"].items())
    return [f"{group}: {len(chosen)} tasks with optimizers", *timing.table(rows), cost, bars]


def _finite(values: np.ndarray) -> list[Any]:
    return _plain(values.tolist())


def _plain(value: Any) -> Any:
    """Replaces numbers that are not finite by None, for JSON."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


if __name__ == "__main__":
    main()
