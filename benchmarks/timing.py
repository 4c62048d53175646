"""Times programs in turns; prints and saves their ratios with hardware and versions."""

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
sys.path.insert(0, str(ROOT))  # this clone's jaxtrain goes before an installed one, so import this module first


def first_line(docstring: str | None) -> str:
    """Returns the first line of a docstring, for --help."""
    return (docstring or "").partition("\n")[0]


@dataclass(frozen=True)
class Ratio:
    """The ratio of our figure to theirs.

    ours, theirs: medians over the rounds, in `unit`; ratio, lowest, highest: median, minimum and maximum of the ratio
    of each round; bar: the largest (with `at_least`, the smallest) acceptable ratio, None without a bar.
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
        """Tells whether the ratio meets its bar; None without a bar."""
        if self.bar is None:
            return None
        return self.ratio >= self.bar if self.at_least else self.ratio <= self.bar


def seconds_in_turns(
    programs: Mapping[str, Callable[[], Any]], rounds: int, *, warm: bool = False
) -> dict[str, list[float]]:
    """Runs each program once per round, in turns; returns name -> seconds of each round.

    An extra first round warms the programs up and is not counted, unless they are `warm` already.
    """
    took: dict[str, list[float]] = {name: [] for name in programs}
    for counts in [False] * (not warm) + [True] * rounds:
        for name, program in programs.items():
            began = time.perf_counter()
            program()
            if counts:
                took[name].append(time.perf_counter() - began)
    return took


def ratio(
    name: str,
    unit: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    bar: float | None = None,
    *,
    at_least: bool = False,
) -> Ratio:
    """Compares two programs round by round, so that a change in machine load affects both."""
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    ours_middle, theirs_middle, middle = (statistics.median(numbers) for numbers in (ours, theirs, pairs))
    return Ratio(name, unit, ours_middle, theirs_middle, middle, min(pairs), max(pairs), len(pairs), bar, at_least)


Part = Callable[[], tuple[list[Ratio], list[str]]]
"""A group of comparisons; returns its ratios and notes."""


def run_parts(parts: Mapping[str, Part], chosen: Sequence[str]) -> tuple[list[Ratio], list[str]]:
    """Runs the chosen parts, by default all of them, and prints the results of each as it ends."""
    if unknown := set(chosen) - set(parts):
        sys.exit(f"given {', '.join(sorted(unknown))}; allowed: {', '.join(parts)}")
    ratios: list[Ratio] = []
    notes: list[str] = []
    for name in chosen or parts:
        part_ratios, part_notes = parts[name]()
        print("\n".join([*(f"{ratio.name}: {ratio.ratio:.3f}" for ratio in part_ratios), *part_notes]), flush=True)
        ratios += part_ratios
        notes += part_notes
    return ratios, notes


def environment() -> dict[str, Any]:
    """Returns versions, chip, devices, the number of processors and the load average."""
    from jaxtrain.storage.environment import describe_environment

    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return describe_environment() | {"processors": os.cpu_count(), "load_average": busy}


def environment_lines(where: Mapping[str, Any]) -> list[str]:
    """Formats the environment as two lines."""
    packages = ", ".join(f"{name} {version}" for name, version in where["packages"].items() if version)
    return [
        f"{where['processor']} ({where['processors']} processors), {where['backend']}: {', '.join(where['devices'])}",
        f"Python {where['python']}, {packages}",
    ]


def report(title: str, ratios: Sequence[Ratio], notes: Sequence[str], output: Path | None) -> None:
    """Prints the ratios as a table, and saves them as JSON if a file is given."""
    where = environment()
    rows = [["", "unit", "ours", "theirs", "ratio", "lowest-highest", "rounds", "bar", ""]]
    rows += [_row(ratio) for ratio in ratios]
    print("\n".join([title, *environment_lines(where), *notes, "", *table(rows)]))
    results = [asdict(ratio) | {"holds": ratio.holds} for ratio in ratios]
    save({"title": title, "notes": list(notes), "ratios": results, "environment": where}, output)


def save(results: Mapping[str, Any], output: Path | None) -> None:
    """Writes the results as JSON if a file is given."""
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(results, indent=2) + "\n")


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligns rows of text in columns: the first column left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, *others = widths
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(w) for cell, w in zip(row[1:], others, strict=True))]).rstrip()
        for row in rows
    ]


def _row(ratio: Ratio) -> list[str]:
    bar = "" if ratio.bar is None else f"{'≥' if ratio.at_least else '≤'} {ratio.bar:.2f}"
    verdict = {None: "", True: "holds", False: "MISSED"}[ratio.holds]
    span = f"{ratio.lowest:.3f}-{ratio.highest:.3f}"
    numbers = [f"{ratio.ours:.3f}", f"{ratio.theirs:.3f}", f"{ratio.ratio:.3f}"]
    return [ratio.name, ratio.unit, *numbers, span, str(ratio.rounds), bar, verdict]
