"""The files of one saved step: written through Orbax, read back, and believed only when every checksum agrees.

state/        the leaves as one Orbax checkpoint: a flat dict "params/Dense_0/kernel" -> array
memory.json   what the run remembers beside its state; sha256 of every leaf, of every file of Orbax, and of this file
"""

import errno
import functools
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtrain.core.trees import LeafTable, first_difference, leaf_digests
from jaxtrain.errors import StorageError, UsageError, Words
from jaxtrain.storage.files import write_text

Leaves = dict[str, np.ndarray]


class Damage(Exception):
    """A step whose files are missing, unreadable or not what was written."""


class Record(NamedTuple):
    """What stands in `memory.json`: the table of `leaf_digests`, the run's memory as JSON, sha256 of Orbax's files."""

    leaves: LeafTable
    memory: dict[str, Any]
    files: dict[str, str | None]


def write_step(place: Path, leaves: Leaves, table: LeafTable, memory: dict[str, Any]) -> None:
    """Writes a step into a directory that does not exist yet, verifies it and hands it to the disk."""
    place.mkdir()
    _demand_space(place, leaves)
    _orbax_save(place / "state", leaves)
    files = {
        path.relative_to(place).as_posix(): _file_digest(path) for path in _tree(place / "state") if path.is_file()
    }
    write_record(place, Record(table, memory, files))
    read_step(place, target=None)
    for path in _tree(place):
        flush(path)


def _demand_space(place: Path, leaves: Leaves) -> None:
    """Orbax leaves errors of its threads on the terminal when the disk fills up under it: ask the disk before."""
    disk = os.statvfs(place)
    needed = sum(leaf.nbytes + 512 for leaf in leaves.values()) + 2**16
    if disk.f_blocks and disk.f_bavail * disk.f_frsize < needed:  # some network disks tell nothing: 0 blocks
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_record(place: Path, record: Record) -> None:
    """Writes `memory.json` whole or not at all."""
    write_text(place / "memory.json", json.dumps({"sha256": _seal(record), **record._asdict()}))


def read_record(place: Path) -> Record:
    """Reads `memory.json`; Damage where it is missing, broken or altered."""
    try:
        content = json.loads((place / "memory.json").read_text(encoding="utf-8"))
        seal = content.pop("sha256")
        record = Record(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damage(f"memory.json: {type(error).__name__}") from error
    if seal != _seal(record):
        raise Damage("memory.json fails its checksum")
    return record


def _seal(record: Record) -> str:
    return hashlib.sha256(json.dumps(record._asdict()).encode()).hexdigest()


def read_step(place: Path, target: Any) -> tuple[Leaves, dict[str, Any]]:
    """Reads and verifies the leaves and the memory of a step. A target of None fits everything.

    Damage when something is wrong with the files; UsageError when they are good but do not fit the target.
    """
    _demand_readable(place)
    table, memory, files = read_record(place)
    difference = None if target is None else first_difference(table, target)
    if difference:
        got = Words(f"a state that does not fit this run ({difference})")
        hint = "Give another --workdir, or the model and optimizer of that run"
        raise UsageError(str(place), got, "a state of the same structure", hint)
    # First the files: Orbax leaves errors of its threads on the terminal when it meets a damaged one.
    _demand_equal({path: _file_digest(place / path) for path in files}, files)
    leaves = _orbax_restore(place / "state", table)
    _demand_equal(leaf_digests(leaves), table)
    return leaves, memory


def _demand_equal(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for path, digest in expected.items():
        if found.get(path) != digest:
            raise Damage(f"{path} fails its checksum" if found.get(path) else f"{path} is missing")


def _file_digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:  # a sector that cannot be read
        raise Damage(f"{path.name}: {os.strerror(error.errno or 0)}") from error


def _demand_readable(place: Path) -> None:
    """A file that only lacks permissions is not damage: the user can mend that, and nothing is to be renamed."""
    for path in _tree(place):
        if path.exists() and not os.access(path, os.R_OK):
            got, hint = Words("the error 'Permission denied'"), "Fix the permissions, then run the same command again"
            raise StorageError(str(path), got, "a path that can be read", hint)


def _tree(place: Path) -> Iterator[Path]:
    yield place
    for parent, directories, files in os.walk(place):
        yield from (Path(parent, name) for name in directories + files)


def flush(path: Path) -> None:
    """Waits until a file or the names in a directory are on the disk: after a power cut a named step is a whole one."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Orbax, through its stable interface and in this place only. It restores flipped bits in silence, casts where it is
# told a dtype, and reports a save before it is one: hence the checksums, no target, and the reading back. It refuses
# arrays without elements: the table of the record is enough to make those again.


@functools.cache
def _orbax() -> Any:
    """Imports Orbax when it is first needed (half a second) and mutes its log: what matters in it is raised, too."""
    import orbax.checkpoint

    own = str(Path(orbax.checkpoint.__file__).parent)
    logging.getLogger("absl").addFilter(lambda record: not record.pathname.startswith(own))
    return orbax.checkpoint


def _orbax_save(place: Path, leaves: Leaves) -> None:
    orbax = _orbax()
    filled = {path: leaf for path, leaf in leaves.items() if leaf.size}
    # Weights and moments hardly shrink: compressing them would cost more than it saves.
    with orbax.Checkpointer(orbax.PyTreeCheckpointHandler(use_compression=False)) as checkpointer:
        checkpointer.save(place, args=orbax.args.PyTreeSave(filled))


def _orbax_restore(place: Path, table: LeafTable) -> Leaves:
    orbax = _orbax()
    empty = {path: np.zeros(form["shape"], form["dtype"]) for path, form in table.items() if 0 in form["shape"]}
    as_saved = {path: orbax.RestoreArgs(restore_type=np.ndarray) for path in table if path not in empty}
    with orbax.Checkpointer(orbax.PyTreeCheckpointHandler()) as checkpointer:
        try:
            return empty | checkpointer.restore(place, args=orbax.args.PyTreeRestore(restore_args=as_saved))
        except (MemoryError, ImportError):
            raise
        except Exception as error:  # damage has no type of its own: ValueError, KeyError, JSONDecodeError, Exception
            raise Damage(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}") from error
