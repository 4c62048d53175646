"""Every touch of the file system. What fails is raised as one line: the path, the reason, and what to do about it.

Only regular files are opened: a device may have no end, and a named pipe waits for its other end.
"""

import contextlib
import errno
import fcntl
import glob
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jaxtrain.errors import JaxtrainError, StorageError, Words

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}

_IN_THE_WAY = "Move the regular file or broken link that is in the way, or give another directory"
_REMEDIES = {
    errno.ENOSPC: "Free some space, or give a directory on another disk",
    errno.EDQUOT: "Free some of the quota, or give a directory on another disk",
    errno.EFBIG: "Raise the limit of the size of files (ulimit -f)",
    errno.EMFILE: "Raise the limit of open files (ulimit -n)",
    errno.ENAMETOOLONG: "Give a shorter name",
    errno.EROFS: "Give a directory that can be written",
    errno.EACCES: "Fix the permissions, or give another path",
    errno.EPERM: "Fix the permissions, or give another path",
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.EISDIR: "Move the directory that is in the way, or give another path",
    errno.ELOOP: "Remove the link that leads back to itself, or give another path",
    errno.ENOENT: "Check the path: a directory or a link on the way leads to nothing",
}
_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


LITTER = (
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("__macosx", "icon\r", "@eadir", "lost+found"),
)
"""Names in lower case of what operating systems and network drives put beside the files of users."""


def storage_error(path: Path | str, action: str, error: BaseException) -> StorageError:
    """Builds the error for a path that could not be read or written: one line with the reason and a remedy."""
    reason, remedy = _explain(error)
    return StorageError(str(path), Words(f"the error {reason!r}"), f"a path that can be {action}", remedy)


def _explain(error: BaseException) -> tuple[str, str]:
    """Returns the reason and a remedy."""
    if isinstance(error, UnicodeDecodeError):
        return "not a text in UTF-8", "Save it as UTF-8"
    if _is_no_name(error):
        return "not a name of a file", "Give a name without null bytes and lone surrogates"
    number = error.errno if isinstance(error, OSError) else None
    # C++ libraries hide the error number and show only its text.
    hidden = (known for known in _REMEDIES if os.strerror(known).lower() in str(error).lower())
    number = number or next(hidden, None)
    if number:
        return os.strerror(number), _REMEDIES.get(number, "Check the disk, then run the same command again")
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}", "Check the disk, then run the same command again"


def _is_no_name(error: BaseException) -> bool:
    """Tells whether the system was given a path that it cannot be given: a null byte or a lone surrogate in it."""
    return isinstance(error, UnicodeEncodeError) or (isinstance(error, ValueError) and "null byte" in str(error))


@contextlib.contextmanager
def guarded(path: Path | str, action: str) -> Iterator[None]:
    """Raises errors of the file system in a block as StorageError: `path` could not be `action`, such as "read"."""
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise storage_error(path, action, error) from error
    except ValueError as error:
        if not _is_no_name(error):
            raise
        raise storage_error(path, action, error) from error


@contextlib.contextmanager
def reported_as(kind: type[JaxtrainError], key: str = "") -> Iterator[None]:
    """Raises the StorageErrors of a block as errors of another kind; where `key` is given, on "key path"."""
    try:
        yield
    except StorageError as error:
        where = f"{key} {error.key}" if key else error.key
        raise kind(where, error.got, error.expected, error.hint) from error


def exists(path: Path) -> bool:
    """Tells whether there is anything at a path; a link that leads to nothing is nothing.

    Raises StorageError where the system does not tell: no permission, a name that is too long, a loop of links.
    """
    return _mode(path) is not None


def is_directory(path: Path) -> bool:
    """Tells whether there is a directory at a path; raises StorageError as `exists`."""
    return stat.S_ISDIR(_mode(path) or 0)


def is_file(path: Path) -> bool:
    """Tells whether there is a regular file at a path; raises StorageError as `exists`."""
    return stat.S_ISREG(_mode(path) or 0)


def is_same_file(path: Path, other: Path) -> bool:
    """Tells whether two paths lead to the same file or directory; one that leads to nothing is the same as none."""
    with guarded(path, "read"):
        return _mode(path) is not None and _mode(other) is not None and path.samefile(other)


def is_plain_file(path: str) -> bool:
    """Tells whether there is a regular file at a path, reached by no link in its last step; quick, for many files."""
    with guarded(path, "read"):
        try:
            return stat.S_ISREG(os.lstat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False


def _mode(path: Path) -> int | None:
    with guarded(path, "read"):
        try:
            return path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None


def demand_ordinary(path: Path) -> None:
    """Raises StorageError for a named pipe, a device or a socket; a missing path is none."""
    special = _SPECIAL.get(stat.S_IFMT(_mode(path) or 0))
    if special:
        raise StorageError(str(path), Words(special), "a regular file", "Give another path, or move it away")


def list_directory(path: Path) -> list[str]:
    """Returns the sorted names in a directory, none if it is missing; raises StorageError if it cannot be read."""
    with guarded(path, "read"):
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []


def is_litter(name: str) -> bool:
    """Tells whether a file or folder is none of its user's, by its name."""
    return name.lower() in LITTER


def list_data(path: Path) -> list[str]:
    """Lists a directory as `list_directory`, without hidden names and litter."""
    return [name for name in list_directory(path) if not name.startswith(".") and not is_litter(name)]


def find_matching(pattern: str) -> list[Path]:
    """Returns the sorted paths that a pattern such as "data/*.png" matches, without litter and what lies in it.

    Raises StorageError as `list_directory`.
    """
    given = [*map(glob.has_magic, Path(pattern).parts), True].index(True)
    with guarded(pattern, "read"):
        paths = [Path(path) for path in sorted(glob.glob(pattern, recursive=True))]
    return [path for path in paths if not any(map(is_litter, path.parts[given:]))]


def user_folder(variable: str, default: str) -> Path:
    """Returns the user's folder for this package: in the one that a variable names, else in `default` of the home.

    Raises StorageError if there is no home.
    """
    try:
        return Path(os.environ.get(variable) or Path.home() / default) / "jaxtrain"
    except RuntimeError as error:
        raise StorageError("~", Words("no home"), f"a home, or a folder in {variable}") from error


def working_directory() -> Path | None:
    """Returns the working directory; None if it was removed."""
    try:
        return Path.cwd()
    except OSError:
        return None


def open_file(path: Path, mode: str = "rb", *, buffering: int = -1) -> BinaryIO:
    """Opens a regular file; `mode` is binary. Raises StorageError if it cannot be opened, or is no regular file."""
    demand_ordinary(path)
    with guarded(path, "read" if mode == "rb" else "written"):
        return open(path, mode, buffering)  # pyright: ignore[reportReturnType] (binary by its mode)


def read_bytes(path: Path) -> bytes:
    """Reads a regular file; raises StorageError when that fails."""
    with guarded(path, "read"), open_file(path) as file:
        return file.read()


def read_quickly(path: str, most: int = -1) -> bytes:
    """Reads a regular file, or its first `most` bytes, in half the time of `read_bytes`: for many small files.

    Raises StorageError when that fails.
    """
    with guarded(path, "read"):
        if not stat.S_ISREG(os.stat(path).st_mode):
            demand_ordinary(Path(path))
        with open(path, "rb", 0) as file:
            return file.read(most)


def file_size(path: str) -> int:
    """Returns the bytes of a file; raises StorageError if the system does not tell."""
    with guarded(path, "read"):
        return os.stat(path).st_size


def file_time(path: str) -> int:
    """Returns when a file was written, in nanoseconds; raises StorageError if the system does not tell."""
    with guarded(path, "read"):
        return os.stat(path).st_mtime_ns


def full_path(path: str) -> str:
    """Returns a path from the root of the file system; links stay."""
    return os.path.abspath(path)


def free_space(path: Path) -> int:
    """Returns the free bytes of the disk that holds a path; raises StorageError when that cannot be asked."""
    with guarded(path, "read"):
        return shutil.disk_usage(path).free


def real_path(path: Path) -> Path:
    """Returns a path without links; raises StorageError for a link that leads to nothing."""
    with guarded(path, "read"):
        return path.resolve(strict=True)


def read_text(path: Path) -> str:
    """Reads a regular file as UTF-8; raises StorageError when that fails."""
    with guarded(path, "read"):
        return read_bytes(path).decode()


def read_json(path: Path) -> Any:
    """Reads a JSON file; raises StorageError when it is missing, unreadable or malformed."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        got = Words(f"text that is not JSON ({error})")
        raise StorageError(str(path), got, "JSON", "Restore it from a copy, or remove it") from error


def make_directory(path: Path, *, private: bool = False) -> None:
    """Makes a directory and its parents; a private one only its user may enter. Raises StorageError when that fails."""
    with guarded(path, "made"):
        path.mkdir(parents=True, exist_ok=True)
        if private:
            path.chmod(0o700)


def temporary_of(path: Path) -> Path:
    """Returns the path under which a file is written before it takes its name."""
    return path.with_name(f".{path.name}.tmp")


def write_all(file: BinaryIO, content: bytes) -> None:
    """Writes all of the content to an unbuffered file; a disk that fills up accepts a part first, then raises."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically: it holds either the old or the new content; raises StorageError when that fails.

    Nothing but a regular file is replaced, least of all a device, whose place a superuser could take. A kill may leave
    `temporary_of` the path beside it, which the next write of the file replaces.
    """
    demand_ordinary(path)
    temporary = temporary_of(path)
    try:
        file, _ = open_locked(temporary)
    except StorageError as error:
        if os.path.lexists(temporary):  # it is what is in the way
            raise
        raise storage_error(path, "written", error.__cause__ or error) from error
    with guarded(path, "written"), file:
        try:
            file.truncate(0)
            write_all(file, content)
            os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def demand_writable(*paths: Path) -> None:
    """Raises StorageError if a file cannot be written at one of the paths, for what is written after minutes of work.

    Leaves nothing behind: it tries an empty file in each directory, or in the nearest one that exists above it.
    """
    first: dict[Path, Path] = {}  # directory -> the first path in it
    for path in paths:
        demand_ordinary(path)
        if is_directory(path):
            raise storage_error(path, "written", IsADirectoryError(errno.EISDIR, ""))
        first.setdefault(next(parent for parent in path.absolute().parents if os.path.lexists(parent)), path)
    for place, path in first.items():
        probe = place / f".{path.name}.probe"
        try:
            write_bytes(probe, b"")
        except StorageError as error:
            raise storage_error(path, "written", error.__cause__ or error) from error
        remove(probe)


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8, as `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, as `write_bytes`. nan and infinities become null, NumPy arrays and scalars lists and numbers."""
    write_text(path, json.dumps(as_json_value(value), indent=2, allow_nan=False) + "\n")


def as_json_value(value: Any) -> Any:
    """Converts a value to what JSON can hold: lists for tuples and arrays, None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: as_json_value(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # a NumPy array or scalar, recognised without importing NumPy
        return as_json_value(value.tolist())
    if isinstance(value, list | tuple):
        return [as_json_value(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def through_json(value: Any) -> Any:
    """Returns a value as it is read again from the JSON that `write_json` makes of it."""
    return json.loads(json.dumps(as_json_value(value)))


def rename(path: Path, to: Path) -> Path:
    """Renames a file or directory, and returns its new path; raises StorageError when that fails.

    Takes the place of no device, named pipe or socket.
    """
    demand_ordinary(to)
    with guarded(path, "renamed"):
        return path.rename(to)


def remove(path: Path) -> None:
    """Removes a file, if there is one; raises StorageError when that fails."""
    with guarded(path, "removed"):
        path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Removes a directory and its content, as far as the system allows."""
    shutil.rmtree(path, ignore_errors=True)


def remove_empty_file(path: Path) -> None:
    """Removes a file that is empty, as far as the system lets it."""
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def remove_empty_directory(path: Path) -> None:
    """Removes a directory that is empty, as far as the system lets it."""
    with contextlib.suppress(OSError):
        path.rmdir()


@contextlib.contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """Makes a directory for temporary files for a block, and removes it afterwards with its content."""
    with guarded(Path(tempfile.gettempdir()), "written"):
        path = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield path
    finally:
        remove_tree(path)


@contextlib.contextmanager
def directory_in_use(path: Path) -> Iterator[None]:
    """Makes a directory and its parents for a block; afterwards removes those that it made and that are empty."""
    made = [place for place in (path, *path.parents) if not exists(place)]
    make_directory(path)
    try:
        yield
    finally:
        for place in made:
            remove_empty_directory(place)


def open_locked(path: Path, *, wait: bool = True) -> tuple[BinaryIO, bool]:
    """Opens a file to append, unbuffered, made if it is missing, and locks it until it is closed.

    Its owner may remove or rename it: whoever waited for the lock then makes a new one. Returns the file, and whether
    it is locked: some file systems have no locks. Raises BlockingIOError if another process has the lock and `wait` is
    false, and StorageError if the file cannot be opened or locked.
    """
    while True:
        file = open_file(path, "ab+", buffering=0)
        with contextlib.ExitStack() as opened:
            opened.enter_context(file)
            locked = _lock(file, path, wait)
            if not locked or _is_at(file, path):
                opened.pop_all()
                return file, locked


def _lock(file: BinaryIO, path: Path, wait: bool) -> bool:
    """Locks a file; False if the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise storage_error(path, "locked", error) from error
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Tells whether an open file is still the one at a path."""
    with guarded(path, "read"):
        try:
            return os.path.samestat(os.fstat(file.fileno()), path.stat())
        except FileNotFoundError:
            return False
