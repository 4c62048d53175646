"""The command `lr_range`: runs a learning-rate range test, writes its files and prints its suggestion."""

from collections.abc import Iterator
from pathlib import Path

from jaxtrain.commands.options import Options, command, join, use_a_host_device_per_core
from jaxtrain.config.defaults import Config
from jaxtrain.files import list_directory
from jaxtrain.lr_range.from_config import check, demand_places, run_range_test, write
from jaxtrain.lr_range.rules import Reading
from jaxtrain.lr_range.sweep import LRRangeResult
from jaxtrain.storage.locks import run_lock
from jaxtrain.training.checks import explain_traced_floats
from jaxtrain.training.experiment import build

ALL_DIVERGED = "every lane diverged: lower lr_range.start and lr_range.stop"


def run(options: Options) -> int:
    """Runs the range test; returns 0, or 4 if every lane diverged."""
    use_a_host_device_per_core()
    config, workdir = options.resolve()
    from jaxtrain.parallel.compilation import use_persistent_cache

    use_persistent_cache()
    result = lr_range(config, workdir)
    kept = {k: v for k, v in options.overrides.items() if not k.startswith("lr_range.") and k != result.target}
    chosen = [f"--config={options.config}", *(f"--config.{key}={value}" for key, value in kept.items())]
    options.show(lr_range_report(result, chosen, workdir), "" if result.reading else ALL_DIVERGED)
    return 0 if result.status == "done" else 4


def lr_range(config: Config, workdir: str | Path) -> LRRangeResult:
    """Runs the range test of a resolved config and writes result, curve and picture to `lr_range/` in the directory.

    Raises ConfigError for a range or a float that cannot be tested. If every lane diverged, `result.status` says so.
    """
    check(config)
    workdir = Path(workdir)
    with run_lock(workdir), explain_traced_floats(config):
        experiment = build(config, lanes=True)
        demand_places(workdir / "lr_range")
        result = run_range_test(experiment)
        write(result, config, workdir / "lr_range")
    return result


def lr_range_report(result: LRRangeResult, arguments: list[str], workdir: Path) -> list[str]:
    """Formats the output of `lr_range`: each rule's rate, the suggestion, the files, and the command that trains.

    `arguments` are the options that select the config: the file and its overrides.
    """
    rates, seeds = result.losses.shape
    lines = [f"{result.status}: {rates} rates of {result.target} by {result.method}, {seeds} seeds"]
    lines += _reading_lines(result.reading) if result.reading else [f"  {ALL_DIVERGED}"]
    folder = workdir / "lr_range"
    lines.append(f"wrote {folder}/: {', '.join(list_directory(folder))}")
    if result.suggestion is not None:
        chosen = [*arguments, f"--config.{result.target}={result.suggestion:.3g}"]
        lines += ["next:", f"  {command()} {join(chosen)}"]
    return lines


def _reading_lines(reading: Reading) -> Iterator[str]:
    for name, rate in reading.rules.items():
        yield f"  {name:<14}{rate:.3g}"
    if reading.suggestion is not None and reading.band and reading.falling:
        yield f"  suggestion {reading.suggestion:.3g}, across seeds {reading.band[0]:.3g} to {reading.band[1]:.3g}"
        yield f"  the loss falls from {reading.falling[0]:.3g} to {reading.falling[1]:.3g}"
    yield f"  unstable from {reading.unstable:.3g}" if reading.unstable else "  stable over the whole range"
    if not reading.rules:
        yield "  too few rates have a finite loss: lower lr_range.stop"
    elif not reading.agreed:
        yield "  agreed: false. The rules disagree or the loss does not fall: check the picture before training"
