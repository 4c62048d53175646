"""The headline of a run's page: what it was, how it ended, and what came of it."""

from collections.abc import Iterator
from typing import Any

from jaxtrain.config.defaults import Config
from jaxtrain.reports.figures import format_value
from jaxtrain.reports.saved_runs import STATES, SavedRun, metric_names
from jaxtrain.reports.seed_groups import SeedGroup
from jaxtrain.storage.result import Result
from jaxtrain.training.intervals import Interval


def title_of(run: SavedRun) -> str:
    """Returns the title: how the run ended and the number that counts most."""
    name = run.place.name
    result = run.result
    if result is None:
        step = max((row["step"] for row in run.rows), default=0)
        return f"{name}: not ended, at step {step:,}"
    if result.status != "done":
        return f"{name}: {result.status} at step {result.step:,}"
    numbers = run.numbers("test")
    if run.metric in numbers:
        mean = f", mean of {len(run.lane_numbers)} {run.unit}s" if run.lanes else ""
        return f"{name}: {run.metric} {_number(numbers[run.metric])} on test{mean}"
    if result.best:
        return f"{name}: {run.metric} {_number(result.best['value'])} on validation"
    return f"{name}: done at step {result.step:,}"


def sentences_of(run: SavedRun) -> Iterator[str]:
    """Yields sentences: what was trained, the best step, the test, the speed, and what went wrong."""
    yield _what(run)
    result = run.result
    if result is None:
        yield "There is no result yet: the run is going on, or was killed. The same command resumes it."
        yield from run.damage
        return
    yield f"Trained up to step {result.step:,} in {result.seconds:,.1f} s."
    if result.reason:
        yield f"{result.reason[0].upper()}{result.reason[1:]}."
    if result.best:
        yield f"Best evaluation: {run.metric} {_number(result.best['value'])} at step {result.best['step']:,}."
    if result.test:
        yield f"Tested once, with the state of step {result.test['step']:,}."
    lost = (result.seeds or result.folds or {}).get("diverged", {})
    yield from (f"{run.unit.capitalize()} {number} diverged after step {step}." for number, step in lost.items())
    yield _speed(result)
    if result.edited:
        yield f"Accepted as changed by others: {', '.join(result.edited)}."
    if result.skipped:
        yield f"{result.skipped_in_words.capitalize()}."
    yield from run.damage


def _what(run: SavedRun) -> str:
    config = run.config
    lanes = run.lane_numbers
    which = f"{len(lanes)} {run.unit}s" if run.lanes else f"seed {lanes[0]}"
    batch = config["data"].get("batch_size", "?")
    return (
        f"{_name(config, 'model')} on {_name(config, 'data')}: {_name(config, 'task')} by {_name(config, 'loss')}, "
        f"trained by {_name(config, 'optimizer')} for {config['train']['duration']}, batches of {batch}, {which}."
    )


def _name(config: Config, section: str) -> str:
    return str(config[section].get("name", "?"))


def _speed(result: Result) -> str:
    speed = result.throughput
    names = {
        "examples_per_second": "{:,.0f} examples/s",
        "milliseconds_per_step": f"{result.step_in_words} a step",
        "compile_seconds": "{:.1f} s of compilation",
        "data_wait_share": "{:.1%} of the time waiting for data",
    }
    told = [form.format(speed[name]) for name, form in names.items() if isinstance(speed.get(name), int | float)]
    return f"Speed of the last session: {', '.join(told)}."


def number_rows(run: SavedRun) -> list[list[str]]:
    """Returns the table of results: a head, then each metric at the best and the last step and on test.

    Several seeds or folds have mean and 95 % interval.
    """
    group = SeedGroup((run,), {})
    states = [state for state in STATES if metric_names(run, state)]
    names = sorted({name for state in states for name in metric_names(run, state)})
    names = sorted(names, key=lambda own: (own != run.metric, own != "loss", "/" in own, own))
    rows = [[name, *(_cell(run, group, state, name) for state in states)] for name in names]
    last = "validation" if run.last_split == "validation" else "training"
    heads = {"best": "validation, best step", "last": f"{last}, last step", "test": "test"}
    return [["metric", *(heads[state] for state in states)], *rows] if rows else []


def _cell(run: SavedRun, group: SeedGroup, state: str, name: str) -> str:
    spread: Interval | None = group.spread(state, name) if run.lanes else None
    if spread is None:
        return _number(run.numbers(state).get(name))
    bounds = f" ({_number(spread.low)} to {_number(spread.high)})" if spread.low == spread.low else ""
    return f"{_number(spread.mean)}{bounds}"


def _number(value: Any) -> str:
    return "undefined" if value is None else format_value(value)
