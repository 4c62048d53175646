"""The lock of a directory: one process holds it at a time, and it dies with the process."""

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
from jaxtrain.storage.files import make_directory, storage_error

BEAT_SECONDS = 2.0  # how often an owner renews its file where the file system has no locks


STALE_SECONDS = 30.0  # an owner that has not renewed it for so long is taken to be dead


_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@contextlib.contextmanager
def run_lock(workdir: Path) -> Iterator[None]:
    """Holds the directory (made where it is missing) for this process; the lock dies with the process.

    UsageError, naming the owner, while another process holds it; StorageError where it cannot be made or written.
    """
    make_directory(workdir)
    try:
        lock = (workdir / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise storage_error(workdir, "locked", error) from error
    with lock:
        # A forked data worker that outlives this process must not keep the lock: it shares the open file.
        os.register_at_fork(after_in_child=lock.close)
        if _flocked(lock, workdir):
            yield
        else:
            with _owned(workdir):
                yield


def _flocked(lock: TextIO, workdir: Path) -> bool:
    """Locks the file and writes the owner into it; False where the file system knows no locks."""
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
    except (ValueError, KeyError, TypeError):  # caught between its lock and its name
        who = "another process"
    got, hint = Words(f"a directory in use by {who}"), "Wait for it, stop it, or give another --workdir"
    return UsageError(str(workdir), got, "one that no other process uses", hint)


# Without locks an owner is a file `.owner-<n>` that is touched every few seconds. The highest n counts. To take over
# from a dead or finished owner is to create n + 1, which one process alone can do; numbers are never used twice,
# because an owner that leaves marks its file and lets it lie. Judging n dead and acting late therefore harms nobody.
_RELEASED = "released\n"


@contextlib.contextmanager
def _owned(workdir: Path) -> Iterator[None]:
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
        with contextlib.suppress(OSError), path.open("r+", encoding="utf-8") as file:  # else it goes stale by itself
            file.truncate(0)
            file.write(_RELEASED)


def _keep_beating(path: Path, leaving: threading.Event) -> None:
    while not leaving.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):  # a server that is away for a moment
            os.utime(path)


def _become_owner(workdir: Path) -> Path:
    while True:
        newest = max(_owners(workdir), default=0)
        path = workdir / f".owner-{newest}"
        if newest and (owner := _living_owner(path)) is not None:
            raise _in_use(workdir, owner)
        if _claimed(workdir, newest + 1):
            return workdir / f".owner-{newest + 1}"


def _claimed(workdir: Path, number: int) -> bool:
    """Creates the owner's file with this number and removes the older ones; False when another process was faster."""
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
    """Watches an owner's file: its text once it is renewed, None when it is released, removed or older than allowed."""
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
    except FileNotFoundError:  # a newer owner has cleared it away
        pass
    return None


def _file_system_time(directory: Path) -> float:
    """Asks the file system for the time: the clocks of two hosts may differ by more than an owner may be silent."""
    probe = directory / f".clock-{os.getpid()}-{threading.get_ident()}"
    probe.touch()
    seconds = probe.stat().st_mtime
    probe.unlink()
    return seconds
