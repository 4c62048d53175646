"""Resolves the config of a run from files and overrides.

The signature of a function or dataclass is the schema of each section, so a config has exactly the keys that the code
reads. Sections with a `name` choose a member of a family (`jaxtrain.config.registry`); the others are the dataclasses
of `jaxtrain.config.sections`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_collections

from jaxtrain.config.defaults import FAMILIES, Config, default_sections, family, flatten, is_none
from jaxtrain.config.files import read, to_plain
from jaxtrain.config.hparams import chosen_members, hyperparameters, schedule_entries, unschedulable_reason
from jaxtrain.config.registry import knobs_of, resolve
from jaxtrain.config.schema import Bounds, Knob, as_python, is_config_value
from jaxtrain.config.sections import NESTED, SECTIONS
from jaxtrain.errors import ConfigError, Words, nearest, one_of, unknown

SEED = Knob("seed", (int,), (Bounds(0, 2**32 - 1),))


@dataclass(frozen=True)
class ResolvedConfig:
    """A resolved config, and a note on each entry that was dropped."""

    config: Config
    notes: tuple[str, ...]


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None, trust: Sequence[str] = ()) -> Config:
    """Loads a config file (`.py` with `get_config()`, or a saved `config.json`), applies overrides and resolves it.

    `trust` lists modules whose functions a `config.json` that another user made may name.

    >>> load_config("configs/digits.py", {"optimizer.learning_rate": 0.1})["optimizer"]["learning_rate"]
    0.1
    """
    return load(path, overrides or {}, trust).config


def load(path: str | Path, overrides: Mapping[str, Any], trust: Sequence[str] = ()) -> ResolvedConfig:
    """Like `load_config`, but also returns notes on dropped entries."""
    return resolve_config(read(Path(path), trust), overrides)


def resolve_config(
    given: Mapping[str, Any] | ml_collections.ConfigDict, overrides: Mapping[str, Any] | None = None
) -> ResolvedConfig:
    """Applies overrides ({dotted name: value}) and fills in every knob; raises ConfigError naming the invalid key.

    Sections missing from `given` are taken from the default config.
    """
    notes: list[str] = []
    merged = default_sections() | to_plain(given)
    overrides = {_expand_key(merged, key, value): value for key, value in (overrides or {}).items()}
    for key, value in overrides.items():
        _set_key(merged, key, to_plain(value, key))
    known = {"seed", *SECTIONS, *FAMILIES}
    for name in merged:
        if name not in known:
            raise unknown(name, name, known)
    config: Config = {"seed": SEED.check("seed", merged["seed"])}
    for section in FAMILIES:
        if section != "schedule":
            resolve_section = _resolve_several if family(section).beside else _resolve_member
            config[section] = resolve_section(section, section, merged[section], overrides, notes)
    merged["search"] = _as_section("search", merged["search"])
    space = merged["search"].pop("space", None)
    for section, signature in SECTIONS.items():
        entries = _as_section(section, merged[section])
        inner = {path: entries.pop(path.rpartition(".")[2], None) for path in NESTED if path.startswith(f"{section}.")}
        config[section] = resolve(knobs_of(signature), entries, section)
        config[section] |= {path.rpartition(".")[2]: _resolve_nested(path, given) for path, given in inner.items()}
    config["search"]["space"] = _resolve_space(space)
    config["schedule"] = _resolve_schedules(merged["schedule"], config, overrides, notes)
    return ResolvedConfig(config, tuple(notes))


def accepts(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> bool:
    """Tells whether a config may have these values, by dotted names."""
    try:
        resolve_config(config, overrides)
    except ConfigError:
        return False
    return True


def _resolve_member(section: str, path: str, given: Any, overrides: Mapping[str, Any], notes: list[str]) -> Config:
    """Resolves an entry that chooses a member; drops knobs of another member, unless typed by the user, with a note."""
    table = family(section)
    given = _as_section(path, {"name": given} if isinstance(given, str) else given)
    if "name" not in given:
        raise ConfigError(f"{path}.name", Words("nothing"), one_of(table.members))
    name = str(given.pop("name"))
    knobs = table.knobs(name, path)
    defaults = flatten(default_sections())
    for knob in [knob for knob in given if knob not in knobs and f"{path}.{knob}" not in overrides]:
        if f"{path}.name" in overrides or defaults.get(f"{path}.{knob}") == given[knob]:
            notes.append(f"{path}.{knob} is dropped: {name} has no such knob")
            del given[knob]
    return {"name": name} | resolve(knobs, given, path)


def _resolve_several(section: str, path: str, given: Any, overrides: Mapping[str, Any], notes: list[str]) -> Config:
    """Resolves a section of several members, {key: entry}; True chooses the defaults, None and False leave one out."""
    table = family(section)
    assert table.beside is not None
    beside = knobs_of(table.beside)
    entries = _as_section(path, given)
    config = resolve(beside, {key: entries.pop(key) for key in beside if key in entries}, path)
    for key, entry in entries.items():
        if not key.isidentifier() or key == "name":
            hint = f'Name a function as {section}.mine = {{"name": "package.module:function"}}'
            raise ConfigError(f"{path}.{key}", key, "an identifier as the key of a member", hint)
        entry = as_python(entry)
        if entry is not None and entry is not False:
            member = {} if entry is True else entry
            named = {"name": key} | _as_section(
                f"{path}.{key}", {"name": member} if isinstance(member, str) else member
            )
            config[key] = _resolve_member(section, f"{path}.{key}", named, overrides, notes)
    _check_order(config, path)
    return config


def _resolve_nested(path: str, given: Any) -> Config | None:
    """Resolves a section within a section; None while it is off. A mapping in it, such as tags, has keys of its own."""
    if is_none(given):
        return None
    signature = NESTED[path]
    entries = _as_section(path, given)
    free = {name: entries.pop(name, {}) for name in signature.__dataclass_fields__ if name not in knobs_of(signature)}
    texts = {name: _as_texts(f"{path}.{name}", inner) for name, inner in free.items()}
    return resolve(knobs_of(signature), entries, path) | texts


def _as_texts(path: str, given: Any) -> dict[str, str]:
    if any(isinstance(text, Mapping | list | tuple) for text in _as_section(path, given).values()):
        raise ConfigError(path, given, "a text for each name", f"Set one as {path}.NAME=TEXT")
    return {name: str(text) for name, text in given.items() if not is_none(text)}


def _check_order(config: Config, path: str) -> None:
    """Rejects an order that does not name every member of a section once."""
    members = [key for key, entry in config.items() if isinstance(entry, Mapping)]
    if config["order"] is not None and sorted(config["order"]) != sorted(members):
        expected = f"each of {', '.join(members) or 'no members'} once" if members else "None, since no member is named"
        raise ConfigError(f"{path}.order", config["order"], expected, f"Leave {path}.order out for that of the table")


def _resolve_schedules(given: Any, config: Config, overrides: Mapping[str, Any], notes: list[str]) -> Config:
    """Resolves the entries of `schedule`, which mirrors the config; drops entries for knobs of another member."""
    resolved: Config = {}
    for target, entry in schedule_entries(given, ""):
        path = f"schedule.{target}"
        reason = unschedulable_reason(target, config)
        typed = any(key == path or key.startswith(path + ".") for key in overrides)
        if reason and (typed or not _may_be_dropped(target, entry, config, overrides)):
            floats = sorted(
                name for name in hyperparameters(config | {"schedule": {}}) if not unschedulable_reason(name, config)
            )
            hint = f"Schedule another float: {reason}. {nearest(target, floats)}"
            raise ConfigError(path, entry["name"], f"a schedule for one of {', '.join(floats)}", hint)
        if reason:
            notes.append(f"{path} is dropped: {reason}")
        else:
            _set_key(resolved, target, _resolve_member("schedule", path, entry, overrides, notes))
    return resolved


def _resolve_space(given: Any, path: str = "search.space") -> Config:
    """Reads the entries of a search space, which mirrors the config; an entry of None is skipped.

    Only the search interprets the entries; a plain run ignores them.
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
            if not is_config_value(resolved[name]):
                raise ConfigError(f"{path}.{name}", entry, "a tuple of numbers, strings, booleans or None")
    return resolved


def _may_be_dropped(target: str, entry: Mapping[str, Any], config: Config, overrides: Mapping[str, Any]) -> bool:
    """Returns whether an entry may be dropped: it is the default's, or was written for another member."""
    path, _, knob = target.rpartition(".")
    if f"{path}.name" in overrides or flatten(default_sections()).get(f"schedule.{target}.name") == entry["name"]:
        return True
    chosen = chosen_members(config).get(path)
    if chosen is None:
        return path in overrides  # a member that was switched off takes its schedules along
    table = family(path.partition(".")[0])
    is_missing = knob not in table.knobs(chosen["name"])
    return is_missing and any(knob in table.knobs(name) for name in table.members)


def _as_section(name: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigError(name, given, "a section of keys and values", f"Set a value as {name}.KEY")
    return dict(given)


def _expand_key(config: Config, key: str, value: Any) -> str:
    """Returns the key that an override sets: `optimizer = "sgd"` is short for `optimizer.name`, also in schedules."""
    entry: Any = config
    for name in key.split("."):
        entry = entry.get(name) if isinstance(entry, Mapping) else None
    has_name = isinstance(entry, Mapping) and "name" in entry
    return f"{key}.name" if has_name and isinstance(value, str) and not is_none(value) else key


def _set_key(config: Config, key: str, value: Any) -> None:
    """Sets a dotted name, creating sections as needed; a member given as its name alone becomes a section."""
    *sections, last = key.split(".")
    for depth, section in enumerate(sections):
        inner = config.get(section)
        is_switch = sections[0] == "augment" and depth == 1 and as_python(inner) in (True, False, None)
        is_off = is_none(inner) and (sections[0] == "schedule" or ".".join(sections[: depth + 1]) in NESTED)
        if is_switch or is_off:
            config[section] = {}
        elif isinstance(inner, str) and sections[0] in FAMILIES and (depth == 0 or sections[0] == "schedule"):
            config[section] = {"name": inner}
        config = config.setdefault(section, {})
        if not isinstance(config, dict):
            path = ".".join(sections[: depth + 1])
            raise ConfigError(key, value, f"no key below {path}", f"Set {path} itself: it is a value, not a section")
    config[last] = value
