"""Identity of a config: the values that affect the numbers of a run, their digest, and differences between configs."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jaxtrain.config.defaults import Config, default_config, flatten
from jaxtrain.config.resolve import resolve_config
from jaxtrain.config.section_traits import TRAITS
from jaxtrain.errors import UsageError, Words

START_FROM = ("init_from", "init_except", "continue_from")
"""The knobs of `checkpoint` that affect the numbers of a run: which weights or which state it starts from."""


FEEDING = ("feed", "workers", "processes", "cache", "skip_bad")
"""The knobs of `data` that affect the speed of a run, or whether it ends at a bad example, and not its numbers.

So a run that met a bad example continues where it stopped, with a higher `skip_bad`.
"""

LATER = {
    "data": (
        *("quantiles", "target_separator", "stratify", "group_by", "order_by", "sample", "folds", "fold"),
        *("void", "per_example", "most_boxes"),
        *("text", "tokens", "context", "vocabulary", "sequence"),
    ),
    "eval": ("augment", "host", "higher_is_better"),
    "train": ("on_spike",),
}
"""Knobs of sections that earlier versions lack: their digests stay where these are off."""

LATER_OF_CHECKPOINT = {"result": "best", "init_names": None, "init_layout": "jax"}
"""Knobs of `checkpoint` that earlier versions lack, and the values that leave their digests as they are."""


def is_off(value: Any) -> bool:
    """Tells whether a knob is off: None, False or an empty tuple, and not the number 0."""
    return value is None or value is False or (isinstance(value, tuple | list) and not value)


def difference(config: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """Returns {dotted name: (value in `config`, value in `other`)} where they differ; a missing value is None."""
    ours = flatten(from_json(to_json(config)))
    theirs = flatten(from_json(to_json(other)))
    names = sorted(ours.keys() | theirs.keys())
    return {name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)}


def demand_equal(key: str, config: Config, other: Config, whose: str, expected: str, hint: str) -> None:
    """Raises UsageError with every difference between two configs; `whose` describes what the other one belongs to."""
    if differing := difference(config, other):
        raise UsageError(key, Words(f"{whose} ({in_words(differing)})"), expected, hint)


def in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Writes a difference for a message: "seed = 1, there 0; optimizer.name = 'sgd', there 'adam'"."""
    return "; ".join(f"{name} = {ours!r}, there {theirs!r}" for name, (ours, theirs) in differing.items())


def changes_numbers(config: Config) -> Config:
    """Returns the part of a config that affects the numbers of a run.

    Its digest names the run's directory, and a directory accepts only configs in which this part is the same.
    """
    kept = {name: section for name, section in config.items() if TRAITS[name].changes_numbers}
    if not config["lr_range"]["before_training"]:
        del kept["lr_range"]
    if config["lora"]["paths"] is None:  # absent in earlier versions
        del kept["lora"]
    if not any(isinstance(entry, Mapping) for entry in config.get("augment", {}).values()):
        kept.pop("augment", None)  # absent in earlier versions
    kept["data"] = {key: value for key, value in kept["data"].items() if key not in FEEDING}
    for section, later in LATER.items():
        kept[section] = {key: value for key, value in kept[section].items() if key not in later or not is_off(value)}
    section = config["checkpoint"]
    later = {key: section[key] for key, off in LATER_OF_CHECKPOINT.items() if section[key] != off}
    return kept | {"checkpoint": {key: section[key] for key in START_FROM} | later}


def digest(config: Config) -> str:
    """Returns 8 hexadecimal digits of a hash over the part of a config that affects the numbers of a run."""
    return hashlib.sha256(to_json(changes_numbers(config)).encode()).hexdigest()[:8]


def to_json(config: Mapping[str, Any]) -> str:
    """Converts a config to JSON, with sorted keys and tuples as lists."""
    return json.dumps(config, indent=2, sort_keys=True)


def from_json(text: str) -> Config:
    """Parses the output of `to_json`."""
    return json.loads(text)


def from_default(config: Config) -> Mapping[str, Any]:
    """Returns {dotted name: {"value", "default"}} of the values that differ from the default config."""
    changes = difference(config, resolve_config(default_config()).config)
    return {name: {"value": ours, "default": default} for name, (ours, default) in changes.items()}
