"""The charts of a run: metrics, the values that its steps applied, norms, speed, and its steps against time."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxtrain.core.metric_names import DIAGNOSTICS, NORMS
from jaxtrain.reports.chart_lines import Chart, Line, lines_of
from jaxtrain.reports.figures import COLOURS
from jaxtrain.reports.saved_runs import SavedRun
from jaxtrain.trackers.base import ROW_KEYS, Row
from jaxtrain.trackers.picture_files import Exhibit

MOST_LINES = 14
"""Lines of one chart; more layers are left out, and lie in metrics.jsonl."""

SPLITS = {
    "train": ("training", COLOURS[0], "solid", None),
    "validation": ("validation", COLOURS[1], (0, (5, 1.6)), "o"),
}
"""Split -> its name in charts, colour, dashes and marker: told apart without colours, too."""

Points = tuple[list[int], list[float]]


class Measure(NamedTuple):
    """A number of performance: the title of its chart, its unit, and the factor to that unit."""

    title: str
    unit: str
    factor: float = 1.0


PERFORMANCE = {
    "examples_per_second": Measure("Speed", "examples/s"),
    "milliseconds_per_step": Measure("Time of a step", "ms"),
    "data_wait_share": Measure("Waiting for data", "% of the time", 100.0),
    "device_memory_bytes": Measure("Memory in use on the device", "MiB", 2.0**-20),
    "device_memory_peak_bytes": Measure("Most memory in use on the device", "MiB", 2.0**-20),
    "flops_per_second": Measure("Arithmetic", "GFLOP/s", 1e-9),
    "model_flops_utilisation": Measure("Use of the device", "% of its peak", 100.0),
}


def metric_charts(run: SavedRun) -> Iterator[Chart]:
    """Yields a chart of each metric, the loss first, with training and validation, and the best step marked."""
    names = {name for row in run.rows for name in row if _is_metric(name)}
    for name in sorted(names, key=lambda own: (own != "loss", own != run.metric, own)):
        lines = [line for split in SPLITS for line in _split_lines(run, split, name)]
        tested = [row for row in run.rows if row["split"] == "test" and _is_finite(row.get(name))]
        if tested:
            last = tested[-1]
            lines.append(Line("test", [last["step"]], [last[name]], COLOURS[-1], marker="*"))
        if lines:
            chooses = ", by which the best step is chosen" if name == run.metric else ""
            title = f"{name}{chooses}"
            yield Chart(f"metric_{name}", title, name, tuple(lines), marks_of(run), spans=name == "loss")


def marks_of(run: SavedRun) -> dict[str, int]:
    """Returns label -> step of what is marked in the charts of metrics."""
    marks = {} if run.best_step is None else {"best": run.best_step}
    if run.result is not None and run.result.status == "diverged":
        marks["diverged"] = run.result.step
    return marks


def applied_charts(run: SavedRun) -> Iterator[Chart]:
    """Yields a chart of each value that the steps applied and that changed over the run."""
    for name, (steps, values) in _applied(run).items():
        if min(values) != max(values):
            yield Chart(f"applied_{name}", name, name.rpartition(".")[2], (Line(name, steps, values, COLOURS[0]),))


def constant_values(run: SavedRun) -> dict[str, float]:
    """Returns the values that the steps applied and that stayed as they were."""
    return {name: values[0] for name, (_, values) in _applied(run).items() if min(values) == max(values)}


def norm_charts(run: SavedRun) -> Iterator[Chart]:
    """Yields a chart of the norms of gradient, parameters and update, and one of each kind of norm by layer."""
    rows = _rows(run, "train")
    found = {name: points_of(rows, name) for row in rows for name in row if name.startswith(NORMS)}
    whole = {name.removeprefix(NORMS): points for name, points in found.items() if "/" not in name and points[0]}
    if whole:
        yield Chart("norms", "Norms (L2, on the last step of a call)", "norm", lines_of(whole), spans=True)
    for kind in sorted({name.partition("/")[0] for name in found if "/" in name}):
        layers = {name.partition("/")[2]: own for name, own in found.items() if name.startswith(f"{kind}/") and own[0]}
        shown = dict(list(layers.items())[:MOST_LINES])
        told = f", the first {MOST_LINES} of {len(layers)}" if len(layers) > MOST_LINES else ""
        title = kind.removeprefix(NORMS).replace("_", " ").capitalize() + told
        yield Chart(kind, title, "norm", lines_of(shown), spans=True)


def performance_charts(run: SavedRun, exhibits: Iterable[Exhibit]) -> Iterator[Chart]:
    """Yields a chart of each number of performance that was recorded, and one of the steps against time."""
    rows = [{"step": own["step"], **own["values"]} for own in exhibits if own["kind"] == "performance"]
    for name, (title, unit, factor) in PERFORMANCE.items():
        steps, values = points_of(rows, name)
        if len(steps) > 1:
            line = Line(name, steps, [factor * value for value in values], COLOURS[0])
            yield Chart(name, title, unit, (line,), from_zero=True)
    timed = sorted((row["time"], row["step"]) for row in run.rows if "time" in row and row["split"] != "test")
    if len(timed) > 1 and timed[-1][0] > timed[0][0]:
        unit, seconds = _unit_of_time(timed[-1][0] - timed[0][0])
        times = [(time - timed[0][0]) / seconds for time, _ in timed]
        line = Line("steps", times, [step for _, step in timed], COLOURS[0])  # pyright: ignore[reportArgumentType]
        yield Chart("progress", "Progress", "step", (line,), x_label=f"time since the first row [{unit}]")


def points_of(rows: Sequence[Mapping[str, Any]], name: str) -> Points:
    """Returns the steps and values of a name, where it is a finite number."""
    points = [(row["step"], row[name]) for row in rows if _is_finite(row.get(name))]
    return [step for step, _ in points], [value for _, value in points]


def _split_lines(run: SavedRun, split: str, name: str) -> Iterator[Line]:
    """Yields the line of a split, and before it thin ones of each seed or fold."""
    rows = _rows(run, split)
    title, colour, dashes, marker = SPLITS[split]
    for number in run.lane_numbers if run.lanes else ():
        steps, values = points_of(rows, f"{run.lanes}{number}/{name}")
        if steps:
            yield Line(f"{title} {number}", steps, values, colour, dashes, thin=True)
    steps, values = points_of(rows, name)
    if steps:
        mean = f", mean of {len(run.lane_numbers)} {run.unit}s" if run.lanes else ""
        yield Line(f"{title}{mean}", steps, values, colour, dashes, marker)


def _applied(run: SavedRun) -> dict[str, Points]:
    rows = _rows(run, "train")
    names = dict.fromkeys(name for row in rows for name in row if "." in name and not name.startswith(DIAGNOSTICS))
    found = {name: points_of(rows, name) for name in names}
    return {name: points for name, points in found.items() if points[0]}


def _rows(run: SavedRun, split: str) -> list[Row]:
    return [row for row in run.rows if row["split"] == split]


def _is_metric(name: str) -> bool:
    return name not in ROW_KEYS and not name.startswith(DIAGNOSTICS) and "." not in name and "/" not in name


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _unit_of_time(seconds: float) -> tuple[str, float]:
    if seconds < 180:
        return "s", 1.0
    return ("min", 60.0) if seconds < 3 * 3600 else ("h", 3600.0)
