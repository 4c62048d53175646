"""Describes the environment of a run: versions, devices, git commit of the working directory."""

import functools
import importlib.metadata
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

import jax

from jaxtrain.errors import StorageError
from jaxtrain.files import read_text

PACKAGES = ("jaxtrain", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml-collections")


def describe_environment() -> dict[str, Any]:
    """Returns versions, host, devices, git commit, and whether files differ from it (None without a repository)."""
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "processor": _processor(),
        "packages": {name: _version(name) for name in PACKAGES},
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.local_devices()],
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if changes is None else bool(changes),
    }


@functools.cache  # to read one parses the package's whole metadata
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Returns the CPU's model name from /proc/cpuinfo, since Python's own answer is often empty."""
    try:
        lines = read_text(Path("/proc/cpuinfo")).splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (StorageError, StopIteration):
        return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    try:
        completed = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout.strip()
