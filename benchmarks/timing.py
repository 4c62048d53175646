"""Programs timed in turns, and their ratios shown and saved with the hardware and versions beside them."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a clone's own jaxtrain, installed or not; hence this import stands before jaxtrain's


def first_line(docstring: str | None) -> str:
    """Returns what a benchmark's --help says first."""
    return (docstring or "").partition("\n")[0]


@dataclass(frozen=True)
class Ratio:
    """Ours to theirs, each in `unit` (median over the rounds); the ratio is the median of the rounds' own ratios.

    `bar` is the most (or, with `at_least`, the least) that the ratio may be; None where there is nothing to hold to.
    """

    name: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    lowest: float
    highest: float
    rounds: int
    bar: float | None = None
    at_least: bool = False

    @property
    def holds(self) -> bool | None:
        """Tells whether the bar is kept; None without one."""
        if self.bar is None:
            return None
        return self.ratio >= self.bar if self.at_least else self.ratio <= self.bar


def seconds_in_turns(
    programs: Mapping[str, Callable[[], Any]], rounds: int, *, warm: bool = False
) -> dict[str, list[float]]:
    """Runs each program once a round, one after the other; unless they are warm, a first round does not count."""
    found: dict[str, list[float]] = {name: [] for name in programs}
    for counts in [False] * (not warm) + [True] * rounds:
        for name, program in programs.items():
            began = time.perf_counter()
            program()
            if counts:
                found[name].append(time.perf_counter() - began)
    return found


def ratio(
    name: str,
    unit: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    bar: float | None = None,
    *,
    at_least: bool = False,
) -> Ratio:
    """Compares two programs round by round: neighbours in time saw the same machine."""
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    ours_middle, theirs_middle, middle = (statistics.median(numbers) for numbers in (ours, theirs, pairs))
    return Ratio(name, unit, ours_middle, theirs_middle, middle, min(pairs), max(pairs), len(pairs), bar, at_least)


Part = Callable[[], tuple[list[Ratio], list[str]]]
"""A group of comparisons: its ratios, and notes that say more."""


def measured(parts: Mapping[str, Part], chosen: Sequence[str]) -> tuple[list[Ratio], list[str]]:
    """Runs the parts that are named, or all of them, and says what they found as it comes."""
    if unknown := set(chosen) - set(parts):
        sys.exit(f"given {', '.join(sorted(unknown))}; allowed: {', '.join(parts)}")
    ratios: list[Ratio] = []
    notes: list[str] = []
    for name in chosen or parts:
        found, said = parts[name]()
        print("\n".join([*(f"{ratio.name}: {ratio.ratio:.3f}" for ratio in found), *said]), flush=True)
        ratios += found
        notes += said
    return ratios, notes


def environment() -> dict[str, Any]:
    """Returns versions, chip, devices, the number of processors and how busy the machine is."""
    from jaxtrain.storage.environment import describe_environment

    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return describe_environment() | {"processors": os.cpu_count(), "load_average": busy}


def environment_lines(found: Mapping[str, Any]) -> list[str]:
    """Returns the environment as two lines to read."""
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items() if version)
    return [
        f"{found['processor']} ({found['processors']} processors), {found['backend']}: {', '.join(found['devices'])}",
        f"Python {found['python']}, {packages}",
    ]


def report(title: str, ratios: Sequence[Ratio], notes: Sequence[str], output: Path | None) -> None:
    """Prints the ratios as a table, and writes them as JSON where a file is given."""
    where = environment()
    rows = [["", "unit", "ours", "theirs", "ratio", "lowest-highest", "rounds", "bar", ""]]
    rows += [_row(found) for found in ratios]
    print("\n".join([title, *environment_lines(where), *notes, "", *table(rows)]))
    results = [asdict(found) | {"holds": found.holds} for found in ratios]
    save({"title": title, "notes": list(notes), "ratios": results, "environment": where}, output)


def save(found: Mapping[str, Any], output: Path | None) -> None:
    """Writes JSON where a file is given."""
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(found, indent=2) + "\n")


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligns rows of text in columns, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, *others = widths
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(w) for cell, w in zip(row[1:], others, strict=True))]).rstrip()
        for row in rows
    ]


def _row(found: Ratio) -> list[str]:
    bar = "" if found.bar is None else f"{'≥' if found.at_least else '≤'} {found.bar:.2f}"
    verdict = {None: "", True: "holds", False: "MISSED"}[found.holds]
    span = f"{found.lowest:.3f}-{found.highest:.3f}"
    numbers = [f"{found.ours:.3f}", f"{found.theirs:.3f}", f"{found.ratio:.3f}"]
    return [found.name, found.unit, *numbers, span, str(found.rounds), bar, verdict]
