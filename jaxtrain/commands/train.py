"""The command `train`: trains a config, or resumes the run in its directory."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jaxtrain.commands.options import Options, command, join, quote, use_a_host_device_per_core
from jaxtrain.commands.summary import format_number, format_numbers, select_readable
from jaxtrain.config.debug_modes import debug_modes
from jaxtrain.config.defaults import Config
from jaxtrain.config.seeds import lane_count
from jaxtrain.core.metric_names import is_printed
from jaxtrain.storage.result import Result
from jaxtrain.storage.run_files import list_run_files


def run(options: Options) -> int:
    """Trains or resumes the run; returns the exit code of its result."""
    config, workdir = options.resolve()
    if lane_count(config) > 1:
        use_a_host_device_per_core()
    from jaxtrain.parallel.compilation import use_persistent_cache
    from jaxtrain.training.train import train_and_evaluate

    use_persistent_cache()
    if debug_modes(config):
        return _debug(options, config, workdir)
    result = train_and_evaluate(
        config,
        workdir,
        quiet=options.quiet,
        accept_edited=options.accept_edited,
        began=options.began,
        profile=options.profile or 0,
    )
    options.show(train_report(result, workdir), result.reason if result.status == "diverged" else "")
    options.document.show(train_document(result, workdir))
    return result.exit_code


def _debug(options: Options, config: Config, workdir: Path) -> int:
    """Runs a debug mode; returns the exit code that the run would have had."""
    from jaxtrain.training.debugging.run import debug_run

    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        options.show([line])

    result = debug_run(config, workdir, say=say, quiet=options.quiet)
    words = [word for word in options.again() if not word.startswith("--config.debug.")]
    lines = [result.reason] if result.reason else []
    if result.status == "done":
        lines += ["next:", f"  {command()} {join(words)}"]
    options.show(lines, result.reason if result.status == "diverged" else "")
    options.document.show({**train_document(result, workdir), "said": said})
    return result.exit_code


def train_document(result: Result, workdir: Path) -> dict[str, Any]:
    """Returns what `train` tells programs."""
    return {"workdir": str(workdir), **asdict(result), "files": [name for name, _ in list_run_files(workdir)]}


def train_report(result: Result, workdir: Path) -> list[str]:
    """Formats the final lines of `train`."""
    lines = [f"{result.status} at step {result.step:,} after {result.seconds:.1f} s of training" + _reason(result)]
    if result.edited:
        lines.append(f"  accepted as changed by others: {', '.join(result.edited)}")
    if result.skipped:
        lines.append(f"  {result.skipped_in_words}")
    lines += _numbers(result)
    speed = result.throughput
    lines.append(
        f"speed: {speed['examples_per_second']:,.0f} examples/s, {result.step_in_words}/step, "
        f"{speed['compile_seconds']:.1f} s of compilation, {speed['data_wait_share']:.1%} of the time waiting for data"
    )
    lines += [f"wrote {workdir}/:", *(f"  {name:<24}{purpose}" for name, purpose in list_run_files(workdir))]
    return [*lines, "next:", *(f"  {line}" for line in _next_commands(result, workdir))]


def _reason(result: Result) -> str:
    return f": {result.reason}" if result.reason else ""


def _numbers(result: Result) -> Iterator[str]:
    for split, numbers in result.last.items():
        yield f"  {split:<11}{format_numbers(select_readable(numbers))}"
    if result.best:
        best = result.best
        yield f"  best       {best['metric']} {best['value']:.4g} on validation at step {best['step']:,}"
    if result.test:
        numbers = format_numbers(select_readable(result.test))
        yield f"  test       {numbers} with the state of step {result.test['step']:,}"
    if result.seeds:
        yield from _lane_lines(result.seeds, "seed")
    if result.folds:
        yield from _lane_lines(result.folds, "fold")


def _lane_lines(lanes: Mapping[str, Any], kind: str) -> Iterator[str]:
    yield f"across {kind}s: mean, standard deviation, 95 % interval of the mean"
    for split, metrics in lanes.items():
        spreads = {name: spread for name, spread in metrics.items() if split != "diverged" and is_printed(name)}
        most = max((len(spread["values"]) for spread in spreads.values()), default=0)
        for name, spread in spreads.items():
            mean, std, low, high = (format_number(spread[part]) for part in ("mean", "std", "low", "high"))
            count = len(spread["values"])
            missing = "" if count == most else f"  (undefined in {most - count} of {most} {kind}s)"
            yield f"  {split:<11}{name:<10} {mean}  {std}  {low} to {high}{missing}"
    for number, step in lanes["diverged"].items():
        yield f"  {kind} {number} diverged after step {step}"


def _next_commands(result: Result, workdir: Path) -> Iterator[str]:
    folder = quote(workdir)
    config = quote(workdir / "config.json")
    if result.status == "interrupted":
        yield f"{command()} --config={config} --workdir={folder}   # resumes where it stopped"
        return
    if result.status == "diverged":
        yield f"{command()} replay --workdir={folder} --step={result.step}   # looks at the step that diverged"
        yield f"{command()} lr_range --config={config} --workdir={folder}   # suggests a learning rate"
    if result.status == "done":
        yield f"{command()} evaluate --workdir={folder}"
    yield f"tensorboard --logdir={folder}   # after: pip install tensorboard"
