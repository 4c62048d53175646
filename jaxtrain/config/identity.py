"""What identifies a config: what changes the numbers of a run, as JSON, as a digest, as a difference."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jaxtrain.config.defaults import Config, default_config, flatten
from jaxtrain.config.resolve import resolve_config

UNHASHED = ("log", "track", "checkpoint", "search")
"""The sections that change no number of a run, `checkpoint.init_from` and `init_except` aside."""


def difference(config: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """Returns dotted name -> (value in `config`, value in `other`) where they differ; None where one lacks it."""
    ours, theirs = flatten(from_json(to_json(config))), flatten(from_json(to_json(other)))
    names = sorted(ours.keys() | theirs.keys())
    return {name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)}


def in_words(found: Mapping[str, tuple[Any, Any]]) -> str:
    """Writes a difference for a message: "seed = 1, there 0; optimizer.name = 'sgd', there 'adam'"."""
    return "; ".join(f"{name} = {ours!r}, there {theirs!r}" for name, (ours, theirs) in found.items())


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


def from_default(config: Config) -> Mapping[str, Any]:
    """Returns dotted name -> {"value", "default"} for what differs from the default config."""
    found = difference(config, resolve_config(default_config()).config)
    return {name: {"value": ours, "default": default} for name, (ours, default) in found.items()}
