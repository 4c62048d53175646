"""Hyperparameters: the floats of a config that enter the compiled program, and their schedules."""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxtrain.config.defaults import Config, family, flatten, is_none
from jaxtrain.config.registry import BoundMember
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


def unschedulable_reason(target: str, config: Config) -> str:
    """Returns why a float of the config cannot follow a schedule; an empty string if it can."""
    section, _, knob = target.partition(".")
    if target == "train.ema":
        return "" if config["train"]["ema"] is not None else "train.ema is None, not a float"
    if section not in PROGRAM:
        return f"{target} is not a hyperparameter"
    name = config[section]["name"]
    knobs = family(section).knobs(name)
    if knob not in knobs:
        return f"{name} has no {knob or 'such float'}"
    if once_per_run(target, config):
        return f"{name} keeps one {target} for the whole run, so it cannot follow a schedule"
    if not isinstance(config[section][knob], float):
        return f"{target} is {config[section][knob]!r}, not a float"
    return ""


def once_per_run(target: str, config: Config) -> bool:
    """Returns whether a float keeps one value for the whole run, so that it cannot follow a schedule."""
    section, _, knob = target.partition(".")
    if section not in PROGRAM:
        return False
    knobs = family(section).knobs(config[section]["name"])
    return knob in knobs and knobs[knob].once_per_run


def hyperparameters(config: Config) -> dict[str, float]:
    """Returns {full name: value} of every float that enters the compiled program."""
    floats = {f"{section}.{knob}": v for section in PROGRAM for knob, v in config[section].items()}
    floats["train.ema"] = config["train"]["ema"]
    floats["lora.alpha"] = config["lora"]["alpha"] if config["lora"]["paths"] else None
    floats |= {f"schedule.{key}": value for key, value in flatten(config["schedule"]).items()}
    return {name: value for name, value in floats.items() if isinstance(value, float)}


def bind_schedules(config: Config) -> tuple[tuple[str, BoundMember], ...]:
    """Returns (name of the scheduled float, its schedule) for every entry, sorted by name."""
    entries = sorted(schedule_entries(config["schedule"], ""), key=lambda item: item[0])
    return tuple((target, family("schedule").bind(entry, f"schedule.{target}")) for target, entry in entries)
