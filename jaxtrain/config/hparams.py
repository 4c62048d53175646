"""The floats of a config that enter the compiled program, and their schedules."""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxtrain.config.defaults import Config, family, flatten, is_none
from jaxtrain.config.registry import Bound
from jaxtrain.errors import ConfigError

PROGRAM = ("task", "model", "loss", "optimizer")
"""The sections whose floats enter the compiled program, beside `train.ema` and the schedules' own."""


def schedule_entries(given: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (name of the scheduled float, {"name": ..., knobs}); None in an entry's place leaves it out."""
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
    """Says why a float of the config cannot follow a schedule; an empty string where it can."""
    section, _, knob = target.partition(".")
    if target == "train.ema":
        return "" if config["train"]["ema"] is not None else "train.ema is None, not a float"
    if section not in PROGRAM:
        return f"{target} is no hyperparameter"
    name = config[section]["name"]
    knobs = family(section).knobs(name)
    if knob not in knobs:
        return f"{name} has no {knob or 'such float'}"
    if once_per_run(target, config):
        return f"{name} takes one {target} for the whole run, which no schedule can move"
    if not isinstance(config[section][knob], float):
        return f"{target} is {config[section][knob]!r}, not a float"
    return ""


def once_per_run(target: str, config: Config) -> bool:
    """Tells whether a float is one number for the whole run, which no schedule can move."""
    section, _, knob = target.partition(".")
    if section not in PROGRAM:
        return False
    knobs = family(section).knobs(config[section]["name"])
    return knob in knobs and knobs[knob].once_per_run


def hyperparameters(config: Config) -> dict[str, float]:
    """Returns every float that enters the compiled program, by its full name."""
    floats = {f"{section}.{knob}": v for section in PROGRAM for knob, v in config[section].items()}
    floats["train.ema"] = config["train"]["ema"]
    floats |= {f"schedule.{key}": value for key, value in flatten(config["schedule"]).items()}
    return {name: value for name, value in floats.items() if isinstance(value, float)}


def bind_schedules(config: Config) -> tuple[tuple[str, Bound], ...]:
    """Returns (name of the scheduled float, its schedule) for every entry, in the order of their names."""
    entries = sorted(schedule_entries(config["schedule"], ""), key=lambda item: item[0])
    return tuple((target, family("schedule").bind(entry, f"schedule.{target}")) for target, entry in entries)
