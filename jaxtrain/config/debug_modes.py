"""The debug modes that a config turns on, and the config of the run that a mode trains."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from jaxtrain.config.defaults import Config
from jaxtrain.config.resolve import resolve_config
from jaxtrain.config.sections import Debug
from jaxtrain.errors import ConfigError


def debug_modes(config: Config) -> list[str]:
    """Returns the names of the modes of the section `debug` that are on."""
    return [mode.name for mode in fields(Debug) if config["debug"][mode.name]]


def reject_debug_modes(config: Config) -> None:
    """Raises ConfigError for a debug mode where only `train` reads it."""
    for mode in debug_modes(config):
        off = getattr(Debug(), mode)
        hint = "Leave it out; in Python call jaxtrain.debug_run(config, workdir)"
        raise ConfigError(f"debug.{mode}", config["debug"][mode], f"{off} but for the command train", hint)


def without_debug_mode(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Returns the config of an ordinary run with overrides by dotted names; no server and no range test take part."""
    off = {f"debug.{mode}": getattr(Debug(), mode) for mode in debug_modes(config)}
    mlflow = {"track.mlflow.uri": "file"} if config["track"]["mlflow"] else {}
    return resolve_config(config, {**off, **mlflow, "lr_range.before_training": False, **overrides}).config
