"""Ownership of a run directory: the saved config identifies the run that owns it."""

from pathlib import Path

from jaxtrain.config.defaults import Config
from jaxtrain.config.identity import changes_numbers, difference, from_default, in_words
from jaxtrain.config.resolve import resolve_config
from jaxtrain.errors import StorageError, UsageError, Words
from jaxtrain.storage.files import read_json, write_json


def demand_own(workdir: Path, config: Config) -> None:
    """Raises UsageError if the directory holds a run of another config, StorageError if its config cannot be read.

    Settings that change no number, such as how often to log, may differ. A knob that is missing in the saved config,
    because it came with a later version of jaxtrain, takes its default.
    """
    path, hint = workdir / "config.json", "Restore it from a copy, or give another --workdir"
    if not path.exists():
        if (workdir / "checkpoints").exists():
            raise StorageError(str(path), Words("nothing"), "the config of the run with these checkpoints", hint)
        return
    saved = read_json(path)
    if not isinstance(saved, dict):
        raise StorageError(str(path), Words("JSON that is no object"), "the config of a run", hint)
    differing = difference(changes_numbers(config), changes_numbers(resolve_config(saved).config))
    if differing:
        got = Words(f"the directory of a run with another config, with {in_words(differing)}")
        expected = "a new directory, or that of a run with this config"
        raise UsageError(f"--workdir={workdir}", got, expected, "Give another --workdir")


def claim(workdir: Path, config: Config) -> None:
    """Writes `config.json` and its difference from the default, by which the run owns the directory."""
    write_json(workdir / "config.json", config)
    write_json(workdir / "config_difference.json", from_default(config))
