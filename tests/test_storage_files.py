import errno
import fcntl
import json
import math
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import PATIENCE

from jaxtrain.errors import StorageError, UsageError
from jaxtrain.files import read_json, write_json
from jaxtrain.storage import locks
from jaxtrain.storage.locks import run_lock

HOLD = """
import errno, fcntl, os, signal, sys
from pathlib import Path
from jaxtrain.storage.locks import run_lock
def no_locks(file, how):
    raise OSError(errno.ENOLCK, "no locks available")
if sys.argv[2] == "heartbeat":
    fcntl.flock = no_locks
with run_lock(Path(sys.argv[1])):
    if sys.argv[2] == "fork":
        child = os.fork()
        if child == 0:
            print("held", flush=True)
            sys.stdin.read()
            os._exit(0)
        signal.pause()
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold():
    """Starts processes that hold a directory until their input ends; kills those that remain."""
    started = []

    def start(workdir: Path, how: str = "flock") -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD, str(workdir), how]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def no_flock(monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_second_process_is_refused_and_told_who_holds_the_directory(tmp_path, hold):
    owner = hold(tmp_path / "run")
    with pytest.raises(UsageError) as refusal, run_lock(tmp_path / "run"):
        pass
    assert refusal.value.exit_code == 2
    assert f"process {owner.pid} " in str(refusal.value)
    assert str(tmp_path / "run") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_kill_frees_the_directory_at_once(tmp_path, hold):
    owner = hold(tmp_path)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_forked_child_that_outlives_the_owner_does_not_keep_the_lock(tmp_path, hold):
    owner = hold(tmp_path, "fork")
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with run_lock(tmp_path):
        pass


def test_directory_is_free_after_the_block_also_in_the_same_process(tmp_path):
    for _ in range(2):
        with run_lock(tmp_path), pytest.raises(UsageError), run_lock(tmp_path):
            pass


def test_without_locks_a_living_owner_is_respected_and_a_silent_one_succeeded(tmp_path, hold, no_flock):
    owner = hold(tmp_path, "heartbeat")
    with pytest.raises(UsageError, match=f"process {owner.pid} "), run_lock(tmp_path):
        pass
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    long_ago = time.time() - 2 * locks.STALE_SECONDS
    os.utime(tmp_path / ".owner-1", (long_ago, long_ago))
    with run_lock(tmp_path):
        assert [path.name for path in tmp_path.glob(".owner-*")] == [".owner-2"]


def test_without_locks_a_killed_owner_is_succeeded_after_it_was_silent_long_enough(
    tmp_path, hold, no_flock, monkeypatch
):
    monkeypatch.setattr(locks, "STALE_SECONDS", 0.5)
    owner = hold(tmp_path, "heartbeat")
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with run_lock(tmp_path):
        pass


def test_without_locks_the_directory_is_free_at_once_after_the_block(tmp_path, no_flock):
    for _ in range(3):
        started = time.monotonic()
        with run_lock(tmp_path):
            pass
        assert time.monotonic() - started < locks.STALE_SECONDS / 4


def test_without_locks_one_of_many_successors_wins(tmp_path):
    """All processes see the same dead owner; the winner holds the directory until the others have given up."""
    long_ago = time.time() - 2 * locks.STALE_SECONDS
    (tmp_path / ".owner-7").write_text("{}")
    os.utime(tmp_path / ".owner-7", (long_ago, long_ago))
    command = [sys.executable, "-c", HOLD, str(tmp_path), "heartbeat"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    contenders = [subprocess.Popen(command, **pipes) for _ in range(4)]
    lines = []
    try:
        refused = 0
        deadline = time.monotonic() + PATIENCE
        while refused < 3 and time.monotonic() < deadline:
            refused = sum(process.poll() is not None for process in contenders)
            time.sleep(0.01)
    finally:
        lines = [process.communicate()[0] for process in contenders]
    assert sorted(lines) == ["", "", "", "held\n"]


def test_without_locks_a_successor_that_was_faster_is_left_alone(tmp_path):
    (tmp_path / ".owner-8").write_text("of another process")
    assert not locks._claim(tmp_path, 8)
    assert not locks._claim(tmp_path, 7)
    assert [path.name for path in tmp_path.glob(".owner-*")] == [".owner-8"]
    assert (tmp_path / ".owner-8").read_text() == "of another process"


def test_regular_file_in_the_way_gives_one_line_with_the_path(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StorageError) as failure, run_lock(path):
            pass
        assert str(path) in str(failure.value)
        assert "regular file" in str(failure.value)
        assert "\n" not in str(failure.value)


def test_json_is_replaced_whole_with_default_permissions(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"old": True})
    write_json(path, {"loss": math.nan, "best": [np.float32(1.5), -math.inf], "n": np.arange(2)})
    assert read_json(path) == {"loss": None, "best": [1.5, None], "n": [0, 1]}
    (tmp_path / "plain").write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["plain", "result.json"]


def test_json_that_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path):
    code = """
import resource, sys
from pathlib import Path
from jaxtrain.files import write_json
from jaxtrain.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_json(Path(sys.argv[1]), "x" * 10000)
except StorageError as error:
    print(error)
"""
    path = tmp_path / "result.json"
    write_json(path, 1)
    command = [sys.executable, "-c", code, str(path)]
    line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert line.startswith(str(path))
    assert "ulimit" in line
    assert read_json(path) == 1
    assert os.listdir(tmp_path) == ["result.json"]


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe"])
def test_json_that_is_missing_or_broken_is_a_storage_error(tmp_path, content):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StorageError, match=str(path)):
        read_json(path)
