"""Writes and reads the files of one saved step through Orbax, and verifies every checksum.

state/        the leaves as one Orbax checkpoint: a flat dict "params/Dense_0/kernel" -> array
memory.json   the manifest: the step, the id of the run, the run's bookkeeping beside its state, and sha256 of every
              leaf, of every Orbax file and of the manifest itself
"""

import errno
import functools
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtrain.core.trees import LeafTable, first_difference, leaf_digests, named_leaves
from jaxtrain.errors import StorageError, UsageError, Words
from jaxtrain.files import exists, guarded, is_file, open_file, read_json, write_text

Leaves = dict[str, np.ndarray]

MANIFEST = "memory.json"

DESCRIPTORS = Path("/proc/self/fd")
"""The folder in which Linux lists the open descriptors of this process; elsewhere missing."""


class Damage(Exception):
    """Raised for a step whose files are missing, unreadable or altered."""


class Manifest(NamedTuple):
    """Content of `memory.json`.

    leaves: the table of `leaf_digests`; memory: the run's bookkeeping as JSON; files: path -> sha256 of Orbax's files;
    step, run: the step and the id of the run that it belongs to, None in manifests of earlier versions.
    """

    leaves: LeafTable
    memory: dict[str, Any]
    files: dict[str, str | None]
    step: int | None = None
    run: str | None = None


def write_step(place: Path, leaves: Leaves, manifest: Manifest) -> None:
    """Writes a step into a new directory, reads it back to verify it, and flushes it to the disk.

    `files` of the manifest is filled in.
    """
    with guarded(place, "made"):
        place.mkdir()
    _demand_space(place, leaves)
    _orbax_save(place / "state", leaves)
    files = {path.relative_to(place).as_posix(): _file_digest(path) for path in _tree(place / "state") if is_file(path)}
    write_manifest(place, manifest._replace(files=files))
    read_leaves(place, read_manifest(place), target=None)
    for path in _tree(place):
        flush(path)


def _demand_space(place: Path, leaves: Leaves) -> None:
    """Raises StorageError when the disk has too little free space for the leaves.

    Checked first, because Orbax's threads print errors on the terminal when the disk fills up during a save.
    """
    needed = sum(leaf.nbytes + 512 for leaf in leaves.values()) + 2**16
    with guarded(place, "written"):
        disk = os.statvfs(place)
        if disk.f_blocks and disk.f_bavail * disk.f_frsize < needed:  # some network disks report 0 blocks
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_manifest(place: Path, manifest: Manifest) -> None:
    """Writes `memory.json` atomically."""
    write_text(place / MANIFEST, json.dumps({"sha256": _seal(manifest), **_content(manifest)}))


def read_manifest(place: Path) -> Manifest:
    """Reads `memory.json`; raises Damage if it is missing, malformed or altered."""
    try:
        content = read_json(place / MANIFEST)
        seal = content.pop("sha256")
        manifest = Manifest(**content)
    except StorageError as error:
        raise Damage(f"memory.json: {error.got}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise Damage("memory.json: other keys") from error
    if seal != _seal(manifest):
        raise Damage("memory.json fails its checksum")
    return manifest


def _seal(manifest: Manifest) -> str:
    return hashlib.sha256(json.dumps(_content(manifest)).encode()).hexdigest()


def _content(manifest: Manifest) -> dict[str, Any]:
    """Returns the keys of the file; manifests of earlier versions have neither step nor run."""
    return {key: value for key, value in manifest._asdict().items() if value is not None}


def read_leaves(place: Path, manifest: Manifest, target: Any) -> Leaves:
    """Reads the leaves of a step and verifies them. With a target of None the structure is not checked.

    Raises Damage for files that fail their checksums, and UsageError for valid files that do not fit the target.
    """
    table = manifest.leaves
    difference = None if target is None else first_difference(table, target)
    if difference:
        raise _misfit(place, table, target, difference)
    # First the files: Orbax leaves errors of its threads on the terminal when it meets a damaged one.
    _demand_equal({path: _file_digest(place / path) for path in manifest.files}, manifest.files)
    leaves = _orbax_restore(place / "state", table)
    _demand_equal(leaf_digests(leaves), table)
    return leaves


FROZEN = "frozen/"
"""The field of a state that holds the parameters that no step changes."""


def _misfit(place: Path, table: LeafTable, target: Any, difference: str) -> UsageError:
    """Returns the error of a state of another structure, which says why where an earlier version wrote it."""
    has_frozen = any(path.startswith(FROZEN) for path, _ in named_leaves(target))
    if has_frozen and not any(path.startswith(FROZEN) for path in table):
        got = Words("a run whose frozen parameters lie among the others, as in earlier versions")
        hint = "Start another run from its weights by checkpoint.init_from, or use the version that began it"
        return UsageError(str(place), got, "frozen parameters that lie apart", hint)
    got = Words(f"a state that does not fit this run ({difference})")
    hint = "Give another directory, or the model and optimizer of that run"
    return UsageError(str(place), got, "a state of the same structure", hint)


def _demand_equal(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for path, digest in expected.items():
        if actual.get(path) != digest:
            raise Damage(f"{path} fails its checksum" if actual.get(path) else f"{path} is missing")


def _file_digest(path: Path) -> str | None:
    try:
        if not exists(path):
            return None
        with open_file(path) as file, guarded(path, "read"):
            return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType] (a real file)
    except StorageError as error:  # a sector that cannot be read, or a pipe in its place
        raise Damage(f"{path.name}: {error.got}") from error


def demand_readable(place: Path) -> None:
    """Raises StorageError for a file of a step without read permission: that is not damage, and the user can fix it."""
    for path in _tree(place):
        with guarded(path, "read"):
            effective = os.access in os.supports_effective_ids  # as open() is allowed to
            readable = not path.exists() or os.access(path, os.R_OK, effective_ids=effective)
        if not readable:
            got = Words("the error 'Permission denied'")
            hint = "Fix the permissions, then run the same command again"
            raise StorageError(str(path), got, "a path that can be read", hint)


def _tree(place: Path) -> Iterator[Path]:
    yield place
    with guarded(place, "read"):
        for parent, directories, files in os.walk(place):
            yield from (Path(parent, name) for name in directories + files)


def flush(path: Path) -> None:
    """Flushes a file or a directory's entries to the disk, so that a committed step is complete after a power cut."""
    with guarded(path, "written"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# Only the functions below call Orbax, through its stable interface. Orbax restores flipped bits silently, hence the
# checksums. It casts when given a dtype, hence no target. It reports a save before it is complete, hence the reading
# back. It refuses arrays without elements, which are made again from the shapes and dtypes in the manifest.
# It takes a directory /s3 or gs: for a bucket. Its C++ part takes a backslash for a separator and rejects names that
# are no UTF-8. So it gets a descriptor in the place of the path.


@functools.cache
def _orbax() -> Any:
    """Imports Orbax on first use (half a second) and mutes its log: errors are raised as well."""
    import orbax.checkpoint

    own = str(Path(orbax.checkpoint.__file__).parent)
    logging.getLogger("absl").addFilter(lambda manifest: not manifest.pathname.startswith(own))
    return orbax.checkpoint


def _orbax_save(place: Path, leaves: Leaves) -> None:
    orbax = _orbax()
    filled = {path: leaf for path, leaf in leaves.items() if leaf.size}
    # Uncompressed: weights and moments hardly shrink.
    with (
        _plain_path(place) as plain,
        orbax.Checkpointer(orbax.PyTreeCheckpointHandler(use_compression=False)) as checkpointer,
    ):
        checkpointer.save(plain, args=orbax.args.PyTreeSave(filled))


def _orbax_restore(place: Path, table: LeafTable) -> Leaves:
    orbax = _orbax()
    empty = {path: np.zeros(form["shape"], form["dtype"]) for path, form in table.items() if 0 in form["shape"]}
    as_saved = {path: orbax.RestoreArgs(restore_type=np.ndarray) for path in table if path not in empty}
    with _plain_path(place) as plain, orbax.Checkpointer(orbax.PyTreeCheckpointHandler()) as checkpointer:
        try:
            return empty | checkpointer.restore(plain, args=orbax.args.PyTreeRestore(restore_args=as_saved))
        except (MemoryError, ImportError):
            raise
        except Exception as error:  # Orbax has no exception of its own for damage: ValueError, KeyError, Exception
            raise Damage(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}") from error


@contextmanager
def _plain_path(place: Path) -> Iterator[Path]:
    """Yields a path to `place` without the names of its parents, which may hold any byte that the file system takes.

    It leads through a descriptor of the parent, or, where the system does not list these, a link in a temporary
    directory.
    """
    with guarded(place, "opened"):
        parent = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            listed = DESCRIPTORS / str(parent)
            if listed.is_dir():
                yield listed / place.name
                return
            with tempfile.TemporaryDirectory() as folder:
                link = Path(folder, "parent")
                link.symlink_to(place.parent)
                yield link / place.name
        finally:
            os.close(parent)
