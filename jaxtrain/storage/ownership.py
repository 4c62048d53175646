"""Ownership of a run directory: the saved config identifies the run that owns it."""

from pathlib import Path

from jaxtrain.config.defaults import Config
from jaxtrain.config.identity import changes_numbers, difference, from_default
from jaxtrain.config.resolve import resolve_config
from jaxtrain.errors import StorageError, UsageError
from jaxtrain.storage.files import read_json, write_json


def demand_own(workdir: Path, config: Config) -> None:
    """Raises UsageError if the directory holds a run of another config, StorageError if its config cannot be read.

    Settings that change no number, such as how often to log, may differ. A knob that is missing in the saved config,
    because it came with a later version of jaxtrain, takes its default.
    """
    path = workdir / "config.json"
    if not path.exists():
        if (workdir / "checkpoints").exists():
            raise StorageError(f"{path}: not there, but checkpoints are; restore it, or give another --workdir")
        return
    saved = read_json(path)
    if not isinstance(saved, dict):
        raise StorageError(f"{path}: is not the config of a run; restore it from a copy, or give another --workdir")
    differing = difference(changes_numbers(config), changes_numbers(resolve_config(saved).config))
    if differing:
        lines = "; ".join(f"{name}: given {ours!r}, there {theirs!r}" for name, (ours, theirs) in differing.items())
        raise UsageError(f"--workdir={workdir}: holds a run of another config. {lines}. Give another --workdir")


def claim(workdir: Path, config: Config) -> None:
    """Writes `config.json` and its difference from the default, by which the run owns the directory."""
    write_json(workdir / "config.json", config)
    write_json(workdir / "config_difference.json", from_default(config))
