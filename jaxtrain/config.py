"""The config of a run: what files and overrides come to.

A section is described by the signature of a function or dataclass, so that what a user may write is what the code
reads. Sections with a `name` choose a member of a family (`jaxtrain.families`), the others stand in
`jaxtrain.sections`.
"""

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_collections

from jaxtrain.config_files import plain, read
from jaxtrain.errors import ConfigError, nearest, unknown
from jaxtrain.families import Bound, Family, knobs_of, resolve
from jaxtrain.knobs import Bounds, Knob, Text, as_python, holds
from jaxtrain.sections import SECTIONS

FAMILIES: dict[str, str] = {
    "task": "jaxtrain.tasks:TASKS",
    "model": "jaxtrain.models:MODELS",
    "loss": "jaxtrain.losses:LOSSES",
    "optimizer": "jaxtrain.optimizers:OPTIMIZERS",
    "data": "jaxtrain.data:SOURCES",
    "schedule": "jaxtrain.schedules:SCHEDULES",
}
"""Where the table of each section lives; a string, since reading a config should import only what it needs."""

PROGRAM = ("task", "model", "loss", "optimizer")
"""The sections whose floats enter the compiled program, beside `train.ema` and the schedules' own."""

UNHASHED = ("log", "track", "checkpoint", "search")
"""The sections that change no number of a run, `checkpoint.init_from` and `init_except` aside."""

SEED = Knob("seed", (int,), (Bounds(0, 2**32 - 1),))

Config = dict[str, Any]
"""A resolved config: nested dicts that hold every knob."""


def family(section: str) -> Family:
    """Returns the table of a section."""
    module, _, name = FAMILIES[section].partition(":")
    return getattr(importlib.import_module(module), name)


def default_config() -> Any:
    """Returns the ConfigDict that a file starts from: digits, an MLP, AdamW, warm-up with cosine.

    Its type is Any, since a type checker knows nothing of the fields of a ConfigDict. Knobs that are left out take
    the defaults of the chosen members' signatures.
    """
    return ml_collections.ConfigDict(
        {
            "seed": 0,
            "task": {"name": "classification"},
            "model": {"name": "mlp"},
            "loss": {"name": "cross_entropy"},
            "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            "schedule": {"optimizer": {"learning_rate": {"name": "warmup_cosine"}}},
            "data": {"name": "digits"},
            **{section: {} for section in SECTIONS},
        }
    )


@dataclass(frozen=True)
class Loaded:
    """A resolved config and the lines that tell what was dropped on the way."""

    config: Config
    notes: tuple[str, ...]


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Reads a config file (`.py` with `get_config()`, or a saved `config.json`), applies overrides and resolves it.

    >>> load_config("configs/digits.py", {"optimizer.learning_rate": 0.1})["optimizer"]["learning_rate"]
    0.1
    """
    return load(path, overrides or {}).config


def load(path: str | Path, overrides: Mapping[str, Any]) -> Loaded:
    """Does what `load_config` does, and returns what there is to say about it."""
    return resolve_config(read(Path(path)), overrides)


def resolve_config(
    given: Mapping[str, Any] | ml_collections.ConfigDict, overrides: Mapping[str, Any] | None = None
) -> Loaded:
    """Applies overrides (dotted names -> values) and fills in every knob; raises ConfigError naming the key at fault.

    A section that `given` leaves out is the default's.
    """
    notes: list[str] = []
    merged = default_config().to_dict() | plain(given)
    overrides = {_spelt_out(merged, key, value): value for key, value in (overrides or {}).items()}
    for key, value in overrides.items():
        _set(merged, key, plain(value))
    for name in merged:
        if name not in (known := {"seed", *SECTIONS, *FAMILIES}):
            raise unknown(name, name, known)
    config: Config = {"seed": SEED.check("seed", merged["seed"])}
    for section in FAMILIES:
        if section != "schedule":
            config[section] = _resolve_member(section, section, merged[section], overrides, notes)
    merged["search"] = _section("search", merged["search"])
    space = merged["search"].pop("space", None)
    for section, signature in SECTIONS.items():
        config[section] = resolve(knobs_of(signature), _section(section, merged[section]), section)
    config["search"]["space"] = _resolve_space(space)
    config["schedule"] = _resolve_schedules(merged["schedule"], config, overrides, notes)
    return Loaded(config, tuple(notes))


def _resolve_member(section: str, path: str, given: Any, overrides: Mapping[str, Any], notes: list[str]) -> Config:
    """Resolves an entry that chooses a member; knobs of another member, not typed by the user, are dropped and said."""
    table = family(section)
    given = _section(path, {"name": given} if isinstance(given, str) else given)
    if "name" not in given:
        raise ConfigError(f"{path}.name", "<nothing>", ", ".join(table.members))
    name = str(given.pop("name"))
    knobs = table.knobs(name, path)
    defaults = flatten(default_config().to_dict())
    for knob in [knob for knob in given if knob not in knobs and f"{path}.{knob}" not in overrides]:
        if f"{path}.name" in overrides or defaults.get(f"{path}.{knob}") == given[knob]:
            notes.append(f"{path}.{knob} is dropped: {name} has no such knob")
            del given[knob]
    return {"name": name} | resolve(knobs, given, path)


def _resolve_schedules(given: Any, config: Config, overrides: Mapping[str, Any], notes: list[str]) -> Config:
    """Resolves the entries of `schedule`, which mirrors the config; an entry for another member's knob is dropped."""
    resolved: Config = {}
    for target, entry in _schedule_entries(given, ""):
        path = f"schedule.{target}"
        reason = _unschedulable(target, config)
        typed = any(key == path or key.startswith(path + ".") for key in overrides)
        if reason and (typed or not _was_meant_for_another(target, entry, config, overrides)):
            floats = sorted(
                name for name in hyperparameters(config | {"schedule": {}}) if not _unschedulable(name, config)
            )
            hint = f"{reason}. {nearest(target, floats)}".rstrip(" .")
            raise ConfigError(path, entry["name"], f"a schedule for one of {', '.join(floats)}", hint)
        if reason:
            notes.append(f"{path} is dropped: {reason}")
        else:
            _set(resolved, target, _resolve_member("schedule", path, entry, overrides, notes))
    return resolved


def _resolve_space(given: Any, path: str = "search.space") -> Config:
    """Reads the entries of a search space, which mirrors the config; None in an entry's place leaves it out.

    What they mean is up to the search: a run that searches nothing reads none of it.
    """
    if _is_none(given):
        return {}
    if not isinstance(given, Mapping):
        hint = "as in search.space.optimizer.learning_rate = ('log_uniform', 1e-5, 1e-1)"
        raise ConfigError(path, given, "a range below the name of what it varies", hint)
    resolved: Config = {}
    for name, entry in given.items():
        if isinstance(entry, Mapping):
            resolved[name] = _resolve_space(entry, f"{path}.{name}")
        elif not _is_none(entry):
            resolved[name] = as_python(entry)
            if not holds(resolved[name]):
                raise ConfigError(f"{path}.{name}", entry, "a tuple of names and values that a config can hold")
    return resolved


def _schedule_entries(given: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (name of the scheduled float, {"name": ..., knobs}); None in an entry's place leaves it out."""
    if _is_none(given):
        return
    if isinstance(given, str) and path:
        yield path, {"name": given}
    elif not isinstance(given, Mapping):
        hint = "as in schedule.optimizer.learning_rate"
        raise ConfigError(
            f"schedule.{path}".rstrip("."),
            given,
            "the name of a schedule, or {name, knobs}, below the name of what it moves",
            hint,
        )
    elif "name" in given and path:
        yield path, dict(given)
    else:
        for name, inner in given.items():
            yield from _schedule_entries(inner, f"{path}.{name}" if path else name)


def _unschedulable(target: str, config: Config) -> str:
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


def _was_meant_for_another(target: str, entry: Mapping[str, Any], config: Config, overrides: Mapping[str, Any]) -> bool:
    """Tells whether an entry is the default's, or was written for another member, so that dropping it is no loss."""
    section, _, knob = target.partition(".")
    if (
        f"{section}.name" in overrides
        or flatten(default_config().to_dict()).get(f"schedule.{target}.name") == entry["name"]
    ):
        return True
    if section not in PROGRAM:
        return False
    table = family(section)
    lacked = knob not in table.knobs(config[section]["name"])
    return lacked and any(knob in table.knobs(name) for name in table.members)


def hyperparameters(config: Config) -> dict[str, float]:
    """Returns every float that enters the compiled program, by its full name."""
    floats = {f"{section}.{knob}": v for section in PROGRAM for knob, v in config[section].items()}
    floats["train.ema"] = config["train"]["ema"]
    floats |= {f"schedule.{key}": value for key, value in flatten(config["schedule"]).items()}
    return {name: value for name, value in floats.items() if isinstance(value, float)}


def bind_schedules(config: Config) -> tuple[tuple[str, Bound], ...]:
    """Returns (name of the scheduled float, its schedule) for every entry, in the order of their names."""
    entries = sorted(_schedule_entries(config["schedule"], ""), key=lambda item: item[0])
    return tuple((target, family("schedule").bind(entry, f"schedule.{target}")) for target, entry in entries)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns dotted names -> values."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def difference(config: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """Returns dotted name -> (value in `config`, value in `other`) where they differ; None where one lacks it."""
    ours, theirs = flatten(from_json(to_json(config))), flatten(from_json(to_json(other)))
    names = sorted(ours.keys() | theirs.keys())
    return {name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)}


def changes_numbers(config: Config) -> Config:
    """Leaves out what changes no number of a run: what names its directory and guards it against another config."""
    tests_first = config["lr_range"]["before_training"]
    kept = {
        name: value for name, value in config.items() if name not in UNHASHED and (tests_first or name != "lr_range")
    }
    return kept | {"checkpoint": {key: config["checkpoint"][key] for key in ("init_from", "init_except")}}


def digest(config: Config) -> str:
    """Returns 8 hexadecimal digits of what changes the numbers of a run."""
    return hashlib.sha256(to_json(changes_numbers(config)).encode()).hexdigest()[:8]


def to_json(config: Mapping[str, Any]) -> str:
    """Writes a config as JSON, keys sorted, tuples as lists."""
    return json.dumps(config, indent=2, sort_keys=True)


def from_json(text: str) -> Config:
    """Reads what `to_json` wrote."""
    return json.loads(text)


def _section(name: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigError(name, given, "a section, which holds names and values", f"a value is set as {name}.NAME")
    return dict(given)


def _is_none(value: Any) -> bool:
    return value is None or (isinstance(value, Text) and value == "None")


def _spelt_out(config: Config, key: str, value: Any) -> str:
    """Returns the key that an override sets: `optimizer = "sgd"` is short for `optimizer.name`, a schedule's alike."""
    found: Any = config
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    chooses = isinstance(found, Mapping) and "name" in found and isinstance(value, str) and not _is_none(value)
    return f"{key}.name" if chooses else key


def _set(config: Config, key: str, value: Any) -> None:
    """Sets a dotted name, making the sections on its way; a member that stands as its name alone becomes a section."""
    *sections, last = key.split(".")
    for depth, section in enumerate(sections):
        inner = config.get(section)
        if sections[0] == "schedule" and _is_none(inner):
            config[section] = {}
        elif isinstance(inner, str) and sections[0] in FAMILIES and (depth == 0 or sections[0] == "schedule"):
            config[section] = {"name": inner}
        config = config.setdefault(section, {})
        if not isinstance(config, dict):
            path = ".".join(sections[: depth + 1])
            raise ConfigError(key, value, f"no name below {path}", f"{path} is a value, not a section")
    config[last] = value
