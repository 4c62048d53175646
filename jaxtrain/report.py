"""What a verb says at its end: how it went, every file that it wrote, and the command that usually comes next."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxtrain.result import Result

COMMAND = "python -m jaxtrain.main"


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
    return [*lines, "next:", *(f"  {command}" for command in _next(result, workdir))]


def evaluation_report(found: Mapping[str, Any], workdir: Path) -> list[str]:
    """Returns what `evaluate` prints."""
    lines = [f"step {found['step']:,} of {workdir}"]
    lines += [f"  {split:<11}{_shown(numbers)}" for split, numbers in found.items() if split != "step"]
    return [*lines, f"wrote {workdir}/evaluation.json"]


def _because(result: Result) -> str:
    return f": {result.reason}" if result.reason else ""


def _numbers(result: Result) -> Iterator[str]:
    for split, numbers in result.last.items():
        yield f"  {split:<11}{_shown({k: v for k, v in numbers.items() if '.' not in k and not k.startswith('norm_')})}"
    if result.best:
        best = result.best
        yield f"  best       {best['metric']} {best['value']:.4g} on validation at step {best['step']:,}"
    if result.test:
        shown = _shown({name: value for name, value in result.test.items() if name != "step"})
        yield f"  test       {shown} with the state of step {result.test['step']:,}"


def _shown(numbers: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {'nan' if value is None else format(value, '.4g')}" for name, value in numbers.items())


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
    if result.status == "interrupted":
        yield f"{COMMAND} --config={workdir}/config.json --workdir={workdir}   # goes on where it stopped"
        return
    if result.status == "done":
        yield f"{COMMAND} evaluate --workdir={workdir}"
    yield f"tensorboard --logdir={workdir}   # after: pip install tensorboard"
