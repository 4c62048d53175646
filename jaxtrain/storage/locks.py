"""A lock on a directory: one process holds it at a time, and it is released when the process ends."""

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from jaxtrain.errors import UsageError, Words
from jaxtrain.files import make_directory, storage_error

BEAT_SECONDS = 2.0  # how often an owner renews its file where the file system has no locks


STALE_SECONDS = 30.0  # an owner that has not renewed its file for this long is taken to be dead


_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@contextlib.contextmanager
def run_lock(workdir: Path) -> Iterator[None]:
    """Locks the directory, made if it is missing, for this process; the lock ends with the process.

    Raises UsageError, naming the owner, while another process holds it; StorageError when it cannot be made or written.
    """
    make_directory(workdir)
    try:
        lock = (workdir / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise storage_error(workdir, "locked", error) from error
    with lock:
        # A forked data worker shares the open file and must not keep the lock when it outlives this process.
        os.register_at_fork(after_in_child=lock.close)
        if _try_flock(lock, workdir):
            yield
        else:
            with _hold_owner_file(workdir):
                yield


def _try_flock(lock: TextIO, workdir: Path) -> bool:
    """Locks the file and writes the owner into it; False if the file system has no locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        raise _in_use(workdir, lock.read()) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise storage_error(workdir, "locked", error) from error
    try:
        lock.truncate(0)
        lock.write(_owner())
        lock.flush()
    except OSError as error:
        raise storage_error(workdir, "locked", error) from error
    return True


def _owner() -> str:
    started = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": started}) + "\n"


def _in_use(workdir: Path, owner: str) -> UsageError:
    try:
        who = "process {pid} on host {host} since {started}".format(**json.loads(owner))
    except (ValueError, KeyError, TypeError):  # read after the owner took the lock and before it wrote its name
        who = "another process"
    got = Words(f"a directory in use by {who}")
    hint = "Wait for it, stop it, or give another --workdir"
    return UsageError(str(workdir), got, "one that no other process uses", hint)


# On a file system without locks, each owner has a file `.owner-<n>` that it touches every few seconds. The highest n is
# the current owner. A process takes over from a dead or finished owner by creating n + 1, which only one process can
# do. Numbers are never reused, because an owner that leaves marks its file as released and does not remove it. So a
# process that judges n dead and acts late does no harm.
_RELEASED = "released\n"


@contextlib.contextmanager
def _hold_owner_file(workdir: Path) -> Iterator[None]:
    try:
        path = _become_owner(workdir)
    except OSError as error:
        raise storage_error(workdir, "locked", error) from error
    leaving = threading.Event()
    beat = threading.Thread(target=_keep_beating, args=(path, leaving), name="jaxtrain-owner", daemon=True)
    beat.start()
    try:
        yield
    finally:
        leaving.set()
        beat.join()
        with (
            contextlib.suppress(OSError),
            path.open("r+", encoding="utf-8") as file,
        ):  # on failure it goes stale by itself
            file.truncate(0)
            file.write(_RELEASED)


def _keep_beating(path: Path, leaving: threading.Event) -> None:
    while not leaving.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):  # the file server may be briefly unreachable
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
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_owner())
    except FileExistsError:
        return False
    owners = _owners(workdir)
    if max(owners) != number:
        path.unlink()
        return False
    for older in owners:
        if older < number:
            (workdir / f".owner-{older}").unlink(missing_ok=True)
    return True


def _owners(workdir: Path) -> list[int]:
    return [int(match[1]) for name in os.listdir(workdir) if (match := re.fullmatch(r"\.owner-(\d+)", name))]


def _living_owner(path: Path) -> str | None:
    """Watches an owner file; returns its text once it is renewed, None when it is released, removed or stale."""
    try:
        first = path.stat()
        deadline = time.monotonic() + STALE_SECONDS - (_file_system_time(path.parent) - first.st_mtime)
        while time.monotonic() < deadline:
            owner = path.read_text(encoding="utf-8")
            if owner == _RELEASED:
                return None
            if path.stat().st_mtime_ns != first.st_mtime_ns:
                return owner
            time.sleep(0.05)
    except FileNotFoundError:  # a newer owner removed it
        pass
    return None


def _file_system_time(directory: Path) -> float:
    """Returns the file system's time, since the clocks of two hosts may differ by more than STALE_SECONDS."""
    probe = directory / f".clock-{os.getpid()}-{threading.get_ident()}"
    probe.touch()
    seconds = probe.stat().st_mtime
    probe.unlink()
    return seconds
