"""The default config, and the table of members of each section that has a `name`."""

import importlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from jaxtrain.config.registry import Family
from jaxtrain.config.schema import Text
from jaxtrain.config.sections import SECTIONS

FAMILIES: dict[str, str] = {
    "task": "jaxtrain.tasks:TASKS",
    "model": "jaxtrain.models:MODELS",
    "loss": "jaxtrain.tasks.losses:LOSSES",
    "optimizer": "jaxtrain.optimizers:OPTIMIZERS",
    "augment": "jaxtrain.tasks.augment:AUGMENTATIONS",
    "data": "jaxtrain.data:SOURCES",
    "schedule": "jaxtrain.optimizers.schedules:SCHEDULES",
}
"""The table of each section, as "module:name": a string, so that reading a config imports only what it needs."""


Config = dict[str, Any]
"""A resolved config: nested dicts with a value for every knob."""


def family(section: str) -> Family:
    """Returns the table of a section."""
    module, _, name = FAMILIES[section].partition(":")
    return getattr(importlib.import_module(module), name)


def default_config() -> Any:
    """Returns the ConfigDict that config files start from: digits, an MLP, AdamW, warm-up and cosine decay.

    The return type is Any, since type checkers do not know the fields of a ConfigDict. Knobs that are left out take
    the defaults of the chosen members' signatures.
    """
    return ml_collections.ConfigDict(default_sections())


def default_sections() -> Config:
    """Returns the sections of the default config as new plain dicts."""
    return {
        "seed": 0,
        "task": {"name": "classification"},
        "model": {"name": "mlp"},
        "loss": {"name": "cross_entropy"},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "augment": {},
        "schedule": {"optimizer": {"learning_rate": {"name": "warmup_cosine"}}},
        "data": {"name": "digits"},
        **{section: {} for section in SECTIONS},
    }


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested dicts into {dotted name: value}."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def is_none(value: Any) -> bool:
    """Returns whether a value is None, as a Python value or as the text of a flag."""
    return value is None or (isinstance(value, Text) and value == "None")
