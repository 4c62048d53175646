"""Ownership of a run directory: the saved config identifies the run that owns it."""

from pathlib import Path

from jaxtrain.config.defaults import Config
from jaxtrain.config.identity import changes_numbers, demand_equal, from_default
from jaxtrain.config.resolve import resolve_config
from jaxtrain.errors import StorageError, Words
from jaxtrain.files import read_json, write_json

RESTORE = "Restore it from a copy, or give another --workdir"


def read_config(folder: Path) -> Config:
    """Reads the saved `config.json` of a directory. A knob that came with a later jaxtrain takes its default.

    Raises StorageError if it cannot be read or is no config.
    """
    path = folder / "config.json"
    saved = read_json(path)
    if not isinstance(saved, dict):
        raise StorageError(str(path), Words("JSON that is no object"), "a saved config", RESTORE)
    return resolve_config(saved).config


def demand_own(workdir: Path, config: Config) -> None:
    """Raises UsageError if the directory holds a run of another config, StorageError if its config cannot be read.

    Settings that change no number, such as how often to log, may differ.
    """
    path = workdir / "config.json"
    if path.exists():
        saved = changes_numbers(read_config(workdir))
        whose = "the directory of a run with another config"
        expected = "a new directory, or that of a run with this config"
        demand_equal(f"--workdir={workdir}", changes_numbers(config), saved, whose, expected, "Give another --workdir")
    elif (workdir / "checkpoints").exists():
        raise StorageError(str(path), Words("nothing"), "the config of the run with these checkpoints", RESTORE)


def claim(workdir: Path, config: Config) -> None:
    """Writes `config.json` and its difference from the default, by which the run owns the directory."""
    write_json(workdir / "config.json", config)
    write_json(workdir / "config_difference.json", from_default(config))
