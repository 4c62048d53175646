"""Commands forked from a process that has imported what they import: most of a tiny run is imports.

Each is a process of its own, with its own folder, variables and streams, that is killed and waited for as any other.
Linux only; elsewhere, and where variables that are read during import differ, a command starts from nothing. A start
from nothing is tested where it is the subject: tests/test_main.py, the benchmarks, the README's commands.
"""

import ctypes
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import programs

LONGEST_REQUEST = 1 << 17
BECOME_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux
PYTHONPATH = os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
"""Where commands find this checkout's package."""

READ_AT_IMPORT = ("JAX_", "PYTHON", "LD_")

IMPORTED = (
    *("jaxtrain.commands.train", "jaxtrain.search.run", "jaxtrain.trackers.open", "jaxtrain.lr_range.from_config"),
    *("jaxtrain.tasks.classification", "jaxtrain.models.mlp", "jaxtrain.data.readers.embedded"),
    *("jaxtrain.export.fresh_process", "orbax.checkpoint", "tensorboardX", "sklearn.datasets"),
    "matplotlib.backends.backend_agg",
)
"""What most commands import, directly or not, and none imports with an effect of its own."""

PATIENCE = 600.0
"""Seconds that a test waits for a process: it fails a hang, and no machine that other programs slow down."""

_stem: "Stem | None" = None


class Stem:
    """The process to fork from."""

    def __init__(self) -> None:
        variables = {**os.environ, "PYTHONPATH": PYTHONPATH}
        ctypes.CDLL(None).prctl(BECOME_SUBREAPER, 1, 0, 0, 0)  # see _serve
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.read_at_import = _read_at_import(variables)
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", __file__, str(theirs.fileno())],
            env={name: value for name, value in variables.items() if name != programs.CACHE},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # what it and its forks write to can not be sought, as in any command
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # an interrupt from the terminal is pytest's
        )
        theirs.close()

    def fork(self, request: Mapping[str, Any], streams: list[int]) -> int:
        """Returns the process id of a fork that does what is requested."""
        socket.send_fds(self._channel, [json.dumps(request).encode()], streams)
        answer = self._channel.recv(64)
        assert answer, self._process.communicate()[1]
        return int(answer)

    def end(self) -> None:
        """Ends the process, which waits for requests until the channel is closed."""
        self._channel.close()
        self._process.communicate()


class ForkedCommand(subprocess.Popen[str]):
    """`python [-B] -m MODULE ARGUMENTS` or `python SCRIPT ARGUMENTS` as a fork of the stem."""

    def _execute_child(self, args: Any, executable: Any, *rest: Any) -> None:
        """Takes the place of fork and exec; the constructor calls it with the pipes that it made."""
        assert _stem is not None
        folder, variables, *_ = rest[3:]
        ends = rest[8:14]
        request = {"words": list(args[1:]), "folder": str(folder), "variables": dict(variables)}
        self.pid = _stem.fork(request, [ends[0], ends[3], ends[5]])
        self._child_created = True
        self._close_pipe_fds(*ends)  # pyright: ignore[reportAttributeAccessIssue]


def start(line: list[str], folder: Path, variables: Mapping[str, str]) -> subprocess.Popen[str]:
    """Starts `python -m MODULE ...` or `python SCRIPT ...` in a folder, forked where possible, with pipes from it."""
    global _stem
    if sys.platform == "linux" and _stem is None:
        _stem = Stem()
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    if _stem is None or _stem.read_at_import != _read_at_import(variables):
        return subprocess.Popen(line, cwd=folder, env=variables, **pipes)
    return ForkedCommand(line, cwd=folder, env=variables, **pipes)


def run(line: list[str], folder: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs what `start` starts to its end."""
    with start(line, folder, variables) as process:
        try:
            output, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    return subprocess.CompletedProcess(line, process.returncode, output, errors)


def run_here(line: list[str], *, env: Mapping[str, str], **_: object) -> subprocess.CompletedProcess[str]:
    """Takes the place of `subprocess.run` in the check of an export: runs a line in this folder as a fork."""
    return run(line, Path.cwd(), {**env, "PYTHONPATH": PYTHONPATH, "XLA_FLAGS": programs.flags()})


def end() -> None:
    """Ends the process to fork from, where there is one."""
    global _stem
    if _stem is not None:
        _stem.end()
        _stem = None


def _read_at_import(variables: Mapping[str, str]) -> dict[str, str]:
    """Returns those variables that a fork reads too late; the cache of programs is set anew in each (`_become`)."""
    return {
        name: value for name, value in variables.items() if name.startswith(READ_AT_IMPORT) and name != programs.CACHE
    }


def _serve(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Answers each request with the process id of a fork; returns, in the fork, the request and its three streams.

    The fork is made by another, which ends at once: so it becomes a child of the test's process, which waits for it
    and counts its CPU time.
    """
    while True:
        text, streams, _, _ = socket.recv_fds(channel, LONGEST_REQUEST, 3)
        if not text:
            os._exit(0)
        answer, told = os.pipe()
        middle = os.fork()
        if middle == 0:
            command = os.fork()
            if command == 0:
                for end in (channel.detach(), answer, told):
                    os.close(end)
                return json.loads(text), list(streams)
            os.write(told, str(command).encode())
            os._exit(0)
        os.waitpid(middle, 0)
        channel.send(os.read(answer, 64))
        for end in (answer, told, *streams):
            os.close(end)


def _become(request: Mapping[str, Any], streams: list[int]) -> list[str]:
    """Takes over the streams, folder and variables of a request; returns the words behind `python`."""
    import jax

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["variables"])
    jax.config.update("jax_compilation_cache_dir", os.environ.get(programs.CACHE))
    return request["words"]


def _import_all() -> None:
    for module in IMPORTED:
        importlib.import_module(module)
    programs.collect_seldom()  # and so in each fork, whose first collection would copy all of it


if __name__ == "__main__":
    _import_all()
    words = _become(*_serve(socket.socket(fileno=int(sys.argv[1]))))
    if words[0] == "-B":
        sys.dont_write_bytecode = True
        words = words[1:]
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], os.getcwd()
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).parent.resolve())
        runpy.run_path(sys.argv[0], run_name="__main__")
