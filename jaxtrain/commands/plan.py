"""The command `plan`: estimates size, memory and time of a config before training, and plots its schedules."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtrain.commands.options import Options, command, join, use_a_host_device_per_core
from jaxtrain.config.defaults import Config
from jaxtrain.files import demand_writable, make_directory, write_bytes
from jaxtrain.storage.ownership import demand_own, read_owner
from jaxtrain.trackers.figures import render
from jaxtrain.training.memory_plan import MAX_LANES
from jaxtrain.training.plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def run(options: Options) -> int:
    """Plans the config, and writes a picture of its schedules if it has any; returns 0."""
    config, workdir = options.resolve()
    if config["train"]["seeds"] > 1:
        use_a_host_device_per_core()
    from jaxtrain.parallel.compilation import use_persistent_cache
    from jaxtrain.training.plan import plan

    use_persistent_cache()
    # Without --workdir the picture goes beside the default directory, which only training creates.
    picture = workdir / "plan.png" if options.workdir else workdir.with_name(f"{workdir.name}-plan.png")
    if options.workdir:
        demand_own(workdir, config, read_owner(workdir))
    if config["schedule"]:
        demand_writable(picture)
    planned = plan(config)
    if planned.curves.values:
        draw_schedules(planned, picture)
    options.show([*_search_lines(config, planned), *plan_report(planned, picture, options.again())])
    options.document.show(plan_document(planned, picture))
    return 0


def plan_document(planned: Plan, picture: Path) -> dict[str, Any]:
    """Returns what `plan` tells programs: all but the values of the schedules, which the picture shows."""
    steps, evaluations = planned.epoch_seconds or (None, None)
    return {
        **{name: value for name, value in asdict(planned).items() if name != "curves"},
        "fits": planned.timing is not None,
        "total_memory": planned.total_memory,
        "epochs": planned.epochs,
        "epoch_seconds": {"steps": steps, "evaluations": evaluations},
        "scheduled": list(planned.curves.values),
        "picture": str(picture) if planned.curves.values else None,
    }


def draw_schedules(planned: Plan, picture: Path) -> None:
    """Writes the schedules of a plan to a PNG file. Raises StorageError if it cannot be written."""
    png = render(plot_schedules(planned.curves.steps, planned.curves.values, planned.steps_per_epoch)).png
    make_directory(picture.parent)
    write_bytes(picture, png)


def plot_schedules(steps: np.ndarray, values: Mapping[str, np.ndarray], steps_per_epoch: float) -> "Figure":
    """Plots each scheduled float in its own panel over steps, with epochs on a secondary axis at the top."""
    from matplotlib.figure import Figure

    columns = 1 if len(values) <= 3 else 2
    lines = -(-len(values) // columns)
    figure = Figure(
        figsize=(8.5 if columns == 1 else 13, 1.0 + (2.6 if lines > 1 else 4.0) * lines), layout="constrained"
    )
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True)
    for axes, (name, curve) in zip(panels.ravel(), values.items(), strict=False):
        axes.plot(steps, curve, color="tab:blue", linewidth=1.8, marker="o" if len(steps) == 1 else None)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.set_title(name, loc="left", fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels.ravel()[len(values) :]:
        axes.remove()
    for axes in panels[0]:
        _in_epochs(axes, steps_per_epoch)
    for column in range(columns):
        last = panels[(len(values) - 1 - column) // columns][column]
        last.set_xlabel("step")
        last.tick_params(labelbottom=True)
    return figure


def _in_epochs(axes: "Axes", steps_per_epoch: float) -> None:
    upper = axes.secondary_xaxis(
        "top",
        functions=(lambda step: np.divide(step, steps_per_epoch), lambda epoch: np.multiply(epoch, steps_per_epoch)),
    )
    upper.set_xlabel("epoch")


def plan_report(planned: Plan, picture: Path, arguments: list[str]) -> list[str]:
    """Formats the output of `plan`; `arguments` are the options that select the config and the directory."""
    devices = f"{planned.devices} device{'s' if planned.devices > 1 else ''} ({planned.device})"
    each = f", {planned.seeds} seeds" if planned.seeds > 1 else ""
    modules = ", ".join(f"{name} {count:,}" for name, count in planned.parameters.items())
    frozen = f" ({planned.frozen:,} frozen)" if planned.frozen else ""
    lines = [
        f"{planned.steps:,} steps of {planned.batch:,} examples, {planned.epochs:.4g} epochs{each}, on {devices}",
        *([f"  begins         at step {planned.begin:,} of the run that it continues"] if planned.begin else []),
        *([f"  duration       {planned.timed}"] if planned.timed else []),
        f"  parameters     {sum(planned.parameters.values()):,}{frozen}: {modules}",
        f"  work           {_work(planned)}",
        *_memory_lines(planned),
        f"  divergence     {_guard(planned)}",
        f"  time           {_time(planned)}",
        f"  largest batch  {_up_to(planned.largest_batch, planned.batch_cap, '(the whole training split)')}",
        f"  lanes          {_up_to(planned.lanes, MAX_LANES, 'or more')} fit",
    ]
    names = ", ".join(planned.curves.values)
    lines.append(f"wrote {picture}: {names}" if names else "no picture: nothing is scheduled")
    if planned.timing is None:
        return [*lines, "does not fit in memory: use a smaller model or batch, or more devices"]
    return [*lines, "next:", f"  {command()} {join(arguments)}"]


def _search_lines(config: Config, planned: Plan) -> list[str]:
    """Says how many programs a search of the config needs, or what `search.budget` buys."""
    if config["search"]["budget"] is None and not config["search"]["space"]:
        return []
    if config["search"]["budget"] is None:
        from jaxtrain.search.budget import with_trials
        from jaxtrain.search.samplers import number_of_trials
        from jaxtrain.search.shapes import shapes_line
        from jaxtrain.search.space import read_space

        space = read_space(with_trials(config))
        trials = number_of_trials(space)
        return [f"a search of {trials:,} trials, {shapes_line(space, trials)}"]
    from jaxtrain.search.budget import describe_purchase

    seconds = None if planned.epoch_seconds is None else sum(planned.epoch_seconds) * planned.epochs
    return [f"a search by search.budget, {describe_purchase(config, seconds)}"]


NOT_REPORTED = "not reported by the compiler of this backend"


def _work(planned: Plan) -> str:
    each = " for each seed" if planned.seeds > 1 else ""
    step = _with_prefix(planned.flops)
    epoch = _with_prefix(planned.flops * planned.steps_per_epoch)
    return f"{step}FLOP per step, {epoch}FLOP per epoch{each}"


def _guard(planned: Plan) -> str:
    if planned.guards_steps:
        return "judged in each step, before its update is kept: the state is large, and calls hold no copy of it"
    return "judged once a call, which holds a copy of the state and goes back to it"


def _memory_lines(planned: Plan) -> Iterator[str]:
    if planned.memory is None or planned.total_memory is None:
        yield f"  memory         {NOT_REPORTED}"
        return
    total = _bytes(planned.total_memory)
    limit = _bytes(planned.limit)
    yield f"  memory         {total} per device, of {limit} available"
    yield from (f"    {_bytes(size):>10}   {kind}" for kind, size in planned.memory.items() if size)


def _time(planned: Plan) -> str:
    if planned.timing is None or planned.epoch_seconds is None:
        return "not measured: does not fit in memory"
    steps, evaluations = planned.epoch_seconds
    return (
        f"{_seconds(steps + evaluations)} per epoch ({evaluations / (steps + evaluations):.0%} of it evaluation), "
        f"{_seconds((steps + evaluations) * planned.epochs_left)} in total, "
        f"from {_seconds(planned.timing.step)} per step; "
        f"{_seconds(planned.timing.compilation)} of compilation"
    )


def _up_to(count: int | None, cap: int, words: str) -> str:
    if count is None:
        return NOT_REPORTED
    return f"{count:,}{' ' + words if count == cap else ''}" if count else "none"


def _with_prefix(number: float) -> str:
    """Formats a number with an SI prefix: 18.4 M."""
    number = float(f"{number:.3g}")  # 999,999 is 1 M, not 1,000 k
    power = min(int(math.log10(max(number, 1.0)) // 3), 6)
    return f"{number / 1000**power:.3g} {' kMGTPE'[power].strip()}"


def _bytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.2f} MiB"


def _seconds(seconds: float) -> str:
    if seconds >= 120:
        return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
    return f"{seconds:.3g} s" if seconds >= 0.9995 else f"{1e3 * seconds:.3g} ms"
