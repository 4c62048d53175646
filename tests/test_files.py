"""Paths that cannot be read or written: one line, no wait, nothing left behind."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_runs import PATIENCE, command, config_file, environment, tiny

from jaxtrain import files, main
from jaxtrain.commands.options import join
from jaxtrain.config.files import read
from jaxtrain.data import load
from jaxtrain.errors import ConfigError, DataError, JaxtrainError, StorageError, UsageError
from jaxtrain.files import demand_writable
from jaxtrain.storage.locks import run_lock
from jaxtrain.trackers.event_files import write_picture
from jaxtrain.training.trained_run import load_run


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(path.parent)  # the system takes only short names of sockets
        made.bind(path.name)


MAKERS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "socket": make_socket,
    "device without end": lambda path: path.symlink_to("/dev/zero"),
    "full device": lambda path: path.symlink_to("/dev/full"),
    "empty device": lambda path: path.symlink_to("/dev/null"),
    "loop of links": lambda path: path.symlink_to(path),
    "directory": Path.mkdir,
    "file without permission": lambda path: (path.touch(), path.chmod(0)),
}
NAMES = {
    "long name": "x" * 300,
    "long path": "/".join(["y" * 200] * 30),
    "null byte": "a\0b",
    "lone surrogate": "a\ud800b",
    "below a file": "file/x",
}
BAD = [*MAKERS, *NAMES]

OPENED: dict[str, Callable[[Path], object]] = {
    "read_bytes": files.read_bytes,
    "read_text": files.read_text,
    "read_json": files.read_json,
    "to append": lambda path: files.open_file(path, "ab"),
    "lock": files.open_locked,
}
ASKED: dict[str, Callable[[Path], object]] = {
    "exists": files.exists,
    "is_file": files.is_file,
    "is_directory": files.is_directory,
    "list_directory": files.list_directory,
    "make_directory": files.make_directory,
    "write_bytes": lambda path: files.write_bytes(path, b"x"),
    "remove": files.remove,
    "run_lock": lambda path: run_lock(path).__enter__(),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    return tmp_path


@contextmanager
def usual_rights(kind: str) -> Iterator[None]:
    """Takes the rights of a superuser, whom no permission stops, where permissions are the subject."""
    if os.geteuid() != 0 or "permission" not in kind:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def bad_path(folder: Path, kind: str) -> Path:
    if kind in NAMES:
        return folder / NAMES[kind]
    path = folder / "bad"
    MAKERS[kind](path)
    return path


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("action", OPENED.values(), ids=OPENED.keys())
def test_what_is_no_regular_file_is_refused_in_one_line_and_never_waited_for(folder, action, kind):
    path = bad_path(folder, kind)
    with usual_rights(kind), pytest.raises(StorageError) as refusal:
        action(path)
    assert "\n" not in str(refusal.value)
    assert refusal.value.hint


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("action", ASKED.values(), ids=ASKED.keys())
def test_no_other_error_than_ours_leaves_the_guard(folder, action, kind):
    path = bad_path(folder, kind)
    try:
        with usual_rights(kind):
            action(path)
    except StorageError as refusal:
        assert str(refusal).isprintable()  # noqa: PT017 (some of these paths can be asked for)


WRITTEN: dict[str, Callable[[Path], object]] = {
    "write_bytes": lambda path: files.write_bytes(path, b"x"),
    "write_json": lambda path: files.write_json(path, {}),
    "demand_writable": demand_writable,
    "rename": lambda path: files.rename(path.with_name("file"), path),
}


@pytest.mark.parametrize("kind", ["pipe", "socket", "device without end", "empty device"])
@pytest.mark.parametrize("action", WRITTEN.values(), ids=WRITTEN.keys())
def test_what_is_written_takes_the_place_of_no_device_pipe_or_socket(folder, action, kind):
    path = bad_path(folder, kind)
    before = path.lstat()
    with pytest.raises(StorageError, match=r"got a (named pipe|socket|device); expected a regular file"):
        action(path)
    assert (path.lstat().st_mode, path.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert sorted(os.listdir(folder)) == ["bad", "file"]


@pytest.mark.parametrize("kind", sorted({*BAD} - {"file without permission", "directory"}))
def test_an_event_file_that_cannot_be_written_is_one_line(folder, kind):
    with pytest.raises(StorageError):
        write_picture(bad_path(folder, kind), "picture", b"png", 1, 1)


def load_arrays(path: object, file: object) -> None:
    load(tiny({"data.name": "arrays", "data.path": str(path), "data.file": str(file)})["data"])


def load_idx(folder: Path) -> None:
    load(tiny({"data.name": "idx", "data.path": ".", "data.folder": str(folder)})["data"])


ENTRIES: dict[str, tuple[type[JaxtrainError], Callable[[Path], object]]] = {
    "config file": (ConfigError, read),
    "data.path": (DataError, lambda path: load_arrays(path, "x.npz")),
    "data.file": (DataError, lambda path: load_arrays(".", path)),
    "data.folder": (DataError, load_idx),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize(("expected", "entry"), ENTRIES.values(), ids=ENTRIES.keys())
def test_a_path_of_the_config_is_refused_under_its_own_error(folder, expected, entry, kind):
    path = bad_path(folder, kind)
    with usual_rights(kind), pytest.raises(expected):
        entry(path)


@pytest.mark.parametrize("kind", BAD)
def test_a_run_that_cannot_be_read_is_refused(folder, kind):
    with pytest.raises((UsageError, StorageError)):
        load_run(bad_path(folder, kind))


@pytest.mark.parametrize("kind", ["pipe", "device without end", "directory"])
def test_a_file_of_an_array_is_opened_as_carefully(folder, kind):
    (folder / "x").mkdir()
    MAKERS[kind](folder / "x" / "inputs.npy")
    (folder / "x" / "targets.npy").touch()
    with pytest.raises(DataError, match=r"inputs\.npy"):
        load_arrays(".", "x")


def test_the_reason_and_the_remedy_fit_the_error():
    full = files.storage_error(Path("x"), "written", OSError(errno.ENOSPC, "anything"))
    assert str(full).startswith("x: got the error 'No space left on device'; expected a path that can be written. Free")
    hidden = files.storage_error(Path("x"), "written", RuntimeError("C++: no space left on device [code 7]"))
    assert str(hidden) == str(full)


def test_a_temporary_file_that_a_kill_left_is_replaced(folder):
    (folder / ".result.json.tmp").write_text("half of a longer text than the new one")
    files.write_text(folder / "result.json", "new")
    assert (folder / "result.json").read_text() == "new"
    assert sorted(os.listdir(folder)) == ["file", "result.json"]


def test_the_error_names_the_file_that_cannot_be_written_or_what_is_in_its_way(folder):
    with pytest.raises(StorageError, match=r"/missing/result\.json: got the error 'No such file"):
        files.write_text(folder / "missing" / "result.json", "new")
    (folder / ".result.json.tmp").mkdir()
    with pytest.raises(StorageError, match=r"/\.result\.json\.tmp: got the error 'Is a directory'"):
        files.write_text(folder / "result.json", "new")


def test_whoever_waited_for_a_removed_lock_makes_a_new_one(folder):
    path = folder / ".lock"
    first, locked = files.open_locked(path)
    if not locked:
        pytest.skip("this file system has no locks")
    with pytest.raises(BlockingIOError):
        files.open_locked(path, wait=False)
    code = """
import sys
from pathlib import Path
from jaxtrain import files
print("waits", flush=True)
file, _ = files.open_locked(Path(sys.argv[1]))
print(Path(sys.argv[1]).exists(), flush=True)
"""
    script = [sys.executable, "-c", code, str(path)]
    waiting = subprocess.Popen(script, env=environment(), stdout=subprocess.PIPE, text=True)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "waits\n"
    path.unlink()
    first.close()
    assert waiting.communicate(timeout=PATIENCE)[0] == "True\n"


def test_a_lock_leaves_nothing_behind(folder):
    with run_lock(folder / "runs" / "a"):
        (folder / "runs" / "kept").touch()
    assert sorted(os.listdir(folder / "runs")) == ["kept"]
    with pytest.raises(ZeroDivisionError), run_lock(folder / "b" / "c"):
        raise ZeroDivisionError
    assert not (folder / "b").exists()


REFUSED = {
    "missing data": ("train", "data.file=none", 3),
    "a wrong value": ("train", "optimizer.learning_rate=fast", 2),
    "a wrong metric": ("train", "eval.metric=none", 2),
    "no run to begin with": ("train", "checkpoint.init_from=none", 2),
    "a range test of nothing": ("lr_range", "lr_range.target=none", 2),
    "a search without data": ("search", "data.file=none", 3),
    "a search of nothing": ("search", "search.space.optimizer.none=('uniform', 0.0, 1.0)", 2),
}


@pytest.mark.parametrize(("verb", "override", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_a_command_that_is_refused_leaves_nothing_behind(folder, verb, override, code, capsys):
    given = ["--config.data.name=arrays"] if override.startswith("data") else []
    if verb == "search":
        given += ["--config.search.storage=sqlite:///study.db"]
        given += ["--config.search.space.optimizer.learning_rate=('log_uniform', 0.001, 0.1)"]
    config = config_file(folder)
    before = sorted(folder.rglob("*"))
    arguments = [f"--config={config}", "--workdir=new/run", "--quiet", *given, f"--config.{override}"]
    assert main.main([verb, *arguments]) == code
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("kind", ["pipe", "empty device", "directory"])
def test_a_database_that_is_no_file_is_refused_and_nothing_is_left_beside_it(folder, kind):
    pytest.importorskip("optuna")
    pytest.importorskip("psycopg")
    from jaxtrain.search.shared.database import Database

    path = bad_path(folder, kind)
    before = sorted(os.listdir(folder))
    with pytest.raises(StorageError):
        Database(f"sqlite:///{path}")
    assert sorted(os.listdir(folder)) == before


def test_no_bytes_of_a_database_address_end_in_another_error(folder):
    pytest.importorskip("psycopg")
    from jaxtrain.search.shared.database import Database

    for name in ("caf\udce9", "a\ud800b", ".", "/", "x" * 300):
        with pytest.raises((ConfigError, StorageError)):
            Database(f"sqlite:///{name}")


SHELL = {
    "full output": ("list > /dev/full", 5, 1),
    "closed output": ("list >&-", 0, 0),
    "closed error": ("list --config=x 2>&-", 2, 0),
}


@pytest.mark.parametrize(("words", "code", "lines"), SHELL.values(), ids=SHELL.keys())
def test_a_stream_that_takes_nothing_ends_in_one_line(words, code, lines):
    script = ["bash", "-c", f"{join(command())} {words}"]
    ended = subprocess.run(script, env=environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert (ended.returncode, len(ended.stderr.splitlines()), ended.stdout) == (code, lines, "")


def test_no_file_takes_the_number_of_a_closed_stream(folder):
    code = "import sys; from jaxtrain import main; main._open_closed_streams(); sys.exit(open('x', 'w').fileno())"
    script = ["bash", "-c", f"{join([sys.executable, '-c', code])} <&- >&- 2>&-"]
    assert subprocess.run(script, cwd=folder, env=environment(), timeout=PATIENCE).returncode > 2


def test_a_torn_entry_of_the_cache_is_replaced_without_a_word(folder):
    code = """
import jax
from jaxtrain.parallel.compilation import use_persistent_cache
use_persistent_cache()
def tiny(x): return x + 1
jax.jit(tiny)(1.0)
"""

    def compile_in_a_process() -> str:
        variables = environment(XDG_CACHE_HOME=str(folder))
        script = [sys.executable, "-c", code]
        return subprocess.run(script, env=variables, capture_output=True, text=True, timeout=PATIENCE).stderr

    assert compile_in_a_process() == ""
    (entry,) = (folder / "jaxtrain" / "xla").glob("jit_tiny-*")
    whole = entry.read_bytes()
    entry.write_bytes(whole[: len(whole) // 2])
    assert compile_in_a_process() == ""
    assert len(entry.read_bytes()) > len(whole) // 2


@pytest.mark.parametrize("name", ["new.txt", "old.txt", "made/later/new.txt"])
def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path, name):
    (tmp_path / "old.txt").write_text("old")
    demand_writable(tmp_path / name)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"old.txt": "old"}


@pytest.mark.parametrize("name", ["directory", "file/new.txt", "nowhere/new.txt", "file/made/later/new.txt"])
def test_a_place_that_is_taken_is_found_before_anything_is_written(tmp_path, name):
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to(tmp_path / "nothing")
    with pytest.raises(StorageError) as error:
        demand_writable(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "file", "nowhere"]
