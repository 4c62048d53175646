"""A lock on a directory: one process holds it at a time, and it is released when the process ends."""

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jaxtrain.errors import StorageError, UsageError, Words
from jaxtrain.files import directory_in_use, guarded, list_directory, open_locked, read_text, remove, write_text

BEAT_SECONDS = 2.0  # how often an owner renews its file where the file system has no locks


STALE_SECONDS = 30.0  # an owner that has not renewed its file for this long is taken to be dead


@contextlib.contextmanager
def run_lock(workdir: Path) -> Iterator[None]:
    """Locks the directory, made if it is missing, for this process; the lock ends with the process.

    Afterwards it removes its files, and a directory that it made if nothing was written to it. Raises
    UsageError, naming the owner, while another process holds it; StorageError when it cannot be made or written.
    """
    path = workdir / ".lock"
    with directory_in_use(workdir), contextlib.ExitStack() as held:
        try:
            lock, locked = open_locked(path, wait=False)
        except BlockingIOError:
            raise _in_use(workdir, _read_owner(path)) from None
        held.enter_context(lock)
        held.callback(_remove_if_possible, path)
        # A forked data worker shares the open file and must not keep the lock when it outlives this process.
        os.register_at_fork(after_in_child=lock.close)
        _write_owner(lock, path)
        if not locked:
            held.enter_context(_hold_owner_file(workdir))
        yield


def _remove_if_possible(path: Path) -> None:
    with contextlib.suppress(StorageError):
        remove(path)


def _write_owner(lock: BinaryIO, path: Path) -> None:
    with guarded(path, "written"):
        lock.truncate(0)
        lock.write(_owner().encode())


def _read_owner(path: Path) -> str:
    with contextlib.suppress(StorageError):  # it has just been removed
        return read_text(path)
    return ""


def _owner() -> str:
    started = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": started}) + "\n"


def _in_use(workdir: Path, owner: str) -> UsageError:
    try:
        who = "process {pid} on host {host} since {started}".format(**json.loads(owner))
    except (ValueError, KeyError, TypeError):  # read after the owner took the lock and before it wrote its name
        who = "another process"
    got = Words(f"a directory in use by {who}")
    hint = "Wait for it, stop it, or give another directory"
    return UsageError(str(workdir), got, "one that no other process uses", hint)


# On a file system without locks, each owner has a file `.owner-<n>` that it touches every few seconds. The highest n is
# the current owner. A process takes over from a dead or finished owner by creating n + 1, which only one process can
# do. Numbers are never reused, because an owner that leaves marks its file as released and does not remove it. So a
# process that judges n dead and acts late does no harm.
_RELEASED = "released\n"


@contextlib.contextmanager
def _hold_owner_file(workdir: Path) -> Iterator[None]:
    path = _become_owner(workdir)
    leaving = threading.Event()
    beat = threading.Thread(target=_keep_beating, args=(path, leaving), name="jaxtrain-owner", daemon=True)
    beat.start()
    try:
        yield
    finally:
        leaving.set()
        beat.join()
        with contextlib.suppress(StorageError):  # then it goes stale by itself
            write_text(path, _RELEASED)


def _keep_beating(path: Path, leaving: threading.Event) -> None:
    while not leaving.wait(BEAT_SECONDS):
        with contextlib.suppress(StorageError), guarded(path, "written"):  # the server may be briefly unreachable
            os.utime(path)


def _become_owner(workdir: Path) -> Path:
    while True:
        newest = max(_owners(workdir), default=0)
        path = workdir / f".owner-{newest}"
        if newest and (owner := _living_owner(path)) is not None:
            raise _in_use(workdir, owner)
        if _claim(workdir, newest + 1):
            return workdir / f".owner-{newest + 1}"


def _claim(workdir: Path, number: int) -> bool:
    """Creates the owner file with this number and removes older ones; False when another process was faster."""
    path = workdir / f".owner-{number}"
    with guarded(path, "written"):
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(_owner())
        except FileExistsError:
            return False
    owners = _owners(workdir)
    if max(owners) != number:
        remove(path)
        return False
    for older in owners:
        if older < number:
            remove(workdir / f".owner-{older}")
    return True


def _owners(workdir: Path) -> list[int]:
    return [int(match[1]) for name in list_directory(workdir) if (match := re.fullmatch(r"\.owner-(\d+)", name))]


def _living_owner(path: Path) -> str | None:
    """Watches an owner file; returns its text once it is renewed, None when it is released, removed or stale."""
    with guarded(path, "read"), contextlib.suppress(FileNotFoundError):  # a newer owner removes it
        first = path.stat()
        deadline = time.monotonic() + STALE_SECONDS - (_file_system_time(path.parent) - first.st_mtime)
        while time.monotonic() < deadline:
            owner = path.read_text(encoding="utf-8")
            if owner == _RELEASED:
                return None
            if path.stat().st_mtime_ns != first.st_mtime_ns:
                return owner
            time.sleep(0.05)
    return None


def _file_system_time(directory: Path) -> float:
    """Returns the file system's time, since the clocks of two hosts may differ by more than STALE_SECONDS."""
    probe = directory / ".clock"
    with guarded(probe, "written"), probe.open("ab") as file:
        os.utime(file.fileno())
        seconds = os.fstat(file.fileno()).st_mtime
        probe.unlink(missing_ok=True)
    return seconds
