"""How a study is found again: the folder of a process, what makes a study the one it is, and where it is kept."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from jaxtrain.config.defaults import Config
from jaxtrain.config.identity import changes_numbers, difference, in_words
from jaxtrain.config.resolve import resolve_config
from jaxtrain.errors import ConfigError, StorageError, UsageError, Words
from jaxtrain.storage.files import read_json
from jaxtrain.storage.locks import run_lock

IDENTITY = ("space", "sampler", "seeds", "batch", "halving", "first_rung", "reduction")
"""The knobs of `search` that make it another study, beside the config that is searched."""


def check(config: Config) -> None:
    """Refuses what would have a trial be another run than `train` makes of its config, and seeds that there are not."""
    trials = "in a search, whose trials"
    if config["lr_range"]["before_training"]:
        raise ConfigError("lr_range.before_training", True, f"False {trials} have rates of their own")
    if config["train"]["seeds"] > 1:
        raise ConfigError("train.seeds", config["train"]["seeds"], f"1 {trials} have search.seeds seeds")
    if config["parallel"]["backend"] != "mesh":
        raise ConfigError("parallel.backend", config["parallel"]["backend"], f"'mesh' {trials} are lanes")
    section = config["search"]
    for name in ("seeds", "compare_seeds"):
        most = 2**32 - config["seed"] - (section["seeds"] if name == "compare_seeds" else 0)
        if section[name] > most:
            raise ConfigError(f"search.{name}", section[name], f"at most {most:,}, since seeds end at 2**32 - 1")


@contextmanager
def locked(workdir: Path, config: Config) -> Iterator[Path]:
    """Holds the folder of this process: `search/` of the directory, or of a shared study the first free worker's."""
    if config["search"]["storage"] is None:
        with run_lock(workdir):
            yield workdir / "search"
        return
    with ExitStack() as held:
        for number in count():
            folder = workdir / "search" / f"worker-{number}"
            try:
                held.enter_context(run_lock(folder))
            except UsageError:  # another worker's
                continue
            yield folder
            return


def identity(config: Config) -> dict[str, Any]:
    """Returns what makes a study the one it is."""
    return {**changes_numbers(config), "search": {name: config["search"][name] for name in IDENTITY}}


def without_storage(config: Config) -> Config:
    """Leaves out the address of a database, which may hold a password, from what is written into files."""
    return {**config, "search": {**config["search"], "storage": None}}


def demand_same(folder: Path, config: Config) -> None:
    """Refuses the folder of another study, and shows where they differ."""
    place = folder / "config.json"
    if not place.exists():
        return
    saved = read_json(place)
    if not isinstance(saved, dict):
        got, hint = Words("JSON that is no object"), "Restore it from a copy, or give another --workdir"
        raise StorageError(str(place), got, "the config of a study", hint)
    found = difference(identity(config), identity(resolve_config(saved).config))
    if found:
        got = Words(f"the directory of another study ({in_words(found)})")
        raise UsageError(str(folder), got, "a new directory, or that of the same study", "Give another --workdir")
