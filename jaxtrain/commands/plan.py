"""The command `plan`: reports what a config takes before it is trained, and draws its schedules."""

import math
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxtrain.commands.options import Options, command, use_a_host_device_per_core
from jaxtrain.storage.files import make_directory, storage_error
from jaxtrain.storage.ownership import demand_own
from jaxtrain.trackers.figures import drawn
from jaxtrain.training.memory_plan import MAX_LANES
from jaxtrain.training.plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def run(options: Options) -> int:
    """Plans the config, and writes the picture of its schedules where it has any."""
    config, workdir = options.resolve()
    if config["train"]["seeds"] > 1:
        use_a_host_device_per_core()
    from jaxtrain.parallel.compilation import use_persistent_cache
    from jaxtrain.training.plan import plan

    use_persistent_cache()
    # In a directory that was asked for; else beside the one that training would make, which this must not make.
    picture = workdir / "plan.png" if options.workdir else workdir.with_name(f"{workdir.name}-plan.png")
    if options.workdir:
        demand_own(workdir, config)
    found = plan(config)
    if found.curves.values:
        draw_schedules(found, picture)
    options.show(plan_report(found, picture, options.again()))
    return 0


def draw_schedules(found: Plan, picture: Path) -> None:
    """Draws the schedules of a plan into a PNG file; StorageError where it cannot be written."""
    png = drawn(plot_schedules(found.curves.steps, found.curves.values, found.steps_per_epoch)).png
    make_directory(picture.parent)
    try:
        picture.write_bytes(png)
    except OSError as error:
        raise storage_error(picture, "written", error) from error


def plot_schedules(steps: np.ndarray, values: Mapping[str, np.ndarray], steps_per_epoch: float) -> "Figure":
    """Draws what each scheduled float is at each step, a panel each, over steps and, along the upper edge, epochs."""
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


def plan_report(found: Plan, picture: Path, arguments: list[str]) -> list[str]:
    """Returns what `plan` prints; `arguments` are those that chose the config and the directory."""
    devices = f"{found.devices} device{'s' if found.devices > 1 else ''} ({found.device})"
    each = f", {found.seeds} seeds" if found.seeds > 1 else ""
    modules = ", ".join(f"{name} {count:,}" for name, count in found.parameters.items())
    lines = [
        f"{found.steps:,} steps of {found.batch:,} examples, {found.epochs:.4g} epochs{each}, on {devices}",
        f"  parameters     {sum(found.parameters.values()):,}: {modules}",
        f"  work           {_work(found)}",
        *_memory_lines(found),
        f"  time           {_time(found)}",
        f"  largest batch  {_up_to(found.largest_batch, found.batch_cap, '(the whole training split)')}",
        f"  lanes          {_up_to(found.lanes, MAX_LANES, 'or more')} fit",
    ]
    names = ", ".join(found.curves.values)
    lines.append(f"wrote {picture}: {names}" if names else "nothing is scheduled, so there is no picture")
    if found.timing is None:
        return [*lines, "it does not fit in memory: take a smaller model or batch, or more devices"]
    return [*lines, "next:", f"  {command()} {shlex.join(arguments)}"]


NOT_SAID = "the compiler of this backend does not say"


def _work(found: Plan) -> str:
    if found.flops is None:
        return NOT_SAID
    each = " for each seed" if found.seeds > 1 else ""
    return f"{_scaled(found.flops)}FLOP a step, {_scaled(found.flops * found.steps_per_epoch)}FLOP an epoch{each}"


def _memory_lines(found: Plan) -> Iterator[str]:
    if found.memory is None or found.total_memory is None:
        yield f"  memory         {NOT_SAID}"
        return
    total, limit = _bytes(found.total_memory), _bytes(found.limit)
    yield f"  memory         {total} on each device, of {limit} that may be planned for"
    yield from (f"    {_bytes(size):>10}   {kind}" for kind, size in found.memory.items() if size)


def _time(found: Plan) -> str:
    if found.timing is None or found.epoch_seconds is None:
        return "not measured, since it does not fit in memory"
    steps, evaluations = found.epoch_seconds
    return (
        f"{_seconds(steps + evaluations)} an epoch ({evaluations / (steps + evaluations):.0%} of it evaluations), "
        f"{_seconds((steps + evaluations) * found.epochs)} in all, by steps of {_seconds(found.timing.step)}; "
        f"{_seconds(found.timing.compilation)} of compilation"
    )


def _up_to(count: int | None, cap: int, words: str) -> str:
    if count is None:
        return NOT_SAID
    return f"{count:,}{' ' + words if count == cap else ''}" if count else "none"


def _scaled(number: float) -> str:
    """Writes a number with the prefix of its thousands: 18.4 M."""
    number = float(f"{number:.3g}")  # 999,999 is 1 M, not 1,000 k
    power = min(int(math.log10(max(number, 1.0)) // 3), 6)
    return f"{number / 1000**power:.3g} {' kMGTPE'[power].strip()}"


def _bytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.2f} MiB"


def _seconds(seconds: float) -> str:
    if seconds >= 120:
        return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
    return f"{seconds:.3g} s" if seconds >= 0.9995 else f"{1e3 * seconds:.3g} ms"
