"""The command `lr_range`: runs a learning-rate range test, writes its files and prints its suggestion."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxtrain.commands.options import Options, command, join, use_a_host_device_per_core
from jaxtrain.files import list_directory
from jaxtrain.lr_range.from_config import lr_range_test
from jaxtrain.lr_range.result import LRRangeResult

ALL_DIVERGED = "every lane diverged: lower lr_range.start and lr_range.stop"


def run(options: Options) -> int:
    """Runs the range test; returns 0, or 4 if every lane diverged."""
    use_a_host_device_per_core()
    config, workdir = options.resolve()
    from jaxtrain.parallel.compilation import use_persistent_cache

    use_persistent_cache()
    result = lr_range_test(config, workdir, quiet=options.quiet)
    tested = {result.target, *(result.second or ())[:1]}
    kept = {k: v for k, v in options.overrides.items() if not k.startswith("lr_range.") and k not in tested}
    chosen = [f"--config={options.config}", *(f"--config.{key}={value}" for key, value in kept.items())]
    options.show(lr_range_report(result, chosen, workdir), "" if result.reading else ALL_DIVERGED)
    options.document.show(lr_range_document(result, workdir))
    return 0 if result.status == "done" else 4


def lr_range_document(result: LRRangeResult, workdir: Path) -> dict[str, Any]:
    """Returns what `lr_range` tells programs."""
    folder = workdir / "lr_range"
    saved = result.to_json()
    kept = ("status", "method", "target", "suggestions", "total_steps", "description", "rows", "readings")
    return {
        **{key: saved[key] for key in kept},
        "second": {"name": result.second[0], "values": result.second[1]} if result.second else None,
        "row": result.row,
        "reliable": result.reliable,
        "files": [str(folder / name) for name in list_directory(folder)],
    }


def lr_range_report(result: LRRangeResult, arguments: list[str], workdir: Path) -> list[str]:
    """Formats the output of `lr_range`: the suggestion, each rule's rate, the files, and the command that trains.

    `arguments` are the options that select the config: the file and its overrides.
    """
    rates, seeds = result.curves[0].losses.shape
    lines = [f"{result.status}: {rates} rates of {result.target} by {result.method}, {seeds} seeds"]
    lines += _reading_lines(result) if result.reading else [f"  {ALL_DIVERGED}"]
    folder = workdir / "lr_range"
    lines.append(f"wrote {folder}/: {', '.join(list_directory(folder))}")
    if result.suggestions:
        chosen = [*arguments, *(f"--config.{name}={value:.3g}" for name, value in result.suggestions.items())]
        lines += ["next:", f"  {command()} {join(chosen)}"]
    return lines


def _reading_lines(result: LRRangeResult) -> Iterator[str]:
    reading = result.reading
    assert reading is not None
    if reading.suggestion is not None and reading.interval:
        low, high = reading.interval
        yield f"  suggestion    {reading.suggestion:.3g}; the best rate lies between {low:.3g} and {high:.3g} (90 %)"
    for name, value in list(result.suggestions.items())[1:]:
        yield f"  with {name} = {value:.3g}, the best of {len(result.rows)} values"
    for curve, best in zip(result.curves, reading.best, strict=False):
        yield f"  best of {curve.steps:,} steps: {best:.3g}"
    if reading.falling:
        yield f"  the loss falls from {reading.falling[0]:.3g} to {reading.falling[1]:.3g}"
    if reading.suggestion is not None:
        yield f"  unstable from {reading.unstable:.3g}" if reading.unstable else "  stable over the whole range"
    if reading.rules:
        yield "  other rules: " + ", ".join(f"{name} {rate:.3g}" for name, rate in reading.rules.items())
    if not reading.reliable:
        yield f"  not reliable: {reading.doubt}. Check the picture before training"
