"""Hyperparameters: the floats of a config that enter the compiled program, and their schedules."""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxtrain.config.defaults import Config, family, flatten, is_none
from jaxtrain.config.registry import BoundMember
from jaxtrain.config.schema import Knob
from jaxtrain.config.section_traits import PROGRAM
from jaxtrain.errors import ConfigError


def schedule_entries(given: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (name of the scheduled float, {"name": ..., knobs}) for each entry; an entry of None is skipped."""
    if is_none(given):
        return
    if isinstance(given, str) and path:
        yield path, {"name": given}
    elif not isinstance(given, Mapping):
        hint = "Write it as in schedule.optimizer.learning_rate"
        raise ConfigError(
            f"schedule.{path}".rstrip("."),
            given,
            "the name of a schedule, or a dict of its name and knobs, under the key that it schedules",
            hint,
        )
    elif "name" in given and path:
        yield path, dict(given)
    else:
        for name, inner in given.items():
            yield from schedule_entries(inner, f"{path}.{name}" if path else name)


def chosen_members(config: Config) -> dict[str, Mapping[str, Any]]:
    """Returns {path: {"name": ..., knobs}} of every member whose floats enter the program, as "augment.flip"."""
    found: dict[str, Mapping[str, Any]] = {}
    for section in PROGRAM:
        entry = config[section]
        several = {f"{section}.{key}": inner for key, inner in entry.items() if isinstance(inner, Mapping)}
        found |= {section: entry} if "name" in entry else several
    return found


def knobs_at(path: str, entry: Mapping[str, Any]) -> dict[str, Knob]:
    """Returns the knobs of the member that the entry at a path of the config chooses."""
    return family(path.partition(".")[0]).knobs(entry["name"])


def unschedulable_reason(target: str, config: Config) -> str:
    """Returns why a float of the config cannot follow a schedule; an empty string if it can."""
    if target == "train.ema":
        return "" if config["train"]["ema"] is not None else "train.ema is None, not a float"
    chosen = chosen_members(config)
    if target in chosen:
        return f"{chosen[target]['name']} has no such float"
    path, _, knob = target.rpartition(".")
    entry = chosen.get(path)
    if entry is None:
        return f"{target} is not a hyperparameter"
    name = entry["name"]
    if knob not in knobs_at(path, entry):
        return f"{name} has no {knob}"
    if once_per_run(target, config):
        return f"{name} keeps one {target} for the whole run, so it cannot follow a schedule"
    if not isinstance(entry[knob], float):
        return f"{target} is {entry[knob]!r}, not a float"
    return ""


def once_per_run(target: str, config: Config) -> bool:
    """Returns whether a float keeps one value for the whole run, so that it cannot follow a schedule."""
    path, _, knob = target.rpartition(".")
    entry = chosen_members(config).get(path)
    knobs = {} if entry is None else knobs_at(path, entry)
    return knob in knobs and knobs[knob].once_per_run


def hyperparameters(config: Config) -> dict[str, float]:
    """Returns {full name: value} of every float that enters the compiled program."""
    floats = {
        f"{path}.{knob}": value for path, entry in chosen_members(config).items() for knob, value in entry.items()
    }
    floats["train.ema"] = config["train"]["ema"]
    floats |= {f"schedule.{key}": value for key, value in flatten(config["schedule"]).items()}
    return {name: value for name, value in floats.items() if isinstance(value, float)}


def bind_schedules(config: Config) -> tuple[tuple[str, BoundMember], ...]:
    """Returns (name of the scheduled float, its schedule) for every entry, sorted by name."""
    entries = sorted(schedule_entries(config["schedule"], ""), key=lambda item: item[0])
    return tuple((target, family("schedule").bind(entry, f"schedule.{target}")) for target, entry in entries)
