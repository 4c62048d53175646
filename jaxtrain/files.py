"""Makes directories, writes text and JSON atomically, and explains errors of the file system."""

import contextlib
import errno
import json
import math
import os
import threading
from pathlib import Path
from typing import Any

from jaxtrain.errors import StorageError, Words

_REMEDIES = {
    errno.ENOSPC: "Free some space, or give a --workdir on another disk",
    errno.EDQUOT: "Free some of the quota, or give a --workdir on another disk",
    errno.EFBIG: "Raise the limit of the size of files (ulimit -f)",
    errno.ENAMETOOLONG: "Give a shorter name",
    errno.EROFS: "Give a --workdir that can be written",
    errno.EACCES: "Give a --workdir that can be written, or fix the permissions",
    errno.EPERM: "Give a --workdir that can be written, or fix the permissions",
    errno.ENOTDIR: "Move the regular file that is in the way, or give another --workdir",
    errno.EEXIST: "Move the regular file that is in the way, or give another --workdir",
    errno.EISDIR: "Move the directory that is in the way, or give another --workdir",
}


def storage_error(path: Path, action: str, error: BaseException) -> StorageError:
    """Builds the error for a path that could not be read or written: one line with the reason and a remedy."""
    number, reason = _reason(error)
    remedy = _REMEDIES.get(number, "Check the disk, then run the same command again")
    return StorageError(str(path), Words(f"the error {reason!r}"), f"a path that can be {action}", remedy)


def _reason(error: BaseException) -> tuple[int, str]:
    if isinstance(error, OSError) and error.errno:
        return error.errno, os.strerror(error.errno)
    # C++ libraries hide the error number and show only its text.
    for number in _REMEDIES:
        if os.strerror(number).lower() in str(error).lower():
            return number, os.strerror(number)
    lines = str(error).strip().splitlines() or [""]
    return 0, f"{type(error).__name__}: {lines[0][:200]}"


def make_directory(path: Path) -> None:
    """Makes a directory and its parents; raises StorageError on a full or read-only disk or below a regular file."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, "made", error) from error


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically: the file holds either the old or the new content. nan and infinities become null.

    NumPy arrays and scalars become lists and numbers. Raises StorageError when the file cannot be written.
    """
    write_text(path, json.dumps(_to_json_value(value), indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text atomically: the file holds either the old or the new content.

    Raises StorageError when the file cannot be written.
    """
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
    """Reads a JSON file; raises StorageError when it is missing, unreadable or malformed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        got = Words(f"the error {os.strerror(error.errno or errno.EIO)!r}")
        raise StorageError(str(path), got, "a file that can be read") from error
    except ValueError as error:
        got = Words(f"text that is not JSON ({error})")
        raise StorageError(str(path), got, "JSON", "Restore it from a copy, or remove it") from error


def _to_json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_json_value(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # a NumPy array or scalar, recognised without importing NumPy
        return _to_json_value(value.tolist())
    if isinstance(value, list | tuple):
        return [_to_json_value(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
