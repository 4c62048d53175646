"""The command `compare`: a table of finished runs, what differs in their configs, and a picture of their curves."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jaxtrain.commands.options import Options
from jaxtrain.files import demand_writable, make_directory, write_bytes
from jaxtrain.reports.comparison import Comparison, compare_runs
from jaxtrain.reports.comparison_document import comparison_document
from jaxtrain.reports.comparison_picture import draw_comparison
from jaxtrain.reports.differences import Difference
from jaxtrain.reports.figures import format_value
from jaxtrain.reports.saved_runs import SavedRun
from jaxtrain.reports.seed_groups import SeedGroup
from jaxtrain.trackers.figures import render
from jaxtrain.training.intervals import Interval

DPI = 96
"""Pixels of an inch of the picture, which is wide."""

MOST_ROWS = 40
MOST_KEYS = 8
MOST_LEFT_OUT = 20


def run(options: Options) -> int:
    """Compares the runs in the folders that are named; returns 0."""
    found = compare_runs(options.words, options.metric, options.sort or "best")
    picture = Path(options.output) if options.output else found.folder / "comparison.png"
    demand_writable(picture)
    make_directory(picture.parent)
    write_bytes(picture, render(draw_comparison(found), DPI).png)
    options.show([*comparison_report(found), f"wrote {picture}: the curves"])
    options.document.show({**comparison_document(found), "picture": str(picture)})
    return 0


def comparison_report(found: Comparison) -> list[str]:
    """Formats the output of `compare`."""
    better = "higher" if found.higher_is_better else "lower"
    where = {"best": "at the best evaluation", "last": "at the end", "test": "on test"}[found.state]
    configs = _count(len(found.groups), "config")
    lines = [f"{configs} in {_count(len(found.runs), 'run')}, by {found.metric} {where} ({better} is better)"]
    lines += [
        f"  {line}" for line in _table([_heads(found), *(_row(found, group) for group in found.groups[:MOST_ROWS])])
    ]
    lines += _more(len(found.groups) - MOST_ROWS, "configs; --json has all")
    lines += _key_lines(found)
    lines += _difference_lines(found)
    lines += _environment_lines(found)
    lines += [f"{found.name_of(run)}: repeats the seeds of another run of its config" for run in _repeated(found)]
    if found.left_out:
        lines.append(f"left out: {len(found.left_out):,}")
        lines += [f"  {own.workdir}: {own.why}: {own.reason}" for own in found.left_out[:MOST_LEFT_OUT]]
        lines += _more(len(found.left_out) - MOST_LEFT_OUT, "left out; --json has all")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _more(count: int, what: str) -> list[str]:
    return [f"  and {count:,} more {what}"] if count > 0 else []


def _repeated(found: Comparison) -> Iterator[SavedRun]:
    for group in found.groups:
        yield from group.repeated


def _heads(found: Comparison) -> list[str]:
    values = [f"{state} {found.metric}" for state in found.states]
    units = {group.unit for group in found.groups}
    over = "seeds" if units == {"seed"} else "folds" if units == {"fold"} else "seeds or folds"
    keys = [found.short_name(key) for key in found.shown_keys[:MOST_KEYS]]
    return ["run", *keys, over, *values, "steps", "seconds", "examples/s"]


def _row(found: Comparison, group: SeedGroup) -> list[str]:
    settings = [
        format_value(group.settings[key]) if key in group.settings else "-" for key in found.shown_keys[:MOST_KEYS]
    ]
    values = [_spread(group.spread(state, found.metric)) for state in found.states]
    lost = f" ({len(group.diverged)} diverged)" if group.diverged else ""
    numbers = [f"{group.steps:,.0f}", f"{group.seconds:,.1f}", f"{group.speed('examples_per_second'):,.0f}"]
    return [found.name_of_group(group), *settings, f"{len(group.numbers)}{lost}", *values, *numbers]


def _spread(spread: Interval | None) -> str:
    if spread is None:
        return "-"
    if math.isnan(spread.low):
        return f"{spread.mean:.4g}"
    return f"{spread.mean:.4g} ({spread.low:.4g} to {spread.high:.4g})"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _key_lines(found: Comparison) -> Iterator[str]:
    if len(found.shown_keys) > MOST_KEYS:
        yield f"more keys that differ: {', '.join(found.shown_keys[MOST_KEYS:])}"
    if found.other_keys:
        yield f"also differ, without an effect on the numbers: {', '.join(found.other_keys)}"


def _difference_lines(found: Comparison) -> Iterator[str]:
    """Says how each group differs from the best, with 95 % intervals."""
    best = found.reference
    columns = {state: found.differences(state) for state in found.states if state != "last" or found.state == "last"}
    if best is None or not any(own for column in columns.values() for own in column):
        return
    yield f"difference from {found.name_of_group(best)}, with 95 % intervals:"
    rows = [["run", *(f"{state} {found.metric}" for state in columns)]]
    for number, group in enumerate(found.groups[:MOST_ROWS]):
        if any(column[number] for column in columns.values()):
            rows.append([found.name_of_group(group), *(_difference(column[number]) for column in columns.values())])
    yield from (f"  {line}" for line in _table(rows))


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    spread = difference.spread
    bounds = "" if math.isnan(spread.low) else f" ({spread.low:+.3g} to {spread.high:+.3g})"
    verdict = "one seed tells no interval" if difference.verdict == "unknown" else difference.verdict
    lost = f", {abs(difference.lost)} {'more' if difference.lost > 0 else 'fewer'} diverged" if difference.lost else ""
    how = f"paired by {difference.seeds}" if difference.paired else f"{difference.seeds} unpaired"
    return f"{spread.mean:+.3g}{bounds} {verdict}{lost}, {how}"


def _environment_lines(found: Comparison) -> Iterator[str]:
    if found.environments:
        yield "differ outside of the config:"
    for key, values in found.environments.items():
        shown = "; ".join(f"{value}: {_names(names)}" for value, names in values.items())
        yield f"  {key}: {shown}"


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
