"""Breaks experiments in every way of tests/planted_faults.py, and prints which question of `check` is the first not ok.

python benchmarks/planted_faults.py [NAME ...] [--tasks=digits,diabetes] [--seeds=3] [--output=FILE.json] [--quick]

The sound experiments are asked all questions, too, on several seeds.
"""

import argparse
import importlib
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import timing

sys.path.insert(0, str(timing.ROOT / "tests"))

from jaxtrain.check.answers import Answer
from jaxtrain.check.ask import ask
from jaxtrain.check.context import Context
from jaxtrain.check.questions import questions_of
from jaxtrain.config.defaults import Config
from jaxtrain.errors import JaxtrainWarning

planted = importlib.import_module("planted_faults")  # that of the tests, which has the name of this file

BAR = 0.9
"""The share of the faults that their question must name."""

NOT_OK = ("warning", "fault")


def main() -> None:
    """Asks each broken experiment until a question is not ok, and each sound one all questions."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(planted.FAULTS)}")
    parser.add_argument("--tasks", default=",".join(planted.TASKS), help="the tasks to break, with commas")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the sound experiments")
    parser.add_argument("--output", type=Path, help="writes the table as JSON")
    parser.add_argument("--quick", action="store_true", help="takes two faults of one task and one seed")
    options = parser.parse_args()
    warnings.simplefilter("ignore", JaxtrainWarning)
    tasks = tuple(options.tasks.split(","))
    cases = [
        (name, task) for name, task in planted.CASES if task in tasks and name in (options.names or planted.FAULTS)
    ]
    cases = cases[:2] if options.quick else cases
    faults = [_ask_broken(name, task) for name, task in cases]
    seeds = range(1 if options.quick else options.seeds)
    sound = [_ask_sound(task, seed) for task in (tasks[:1] if options.quick else tasks) for seed in seeds]
    report(faults, sound, options.output)


def _ask_broken(name: str, task: str) -> dict[str, Any]:
    """Asks a broken experiment until a question is not ok."""
    began = time.process_time()
    expected = planted.FAULTS[name].question
    question, answer = next(_not_ok(planted.broken(name, task)), ("nothing", None))
    row = {"fault": name, "task": task, "expected": expected, "found": question, "held": question == expected}
    row |= {"answer": answer._asdict() if answer else None, "cpu_seconds": time.process_time() - began}
    print(f"{name}, {task}: {question}{'' if row['held'] else f' in place of {expected}'}", flush=True)
    return row


def _ask_sound(task: str, seed: int) -> dict[str, Any]:
    """Asks a sound experiment all questions."""
    began = time.process_time()
    found = [(name, answer._asdict()) for name, answer in _not_ok(planted.sound(task, seed))]
    faults = sum(answer["status"] == "fault" for _, answer in found)
    print(f"sound, {task}, seed {seed}: {len(found) - faults} warnings, {faults} faults", flush=True)
    held = not faults and len(found) <= 1
    return {"task": task, "seed": seed, "found": found, "held": held, "cpu_seconds": time.process_time() - began}


def _not_ok(config: Config) -> Any:
    """Yields (name, answer) of the questions that are not ok, as they are asked."""

    def found(answer: Answer) -> bool:
        return answer.status in NOT_OK

    return ((name, answer) for name, answer in ask(Context(config), questions_of(())) if found(answer))


def report(faults: list[dict[str, Any]], sound: list[dict[str, Any]], output: Path | None) -> None:
    """Prints both tables, and saves them."""
    where = timing.environment()
    named = sum(row["held"] for row in faults)
    seconds = sum(row["cpu_seconds"] for row in faults + sound)
    rows = [["fault", "task", "first not ok", ""]]
    rows += [[row["fault"], row["task"], row["found"], "" if row["held"] else "MISSED"] for row in faults]
    asked = [["sound experiment", "seed", "not ok", ""]]
    for row in sound:
        told = ", ".join(f"{name} ({answer['status']})" for name, answer in row["found"]) or "none"
        asked.append([row["task"], str(row["seed"]), told, "" if row["held"] else "MISSED"])
    lines = [
        "planted faults, and the question that is the first not ok",
        *timing.environment_lines(where),
        "",
        *timing.table(rows),
        "",
        *timing.table(asked),
        "",
        f"named by their question: {named} of {len(faults)}, at least {BAR:.0%} wanted; "
        f"{sum(row['held'] for row in sound)} of {len(sound)} sound ones without a fault and with at most one warning; "
        f"{seconds:.0f} CPU seconds",
    ]
    print("\n".join(lines))
    timing.save({"faults": faults, "sound": sound, "named": named, "environment": where}, output)


if __name__ == "__main__":
    main()
