"""A run's directory: made once, held by one process at a time, its small files written whole or not at all."""

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from jaxtrain.errors import StorageError, UsageError

BEAT_SECONDS = 2.0  # how often an owner renews its file where the file system has no locks
STALE_SECONDS = 30.0  # an owner that has not renewed it for so long is taken to be dead

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_REMEDIES = {
    errno.ENOSPC: "free some space, or give a --workdir on another disk",
    errno.EDQUOT: "free some of the quota, or give a --workdir on another disk",
    errno.EFBIG: "raise the limit of the size of files (ulimit -f)",
    errno.EROFS: "give a --workdir that can be written",
    errno.EACCES: "give a --workdir that can be written, or mend the permissions",
    errno.EPERM: "give a --workdir that can be written, or mend the permissions",
    errno.ENOTDIR: "a regular file is in the way: move it, or give another --workdir",
    errno.EEXIST: "a regular file is in the way: move it, or give another --workdir",
    errno.EISDIR: "a directory is in the way: move it, or give another --workdir",
}


def storage_error(path: Path, action: str, error: BaseException) -> StorageError:
    """Builds the one line for a path that could not be written or read: the reason and what to do."""
    number, reason = _reason(error)
    remedy = _REMEDIES.get(number, "look after the disk, then run the same command again")
    return StorageError(f"{path}: cannot be {action}: {reason}; {remedy}")


def _reason(error: BaseException) -> tuple[int, str]:
    if isinstance(error, OSError) and error.errno:
        return error.errno, os.strerror(error.errno)
    # Libraries in C++ hide the number and show the system's words for it.
    for number in _REMEDIES:
        if os.strerror(number).lower() in str(error).lower():
            return number, os.strerror(number)
    lines = str(error).strip().splitlines() or [""]
    return 0, f"{type(error).__name__}: {lines[0][:200]}"


def make_directory(path: Path) -> None:
    """Makes a directory and its parents; StorageError on a full or read-only disk or below a regular file."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, "made", error) from error


def write_json(path: Path, value: Any) -> None:
    """Writes JSON such that the file is the old or the new one, never half; nan and infinities become null.

    Arrays and scalars of NumPy become lists and numbers. StorageError where the disk says no.
    """
    write_text(path, json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text such that the file is the old or the new one, never half; StorageError where the disk says no."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise storage_error(path, "written", error) from error


def read_json(path: Path) -> Any:
    """Reads a JSON file; StorageError when it is not there, cannot be read, or is broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {os.strerror(error.errno or errno.EIO)}") from error
    except ValueError as error:
        raise StorageError(f"{path}: is not JSON ({error}): restore it from a copy, or remove it") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # an array or a scalar of NumPy, which need not be imported to know one
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
    return UsageError(f"{workdir}: in use by {who}; wait for it, stop it, or give another --workdir")


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
