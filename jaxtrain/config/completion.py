"""Completes configs that earlier versions saved, to compare them; imports no function of a user's, as a run does."""

import functools
import json
from collections.abc import Mapping
from typing import Any

from jaxtrain.config.defaults import FAMILIES, Config, family
from jaxtrain.config.hparams import schedule_entries
from jaxtrain.config.registry import knobs_of
from jaxtrain.config.schema import MISSING
from jaxtrain.config.sections import SECTIONS
from jaxtrain.errors import ConfigError


def complete_config(saved: Mapping[str, Any]) -> Config:
    """Returns a config as JSON holds it, in which knobs that a saved config lacks have their defaults.

    The knobs of a user's own function stay as they were saved. Raises ConfigError for a section that is no mapping, and
    for a seed that is no integer.
    """
    config = dict(saved)
    if type(config.get("seed")) is not int:
        raise ConfigError("seed", config.get("seed"), "an integer")
    for section in (*FAMILIES, *SECTIONS):
        given = config.setdefault(section, {})
        if not isinstance(given, Mapping):
            raise ConfigError(section, given, "a section of keys and values")
        config[section] = dict(given)
    for section in SECTIONS:
        config[section] = _defaults(section) | config[section]
    for section in FAMILIES.keys() - {"schedule"}:
        config[section] = _complete_family(section, config[section])
    for target, entry in list(schedule_entries(config["schedule"], "")):
        _set(config["schedule"], target.split("."), member_defaults("schedule", entry["name"]) | entry)
    return config


def _complete_family(section: str, given: Config) -> Config:
    beside = family(section).beside
    if beside is None:
        return member_defaults(section, given.get("name")) | given
    members = {
        key: member_defaults(section, entry.get("name")) | dict(entry)
        for key, entry in given.items()
        if isinstance(entry, Mapping)
    }
    return _beside_defaults(section) | given | members


@functools.cache
def _defaults(section: str) -> Config:
    return _as_json({name: knob.default for name, knob in knobs_of(SECTIONS[section]).items()})


@functools.cache
def _beside_defaults(section: str) -> Config:
    beside = family(section).beside
    assert beside is not None
    return _as_json({name: knob.default for name, knob in knobs_of(beside).items()})


@functools.cache
def member_defaults(section: str, name: str | None) -> Config:
    """Returns the defaults of a member of our tables, as JSON holds them; none for a function of a user's."""
    table = family(section)
    if name is None or name not in table.members:
        return {}
    knobs = table.knobs(name)
    return _as_json({key: knob.default for key, knob in knobs.items() if knob.default is not MISSING})


def _as_json(defaults: Mapping[str, Any]) -> Config:
    return json.loads(json.dumps({name: value for name, value in defaults.items() if value is not MISSING}))


def _set(section: Config, path: list[str], value: Any) -> None:
    """Sets a value in nested sections, each copied: those of the saved config stay as they are."""
    name, *rest = path
    if rest:
        section[name] = dict(section[name])
        _set(section[name], rest, value)
    else:
        section[name] = value
