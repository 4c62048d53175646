"""What a verb says at its end: how it went, every file that it wrote, and the command that usually comes next."""

import math
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxtrain.footprint import LANES
from jaxtrain.lr_range import LRRangeResult
from jaxtrain.plan import Plan
from jaxtrain.result import Result
from jaxtrain.search.report.headline import sentences, title
from jaxtrain.search.study import SearchResult
from jaxtrain.suggestions import Reading
from jaxtrain.trackers.base import in_lines


def command() -> str:
    """Returns the command in a form that can be pasted: with the Python on the path, else with that which runs now."""
    running, found = Path(sys.executable), shutil.which("python")
    if found and Path(found) == running:
        return "python -m jaxtrain.main"
    shown = running.relative_to(Path.cwd()) if running.is_relative_to(Path.cwd()) else running
    return f"{shlex.quote(str(shown))} -m jaxtrain.main"


def train_report(result: Result, workdir: Path) -> list[str]:
    """Returns the last lines of `train`."""
    lines = [f"{result.status} at step {result.step:,} after {result.seconds:.1f} s of training" + _because(result)]
    lines += _numbers(result)
    speed = result.throughput
    lines.append(
        f"speed: {speed['examples_per_second']:,.0f} examples/s, {speed['milliseconds_per_step']:.3g} ms/step, "
        f"{speed['compile_seconds']:.1f} s of compilation, {speed['data_wait_share']:.1%} of the time waiting for data"
    )
    lines += [f"wrote {workdir}/:", *_files(workdir)]
    return [*lines, "next:", *(f"  {line}" for line in _next(result, workdir))]


def lr_range_report(result: LRRangeResult, arguments: list[str], workdir: Path) -> list[str]:
    """Returns what `lr_range` prints: the rules' rates, what the curve says, the files, the command that trains.

    `arguments` are those that chose the config: the file, and what overrode it.
    """
    rates, seeds = result.losses.shape
    lines = [f"{result.status}: {rates} rates of {result.target} by {result.method}, {seeds} seeds"]
    lines += _reading_lines(result.reading) if result.reading else [f"  {ALL_DIVERGED}"]
    folder = workdir / "lr_range"
    lines.append(f"wrote {folder}/: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    if result.suggestion is not None:
        chosen = [*arguments, f"--config.{result.target}={result.suggestion:.3g}"]
        lines += ["next:", f"  {command()} {shlex.join(chosen)}"]
    return lines


ALL_DIVERGED = "every lane diverged: lower lr_range.start and lr_range.stop"


def _reading_lines(reading: Reading) -> Iterator[str]:
    for name, rate in reading.rules.items():
        yield f"  {name:<14}{rate:.3g}"
    if reading.suggestion is not None and reading.band and reading.falling:
        yield f"  suggestion {reading.suggestion:.3g}, over seeds {reading.band[0]:.3g} to {reading.band[1]:.3g}"
        yield f"  the loss falls from {reading.falling[0]:.3g} to {reading.falling[1]:.3g}"
    yield f"  unstable from {reading.unstable:.3g}" if reading.unstable else "  not unstable within the range"
    if not reading.rules:
        yield "  too few rates stayed finite for a curve: lower lr_range.stop"
    elif not reading.agreed:
        yield "  agreed: false. The rules disagree, or nothing falls: look at the picture before you train"


def search_report(result: SearchResult, arguments: list[str]) -> list[str]:
    """Returns what `search` prints at its end; `arguments` are those that chose the config."""
    found, folder = result.findings, result.folder
    counts = Counter(outcome.status for outcome in found.outcomes)
    told = ", ".join(f"{counts[status]} {status}" for status in ("done", "stopped", "diverged") if counts[status])
    lines = [f"{result.status}: {len(found.outcomes)} trials ({told or 'none ended'}) in {found.seconds:.1f} s"]
    if result.status == "interrupted":
        return [*lines, "next:", f"  {command()} search {shlex.join(arguments)}   # goes on where it stopped"]
    lines += [f"  {title(found)}", *(f"  {sentence}" for sentence in sentences(found)[1:])]
    lines += [] if found.best else [f"  {NOTHING_LEFT}"]
    lines += [f"wrote {folder}/:", *(f"  {name:<24}{what}" for name, what in SEARCH_FILES if (folder / name).exists())]
    if found.best:
        lines += ["next:", f"  {command()} --config={shlex.quote(str(folder / 'best_config.json'))}"]
    return lines


NOTHING_LEFT = "every trial diverged: lower the rates of search.space, or clip the gradients (optimizer.clip_norm)"

SEARCH_FILES = (
    ("report.html", "trials, pictures and the comparison: opens offline in a browser"),
    ("best_config.json", "the config of the best trial"),
    ("trials.jsonl", "a line for each trial"),
    ("result.json", "the best, its ties, the comparison"),
    ("comparison.json", "the best and the config's own values on further seeds"),
    ("pictures", "the report's pictures as PNG"),
    ("tensorboard", "the table of hyperparameters for TensorBoard"),
)


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
        f"  lanes          {_up_to(found.lanes, LANES, 'or more')} fit",
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


def evaluation_report(found: Mapping[str, Any], workdir: Path) -> list[str]:
    """Returns what `evaluate` prints."""
    lines = [f"step {found['step']:,} of {workdir}"]
    lines += [f"  {split:<11}{_shown(_readable(numbers))}" for split, numbers in found.items() if split != "step"]
    return [*lines, f"wrote {workdir}/evaluation.json"]


def _because(result: Result) -> str:
    return f": {result.reason}" if result.reason else ""


def _numbers(result: Result) -> Iterator[str]:
    for split, numbers in result.last.items():
        yield f"  {split:<11}{_shown(_readable(numbers))}"
    if result.best:
        best = result.best
        yield f"  best       {best['metric']} {best['value']:.4g} on validation at step {best['step']:,}"
    if result.test:
        yield f"  test       {_shown(_readable(result.test))} with the state of step {result.test['step']:,}"
    if result.seeds:
        yield from _seed_lines(result.seeds)


def _readable(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out the step, what is read as curves, and the values of schedules."""
    return {n: v for n, v in numbers.items() if n != "step" and "." not in n and in_lines(n)}


def _seed_lines(seeds: Mapping[str, Any]) -> Iterator[str]:
    yield "over seeds: mean, spread, 95 % interval of the mean"
    for split, found in seeds.items():
        shown = {name: spread for name, spread in found.items() if split != "diverged" and in_lines(name)}
        for name, spread in shown.items():
            mean, std, low, high = (_number(spread[part]) for part in ("mean", "std", "low", "high"))
            yield f"  {split:<11}{name:<10} {mean}  {std}  {low} to {high}"
    for seed, step in seeds["diverged"].items():
        yield f"  seed {seed} diverged after step {step}"


def _shown(numbers: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {_number(value)}" for name, value in numbers.items())


def _number(value: float | None) -> str:
    """Writes a number; what is not finite stands as null in result.json."""
    return "nan" if value is None else format(value, ".4g")


def _files(workdir: Path) -> Iterator[str]:
    """Yields what lies in a run's directory, with what it is for."""
    purposes = {
        "config.json": "the resolved config",
        "config_difference.json": "what differs from the default config",
        "environment.json": "versions, devices, commit, fingerprint of the data",
        "metrics.jsonl": "a row for each step that was logged or evaluated",
        "result.json": "how the run ended",
        "checkpoints": "saved states: the newest and the best",
    }
    for name, purpose in purposes.items():
        if (workdir / name).exists():
            yield f"  {name:<24}{purpose}"
    if any(workdir.glob("events.*")):
        yield f"  {'events.*':<24}the same for TensorBoard"


def _next(result: Result, workdir: Path) -> Iterator[str]:
    folder, config = shlex.quote(str(workdir)), shlex.quote(str(workdir / "config.json"))
    if result.status == "interrupted":
        yield f"{command()} --config={config} --workdir={folder}   # goes on where it stopped"
        return
    if result.status == "diverged":
        yield f"{command()} lr_range --config={config} --workdir={folder}   # finds a rate"
    if result.status == "done":
        yield f"{command()} evaluate --workdir={folder}"
    yield f"tensorboard --logdir={folder}   # after: pip install tensorboard"
