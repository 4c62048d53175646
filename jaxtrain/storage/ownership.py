"""Ownership of a directory: `run.json` holds the id of its run and the config, sealed; `config.json` shows it."""

import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtrain.config.defaults import Config
from jaxtrain.config.identity import changes_numbers, demand_equal, difference, in_words
from jaxtrain.config.resolve import resolve_config
from jaxtrain.config.trust import demand_trusted, modules_of, sign
from jaxtrain.errors import ConfigError, JaxtrainWarning, StorageError, Words
from jaxtrain.files import exists, read_json, through_json, write_json
from jaxtrain.storage.seals import read_sealed, write_sealed

FORMAT = 1
"""Number of the form of a run's directory. Those of earlier versions have no `run.json` and count as 0."""

RESTORE = "Restore it from a copy, or give another directory"
ACCEPT = "Restore it from a copy, or take config.json as it stands with --accept-edited"


@dataclass(frozen=True)
class Owner:
    """The run that owns a directory: its id (None in format 0), the config as it was saved, the directory's format."""

    id: str | None
    saved: Config
    format: int = FORMAT

    @property
    def seals(self) -> bool:
        """Whether the run seals its files."""
        return self.format > 0


def new_id() -> str:
    """Returns the id of a new run."""
    return uuid.uuid4().hex


def read_owner(folder: Path, *, accept_edited: bool = False) -> Owner | None:
    """Reads which run owns a directory; None if none does.

    A directory of an earlier version has `config.json` alone, which is also read in place of a `run.json` that was
    changed if `accept_edited` is set. Raises StorageError for files that cannot be read or were changed, and for a
    directory of a later version.
    """
    path = folder / "run.json"
    if not exists(path):
        return _read_unsealed(folder)
    try:
        content = read_sealed(path, "what the run saved", ACCEPT)
    except StorageError:
        if accept_edited:
            return _read_unsealed(folder)
        raise
    if content.get("format") != FORMAT:
        got = Words(f"a directory of format {content.get('format')}")
        raise StorageError(str(path), got, f"format {FORMAT}, the newest that is known", "Use a later jaxtrain")
    if not (isinstance(content.get("id"), str) and isinstance(content.get("config"), dict)):
        raise StorageError(str(path), Words("JSON with other keys"), "the id and the config of a run", RESTORE)
    return Owner(content["id"], content["config"])


def _read_unsealed(folder: Path) -> Owner | None:
    path = folder / "config.json"
    if exists(path):
        saved = read_json(path)
        if not isinstance(saved, dict):
            raise StorageError(str(path), Words("JSON that is no object"), "a saved config", RESTORE)
        return Owner(None, saved, format=0)
    if exists(folder / "checkpoints"):
        raise StorageError(str(path), Words("nothing"), "the config of the run with these checkpoints", RESTORE)
    return None


def saved_config(folder: Path, owner: Owner, trust: Sequence[str] = ()) -> Config:
    """Returns the config that the owner of a directory saved. A knob that came with a later jaxtrain takes its default.

    Warns if `config.json` shows another one. Raises StorageError if it is no config, and ConfigError if it names
    functions of a module that is not in `trust`, unless this user made the run.
    """
    config = _resolve(folder, owner, trust)
    if changed := changes_of_config(folder, owner):
        expected = "the config in run.json, which is used"
        warning = JaxtrainWarning(str(folder / "config.json"), Words(changed), expected, "Restore it from run.json")
        warnings.warn(warning, stacklevel=2)
    return config


def _resolve(folder: Path, owner: Owner, trust: Sequence[str]) -> Config:
    """Resolves a saved config; before that, which imports what it names, rejects what is not trusted."""
    demand_trusted(owner.saved, folder / ("run.json" if owner.seals else "config.json"), trust)
    try:
        return resolve_config(owner.saved).config
    except ConfigError as error:
        if owner.seals:  # not damage: a module of the user's that is missing now, or a later version's member
            raise
        got = Words(f"a config that cannot be used ({error})")
        raise StorageError(str(folder / "config.json"), got, "a saved config", RESTORE) from error


def changes_of_config(folder: Path, owner: Owner) -> str:
    """Describes in which way `config.json` differs from what its run saved; "" if it does not."""
    path = folder / "config.json"
    if not owner.seals:
        return ""
    if not exists(path):
        return "nothing"
    try:
        shown = read_json(path)
    except StorageError as error:
        return str(error.got)
    if not isinstance(shown, dict):
        return "JSON that is no object"
    return f"changed values ({in_words(differing)})" if (differing := difference(shown, owner.saved)) else ""


def demand_own(workdir: Path, config: Config, owner: Owner | None) -> None:
    """Raises UsageError if a run of another config owns the directory; StorageError if `config.json` was changed.

    Settings that change no number, such as how often to log, may differ.
    """
    if owner is None:
        return
    saved = changes_numbers(_resolve(workdir, owner, modules_of(config)))
    given = changes_numbers(config)
    if difference(given, saved) and (changed := changes_of_config(workdir, owner)):
        expected = "the config that the run saved, which run.json holds"
        raise StorageError(str(workdir / "config.json"), Words(changed), expected, RESTORE)
    whose = "the directory of a run with another config"
    expected = "a new directory, or that of a run with this config"
    demand_equal(str(workdir), given, saved, whose, expected, "Give another directory")


def claim(workdir: Path, config: Config, run: str) -> None:
    """Writes `run.json`, by which a run owns the directory, and shows its config in `config.json`."""
    saved = through_json(config)
    content = {"format": FORMAT, "id": run, "config": saved, "signature": sign(run, saved)}
    write_sealed(workdir / "run.json", content)
    write_json(workdir / "config.json", config)
