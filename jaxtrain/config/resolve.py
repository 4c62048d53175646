"""The config of a run: what files and overrides come to.

A section is described by the signature of a function or dataclass, so that what a user may write is what the code
reads. Sections with a `name` choose a member of a family (`jaxtrain.config.registry`), the others stand in
`jaxtrain.config.sections`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_collections

from jaxtrain.config.defaults import FAMILIES, Config, default_config, family, flatten, is_none
from jaxtrain.config.files import plain, read
from jaxtrain.config.hparams import PROGRAM, hyperparameters, schedule_entries, unschedulable_reason
from jaxtrain.config.registry import knobs_of, resolve
from jaxtrain.config.schema import Bounds, Knob, as_python, holds
from jaxtrain.config.sections import SECTIONS
from jaxtrain.errors import ConfigError, Words, nearest, one_of, unknown

SEED = Knob("seed", (int,), (Bounds(0, 2**32 - 1),))


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
        raise ConfigError(f"{path}.name", Words("nothing"), one_of(table.members))
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
    for target, entry in schedule_entries(given, ""):
        path = f"schedule.{target}"
        reason = unschedulable_reason(target, config)
        typed = any(key == path or key.startswith(path + ".") for key in overrides)
        if reason and (typed or not _was_meant_for_another(target, entry, config, overrides)):
            floats = sorted(
                name for name in hyperparameters(config | {"schedule": {}}) if not unschedulable_reason(name, config)
            )
            hint = f"Schedule another float: {reason}. {nearest(target, floats)}"
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
    if is_none(given):
        return {}
    if not isinstance(given, Mapping):
        hint = "Write it as in search.space.optimizer.learning_rate = ('log_uniform', 1e-5, 1e-1)"
        raise ConfigError(path, given, "a range under the key that it varies", hint)
    resolved: Config = {}
    for name, entry in given.items():
        if isinstance(entry, Mapping):
            resolved[name] = _resolve_space(entry, f"{path}.{name}")
        elif not is_none(entry):
            resolved[name] = as_python(entry)
            if not holds(resolved[name]):
                raise ConfigError(f"{path}.{name}", entry, "a tuple of numbers, strings, booleans or None")
    return resolved


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


def _section(name: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigError(name, given, "a section of keys and values", f"Set a value as {name}.KEY")
    return dict(given)


def _spelt_out(config: Config, key: str, value: Any) -> str:
    """Returns the key that an override sets: `optimizer = "sgd"` is short for `optimizer.name`, a schedule's alike."""
    found: Any = config
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    chooses = isinstance(found, Mapping) and "name" in found and isinstance(value, str) and not is_none(value)
    return f"{key}.name" if chooses else key


def _set(config: Config, key: str, value: Any) -> None:
    """Sets a dotted name, making the sections on its way; a member that stands as its name alone becomes a section."""
    *sections, last = key.split(".")
    for depth, section in enumerate(sections):
        inner = config.get(section)
        if sections[0] == "schedule" and is_none(inner):
            config[section] = {}
        elif isinstance(inner, str) and sections[0] in FAMILIES and (depth == 0 or sections[0] == "schedule"):
            config[section] = {"name": inner}
        config = config.setdefault(section, {})
        if not isinstance(config, dict):
            path = ".".join(sections[: depth + 1])
            raise ConfigError(key, value, f"no key below {path}", f"Set {path} itself: it is a value, not a section")
    config[last] = value
