"""Checks a study's config, locks its folder, and compares its identity with that of a saved study."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import copy
from itertools import count
from pathlib import Path
from typing import Any

from jaxtrain.config.defaults import Config
from jaxtrain.config.identity import changes_numbers, demand_equal
from jaxtrain.config.section_traits import STUDY
from jaxtrain.config.seeds import check_seeds
from jaxtrain.config.trust import modules_of
from jaxtrain.errors import ConfigError, UsageError
from jaxtrain.search.samplers import batch_size
from jaxtrain.storage.locks import run_lock
from jaxtrain.storage.ownership import Owner, saved_config


def check_config(config: Config) -> None:
    """Rejects options under which a trial would differ from a plain `train` run, and seeds beyond 2**32 - 1."""
    trials = "in a search, whose trials"
    if config["lr_range"]["before_training"]:
        raise ConfigError("lr_range.before_training", True, f"False {trials} have rates of their own")
    if config["train"]["seeds"] > 1:
        raise ConfigError("train.seeds", config["train"]["seeds"], f"1 {trials} have search.seeds seeds")
    if config["parallel"]["backend"] != "mesh":
        raise ConfigError("parallel.backend", config["parallel"]["backend"], f"'mesh' {trials} are lanes")
    if config["eval"]["host"]:
        expected = f"() {trials} are evaluated inside one program"
        hint = "Search by a metric of the task, and give eval.host to the runs that follow"
        raise ConfigError("eval.host", config["eval"]["host"], expected, hint)
    if config["checkpoint"]["continue_from"] is not None:
        expected = f"None {trials} start at step 0"
        hint = "Take checkpoint.init_from, to start them from the weights of that run"
        raise ConfigError("checkpoint.continue_from", config["checkpoint"]["continue_from"], expected, hint)
    if config["search"]["halving"] == "asha" and config["search"]["storage"] is None:
        expected = "None, 'successive' or 'hyperband' in a study of one process, which has nobody to wait for"
        raise ConfigError("search.halving", "asha", expected, "Set search.storage: asha is for workers that share it")
    check_seeds(config, "search.seeds")
    check_seeds(config, "search.compare_seeds", before=config["search"]["seeds"])


@contextmanager
def lock_folder(workdir: Path, config: Config) -> Iterator[Path]:
    """Locks and yields this process's folder: `search/`, or in a shared study the first free `search/worker-<n>/`."""
    if config["search"]["storage"] is None:
        with run_lock(workdir):
            yield workdir / "search"
        return
    with ExitStack() as held:
        for number in count():
            folder = workdir / "search" / f"worker-{number}"
            try:
                held.enter_context(run_lock(folder))
            except UsageError:  # locked by another worker
                continue
            yield folder
            return


def identity(config: Config) -> dict[str, Any]:
    """Returns the config fields that identify a study."""
    return {**changes_numbers(config), "search": {name: config["search"][name] for name in STUDY}}


def without_storage(config: Config) -> Config:
    """Returns the config for files, without the address of a database, which may hold a password."""
    return {**config, "search": {**config["search"], "storage": None}}


def with_earlier_value(saved: dict[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the identity of a study; one that was written by an earlier version judged trials by their best."""
    if "value" in written.get("search", {}):
        return saved
    return {**saved, "search": {**saved.get("search", {}), "value": "best"}}


def with_batch(config: Config, owner: Owner | None) -> Config:
    """Returns the config with the trials that are asked for at a time: those of the study so far, else as computed.

    A study that is extended asks in the same batches again, so that its sampler gives the same points.
    """
    section = copy(config["search"])
    saved = owner.saved.get("search", {}).get("batch") if owner else None
    section["batch"] = saved if section["batch"] is None and saved else batch_size(section)
    return {**config, "search": section}


def demand_same(folder: Path, config: Config, owner: Owner | None) -> None:
    """Raises UsageError, with the differences, if the folder holds another study."""
    if owner is not None:
        saved = with_earlier_value(identity(saved_config(folder, owner, modules_of(config))), owner.saved)
        whose = "the directory of another study"
        expected = "a new directory, or that of the same study"
        demand_equal(str(folder), identity(config), saved, whose, expected, "Give another directory")
