"""A run's own files: the config that claims a directory, and the trackers that write into it."""

from pathlib import Path

from jaxtrain.config.defaults import Config
from jaxtrain.config.identity import changes_numbers, difference, from_default, in_words
from jaxtrain.config.resolve import resolve_config
from jaxtrain.errors import StorageError, UsageError, Words
from jaxtrain.storage.files import read_json, write_json


def demand_own(workdir: Path, config: Config) -> None:
    """Raises UsageError where the directory holds a run of another config, StorageError where that cannot be told.

    What changes no number (how often to log, say) may differ. A knob that the run's version of jaxtrain did not have
    yet takes its default.
    """
    path, hint = workdir / "config.json", "Restore it from a copy, or give another --workdir"
    if not path.exists():
        if (workdir / "checkpoints").exists():
            raise StorageError(str(path), Words("nothing"), "the config of the run with these checkpoints", hint)
        return
    saved = read_json(path)
    if not isinstance(saved, dict):
        raise StorageError(str(path), Words("JSON that is no object"), "the config of a run", hint)
    found = difference(changes_numbers(config), changes_numbers(resolve_config(saved).config))
    if found:
        got = Words(f"the directory of a run with another config ({in_words(found)})")
        expected = "a new directory, or that of a run with this config"
        raise UsageError(f"--workdir={workdir}", got, expected, "Give another --workdir")


def claim(workdir: Path, config: Config) -> None:
    """Writes `config.json` and its difference from the default: from now on the directory is this run's."""
    write_json(workdir / "config.json", config)
    write_json(workdir / "config_difference.json", from_default(config))
